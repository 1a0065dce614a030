"""Deskew: clocks of chips that drift apart, and what a static schedule stands of it."""
