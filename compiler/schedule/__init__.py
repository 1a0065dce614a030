"""Rows to cycles, units and addresses."""
