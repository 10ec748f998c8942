"""One line around a client or a monitor. Each module imports its package only when it is used."""
