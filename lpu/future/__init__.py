"""Speculative machines: what each changes for one model, by programs where the machine model allows them."""
