"""How opcodes are executed, one file per family: builders of items and the kernels that compute them."""
