"""Who takes part: the batcher, what one would write by hand, and exporters of other services."""
