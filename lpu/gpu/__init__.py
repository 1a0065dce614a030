"""Times of GPU operators."""
