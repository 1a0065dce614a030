"""Traces of requests as others publish them, one format to a file."""
