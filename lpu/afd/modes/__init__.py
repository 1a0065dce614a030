"""The ways to share the work between GPUs and LPUs, one file each."""
