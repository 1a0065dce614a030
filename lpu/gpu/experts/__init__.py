"""Experts on GPUs: what a token's choices read and compute, by kernel; and the traffic to and from them."""
