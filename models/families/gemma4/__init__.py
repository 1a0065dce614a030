"""Gemma 4 (text): keys, tensors, modules."""
