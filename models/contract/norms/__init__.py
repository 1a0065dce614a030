"""Norms beside `rms_norm`: with a mean, in f32, without a mean square."""
