"""Mixture of experts: which experts a row chooses, with which weights, and how their results add."""
