"""Placement strategies: which chips form each group, one strategy per file."""
