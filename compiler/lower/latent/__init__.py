"""Lowering of latent attention in its absorbed form."""
