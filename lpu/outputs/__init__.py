"""What lpu writes: whole or not at all, over nothing that is not its own, by one process at a time."""
