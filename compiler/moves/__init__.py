"""Programs that move bytes to or from the chips of another: KV of a GPU, weights from DDR5."""
