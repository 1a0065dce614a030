"""What users write: model files, racks, prompts. The only readers of user files."""
