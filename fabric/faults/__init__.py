"""Broken parts of a rack: what they are called, and the rack that is left without them."""
