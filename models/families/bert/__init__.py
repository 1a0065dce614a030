"""Encoders of the kind of BERT: keys, tensors, modules."""
