"""Upsets: errors that pass, of links and SRAM, and the replay of a token that makes up for them."""
