"""The version of the numbers contract, and the constants of it that decide bits without JAX being there."""

CONTRACT = 2  # of the bits: programs and stored KV of another version are refused
BLOCK = 512  # tokens of a block of attention, in every model that does not say another number
