"""The ops of the vocabulary as rows: one file per op, ending in its rule."""
