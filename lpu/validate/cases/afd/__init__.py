"""GPUs and others beside each other: published schedules of divided models."""
