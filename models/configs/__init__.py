"""The numbers of models by kind: what a config file says, checked, and nothing that needs JAX."""
