"""Ops of layers that keep a state of fixed size from step to step."""
