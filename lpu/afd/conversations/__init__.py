"""The modes as real math: what GPUs and LPUs say together, one file each."""
