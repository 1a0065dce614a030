"""Verbs of one program, or of two."""
