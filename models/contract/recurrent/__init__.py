"""Layers with a state of fixed size: causal convolution, state space, gated delta rule; one token at a time.

All state is f32 and every step rounds where it says, so decode, any chunking and any batch give equal bits.
"""
