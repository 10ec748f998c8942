"""The acting half: the only loop (`worker`), the only HTTP client (`transport`), and what goes with them."""
