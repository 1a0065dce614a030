"""Proof that a program computes its model: its dataflow as terms, held against those of the model."""
