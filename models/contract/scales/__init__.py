"""Weights whose scale is no power of two per column: blocks of fp8 checkpoints, MXFP4, int4 in groups."""
