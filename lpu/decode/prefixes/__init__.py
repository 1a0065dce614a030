"""Prompts that were computed before: their KV and states kept, found by their tokens, and put back."""
