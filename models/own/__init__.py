"""What a user wrote, looked into: the equations of a step, and their plain JAX in the op vocabulary."""
