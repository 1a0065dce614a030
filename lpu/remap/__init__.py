"""Remapping: the program of a broken rack from the one that ran before, and what getting there takes."""
