"""What crosses between GPUs and a machine: KV and states, by the rows of hand-over programs."""
