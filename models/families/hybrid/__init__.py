"""Decoders whose layers are mixtures: state space layers, attention and feed-forward parts, in any order."""
