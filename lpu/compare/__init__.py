"""Placement strategies side by side."""
