"""GroqChip1 (TSP) and its racks: published workloads and figures."""
