"""What to compute: the op vocabulary, its exact numerics, model families, weights."""
