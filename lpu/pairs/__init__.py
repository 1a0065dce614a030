"""Two reports, racks or placements held against each other, as `lpu/diff` holds two programs."""
