"""Tokens out of anything that takes a step."""
