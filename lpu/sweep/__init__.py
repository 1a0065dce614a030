"""Assumed numbers changed one at a time."""
