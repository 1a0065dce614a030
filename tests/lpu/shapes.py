"""The model shapes that tests share: every other shape is another function for XLA to compile."""

from dataclasses import replace

from models.config import MATRICES, TransformerConfig
from models.rope_scaling import LongRopeScaling

STRETCHED = LongRopeScaling(
    short_factor=(1.0,) * 10,
    long_factor=tuple(map(float, range(1, 11))),
    original_max_position=40,
    attention_factor=1.5,
)
SMALL = TransformerConfig(
    name="small", layers=2, hidden=160, heads=4, kv_heads=2, head_dim=32, ffn=320, vocab=240, tied=False,
    rope_theta=1e4, eps=1e-5, max_context=80, source="made up for tests",
)  # fmt: skip
BIASED = replace(
    SMALL, name="biased", biased=MATRICES, activation="gelu_erf", turned_lanes=20, rope_scaling=STRETCHED
)
SCALED = replace(SMALL, name="scaled", column_scales="f32", biased=("q", "k", "v"))
HEADS = replace(SMALL, name="head-norms", qk_norm=True, head_dim=48, kv_heads=4, activation="gelu")
