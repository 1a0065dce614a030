"""Reads resolved to writes: the dataflow that a schedule implies."""
