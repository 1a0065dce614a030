"""Experts that sigmoid scores choose, behind a few dense layers: keys, tensors, modules."""
