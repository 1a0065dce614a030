"""Small hybrids of every kind of mixer, made up for tests."""

from dataclasses import replace

from models.configs.hybrid import HybridConfig

SMALL = HybridConfig(
    name="small", family="hybrid", layers=2, hidden=96, heads=1, kv_heads=1, head_dim=2, ffn=1, vocab=120,
    tied=False, rope_theta=1e4, eps=1e-5, max_context=1 << 20, source="made up for tests", pattern=("M", "M"),
    channels=240, states=12, ssm_heads=10, groups=2,
)  # fmt: skip
MIXED = replace(
    SMALL, name="mixed", layers=3, heads=4, kv_heads=2, head_dim=24, ffn=160, pattern=("MF", "AF", "MA"),
    groups=1, mixer_norm="none", conv_biased=False, step_low=0.01, step_high=0.2,
)  # fmt: skip
BESIDE = replace(MIXED, name="beside", layers=2, pattern=("PF", "PF"), rope=False, conv_biased=True)
SELECTIVE = replace(
    SMALL, name="selective", channels=176, ssm_heads=176, groups=1, states=5, rank=12, mixer_norm="none"
)
JAMBA = replace(
    SELECTIVE, name="jamba", layers=2, heads=4, kv_heads=2, head_dim=24, ffn=160, pattern=("ME", "AF"),
    rope=False, step_norms=True, states=44, experts=4, chosen=2, expert_ffn=96, renormalise=False,
)  # fmt: skip
DELTA = replace(
    MIXED, name="delta", layers=2, pattern=("MF", "AF"), rule="delta", channels=192, ssm_heads=8, groups=4,
    states=20, mixer_norm="gated", step_low=0.0, step_high=SMALL.step_high, attention_gate=True, qk_norm=True,
)  # fmt: skip
GATED = replace(
    DELTA, name="gated", pattern=("ME", "AF"), experts=80, chosen=3, expert_ffn=32, shared=1,
    shared_gate=True,
)  # fmt: skip
NEMOTRON = replace(
    SMALL, name="nemotron", layers=3, heads=4, kv_heads=2, head_dim=24, ffn=160, pattern=("M", "A", "F"),
    rope=False, squared=True, norm_groups=True,
)  # fmt: skip
NEMOTRON3 = replace(
    NEMOTRON, name="nemotron3", pattern=("M", "E", "A"), experts=6, chosen=2, expert_ffn=192, shared=2,
    score="sigmoid", scale=2.5, expert_groups=2,
)  # fmt: skip
LATENT = replace(NEMOTRON3, name="latent", shared=0, latent=180, shared_ffn=224)
