"""What a served step needs of a model: its layers' sizes, experts among them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from lpu.inputs.document import FileError, parse, read_document
from models.config import TransformerConfig

SHAPES = Path(__file__).parent / "shapes.yaml"
Attention = Literal["gqa", "mla"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """One model. ffn: width of a dense FFN, of `dense_layers` layers (all where there are no experts).

    experts, topk, expert_ffn: of the other layers; shared: experts that every token takes. window: keys that
    every second layer sees (0: none). latent: MLA of 512 and 64, q_rank its query's rank.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    ffn: int = 0
    dense_layers: int = 0
    experts: int = 0
    topk: int = 0
    expert_ffn: int = 0
    shared: int = 0
    window: int = 0
    latent: bool = False
    q_rank: int = 0

    @property
    def sparse_layers(self) -> int:
        """Layers with experts."""
        return self.layers - self.dense_layers if self.experts else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    shapes: list[StepShape]


@cache
def shapes() -> dict[str, StepShape]:
    """Models that were served and measured, by name."""
    return {one.name: one for one in parse(_File, read_document(SHAPES)).shapes}


def shape_of(config: TransformerConfig) -> StepShape:
    """Of a dense model of the catalog."""
    return StepShape(
        name=config.name,
        layers=config.layers,
        hidden=config.hidden,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        vocab=config.vocab,
        ffn=config.ffn,
        dense_layers=config.layers,
    )


def named(name: str) -> StepShape:
    """A model by its name here, or in the catalog. Raises FileError."""
    if name in shapes():
        return shapes()[name]
    from models.catalog import catalog, catalog_names

    if name in catalog_names() and catalog(name).family == "llama":
        return shape_of(catalog(name))
    raise FileError(
        f"gpu: no step of {name!r} is stated. There are {', '.join((*shapes(), *catalog_names()))}."
    )
