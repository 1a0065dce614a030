"""What GPUs launch for the layers of models, one file a family."""
