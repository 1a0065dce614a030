"""A new step of other users every interval."""
