"""Verbs about machines beside the racks of today: single nodes, speculative ones."""
