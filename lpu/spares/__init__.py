"""Spares: what idle chips, trays or racks cost, and what they give when something breaks."""
