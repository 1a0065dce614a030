"""Where weights come from: a seed, Hugging Face folders, Orbax checkpoints."""
