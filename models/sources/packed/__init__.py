"""Weights of four bits that checkpoints hold in two or three tensors, read as one."""
