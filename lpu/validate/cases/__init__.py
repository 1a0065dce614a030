"""One published figure per file."""
