"""What to compute."""
