"""Nodes to rows."""
