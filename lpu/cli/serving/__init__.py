"""Verbs about many requests, and the text of their results."""
