"""Case 102: KV bytes and attention FLOPs of a decoded token in Step-3's tables, from published geometries.

The published figures are recalled (R), to three digits: facts/afd.md section 1.2 says that geometry
reproduces them exactly, and does not list them.
"""

from dataclasses import dataclass

from lpu.validate.cases.point import PublishedPoint

CASE = 102
TOKENS = 8192
TOLERANCE = 0.5  # percent: three digits are published


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Attention of a model. kv: elements per token and layer that are cached, one byte each.

    width: multiplications per query head and cached token, keys and values together.
    """

    layers: int
    heads: int
    kv: int
    width: int
    kv_published: float
    flops_published: float

    @property
    def kv_bytes(self) -> int:
        """KV bytes of one sequence of TOKENS tokens."""
        return self.layers * self.kv * TOKENS

    @property
    def flops(self) -> int:
        """Attention FLOPs of one decoded token over TOKENS cached tokens."""
        return 2 * self.layers * self.heads * self.width * TOKENS


# MLA is absorbed: 512 latent and 64 rotary elements as keys, counted again as values (facts/afd.md 1.2).
MODELS = {
    "DeepSeek-V3": Geometry(
        layers=61, heads=128, kv=576, width=1152, kv_published=2.88e8, flops_published=1.47e11
    ),
    "Kimi-K2": Geometry(
        layers=61, heads=64, kv=576, width=1152, kv_published=2.88e8, flops_published=7.37e10
    ),
    "Qwen3-235B": Geometry(
        layers=94, heads=64, kv=1024, width=256, kv_published=7.89e8, flops_published=2.52e10
    ),
    "Step-3": Geometry(layers=61, heads=64, kv=512, width=512, kv_published=2.56e8, flops_published=3.27e10),
}


def points() -> tuple[PublishedPoint, ...]:
    """Two figures of each model at 8K."""
    return tuple(
        PublishedPoint(
            case=CASE,
            name=f"{name}, {what}",
            kind="anchor",
            unit=unit,
            published=published / scale,
            modelled=found / scale,
            tolerance_percent=TOLERANCE,
        )
        for name, one in MODELS.items()
        for what, unit, scale, published, found in (
            ("KV of a sequence", "MB", 10**6, one.kv_published, one.kv_bytes),
            ("attention of a token", "GFLOP", 10**9, one.flops_published, one.flops),
        )
    )
