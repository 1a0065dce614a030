"""Readers of models for the proof: from the numbers of a model to the terms of its step, one per family."""
