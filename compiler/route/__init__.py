"""Trees of links."""
