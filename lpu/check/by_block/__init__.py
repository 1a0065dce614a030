"""Rules that are looked at once per block, not once per call of it."""
