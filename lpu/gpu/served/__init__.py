"""Whole steps of served models: what an engine adds to its operators, as named numbers by engine."""
