"""Bits held against every other way to get them."""
