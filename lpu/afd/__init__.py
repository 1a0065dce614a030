"""GPUs and LPUs together."""
