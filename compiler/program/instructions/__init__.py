"""The opcodes, one file per family: their kernels and their `Instruction` records."""
