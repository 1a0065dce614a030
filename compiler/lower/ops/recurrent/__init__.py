"""Lowering of ops that keep a state: where each line of channels lies, its state lies too."""
