"""Targets in, configurations out: what serves a load, what does not and why."""
