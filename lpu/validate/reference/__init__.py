"""Tables that reference documents print, recomputed from first principles: one data file, no special case."""
