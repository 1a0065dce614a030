"""Hugging Face folders: config.json, RoPE, names and tensors read as ours."""
