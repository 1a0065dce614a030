"""A program run call by call, each with its own weights only."""
