"""Engines that serve models on GPUs, as named numbers: what a step costs beside its operators' bodies."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lpu.inputs.document import FileError, parse, read_document

ENGINES = Path(__file__).parent / "engines.yaml"
LIMITS: dict[str, tuple[float, float]] = {
    "step_ms": (0, 20),
    "sequence_us": (0, 200),
    "layer_us": (0, 60),
    "products": (0.8, 1.6),
    "attention": (0.8, 1.6),
    "experts": (0.5, 1.6),
    "all_reduce": (0.5, 1.5),
    "collective_us": (0, 15),
    "prefill": (0, 1.2),
    "elementwise": (0, 1.5),
}
"""By name, between what a fit may choose.

step_ms, sequence_us: host, scheduling and sampling, of a step and of each of its sequences. layer_us: gaps
between the kernels of a layer. products, attention, experts, all_reduce, elementwise: factors on what the
operators' bodies take (their own launches are left out). collective_us: of each all-reduce. prefill: share of
each request's prompt that other requests' steps wait for.
"""

NAMES = tuple(LIMITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine. models: names of those that it was fitted to, `rows` of them.

    band, unseen: half-widths that hold 90 % of the rows, each predicted without those of its lengths, or
    without those of its model, format and GPU (`lpu validate --suite steps`).
    """

    name: str
    models: tuple[str, ...]
    band: float
    unseen: float
    rows: int
    numbers: dict[str, float]

    def __post_init__(self) -> None:
        if list(self.numbers) != list(NAMES):
            raise ValueError(f"numbers: {', '.join(self.numbers)} are not {', '.join(NAMES)}")

    def band_of(self, model: str) -> float:
        """The band of a model's steps."""
        return self.band if model in self.models else self.unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    engines: list[Engine]


@cache
def engines() -> Mapping[str, Engine]:
    """Those of the package, by name."""
    return {one.name: one for one in parse(_File, read_document(ENGINES)).engines}


def engine(name: str) -> Engine:
    """One of them. Raises FileError."""
    if name not in engines():
        raise FileError(f"gpu: there is no engine {name!r}. Choose one of {', '.join(engines())}.")
    return engines()[name]
