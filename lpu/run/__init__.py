"""A linked program executed in JAX."""
