"""One placement strategy per file."""
