"""Micro-batches between two pools, in time."""
