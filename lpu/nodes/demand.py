"""What a model asks of a node that holds it whole: bytes to read, bytes to keep, FLOPs."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lpu.gpu.served.shape import StepShape
from lpu.inputs.document import parse, read_document
from models.config import MATRICES_PER_FFN, TransformerConfig

SUPPOSED = Path(__file__).parent / "models.yaml"
BYTES = {"fp16": 2.0, "fp8": 1.0, "fp4": 0.5}
"""Of a weight or a KV number, without scales."""

LATENT, TURNED = 512, 64  # of MLA: what it keeps of a token and layer
LATENT_QK, LATENT_V = 192, 128  # of a head of MLA, written out


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDemand:
    """One model. parameters: all that memory holds. shared: of them, those that every token multiplies.

    experts: of a layer that has them, 1 where none has; topk: those a token takes; expert_parameters: of one
    of them, over all layers. kept: KV numbers of a token, of layers that see all of the context; near: of
    those that see `window` tokens. pair_flops, near_flops: of a query and a key in those layers;
    prompt_flops: the same in a prompt, where latents are written out (0: no other).
    """

    name: str
    parameters: int
    shared: int
    layers: int
    hidden: int
    kept: int
    pair_flops: int
    prompt_flops: int = 0
    near: int = 0
    near_flops: int = 0
    window: int = 0
    experts: int = 1
    topk: int = 0
    expert_parameters: int = 0

    @property
    def active(self) -> int:
        """Parameters that one token multiplies."""
        return self.shared + self.topk * self.expert_parameters

    def read(self, tokens: int) -> float:
        """Parameters that a step of this many tokens reads: of the experts those that some token takes.

        The mean where every token takes its experts by chance, each with the same one.
        """
        missed = (1 - self.topk / self.experts) ** tokens
        return self.shared + self.expert_parameters * self.experts * (1 - missed)

    def kv_numbers(self, tokens: int) -> int:
        """KV numbers of one sequence."""
        return self.kept * tokens + self.near * min(tokens, self.window)

    def decode_flops(self, batch: int, context: int) -> float:
        """Of a step of one token of each sequence."""
        attention = self.pair_flops * context + self.near_flops * min(context, self.window)
        return batch * (2.0 * self.active + attention)

    def prefill_flops(self, tokens: int) -> tuple[float, float]:
        """Of a prompt: products, and attention, which is causal (half of all pairs)."""
        inside = min(tokens, self.window)
        near = self.near_flops * (tokens - inside / 2) * inside
        pair = self.prompt_flops or self.pair_flops
        return 2.0 * self.active * tokens, pair * tokens * tokens / 2 + near


@dataclass(frozen=True, slots=True, kw_only=True)
class Supposed:
    """A dense model by its round number of parameters."""

    name: str
    parameters: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int

    def demand(self) -> NodeDemand:
        """Every parameter is read for every step."""
        return NodeDemand(
            name=self.name,
            parameters=self.parameters,
            shared=self.parameters,
            layers=self.layers,
            hidden=self.hidden,
            kept=2 * self.layers * self.kv_heads * self.head_dim,
            pair_flops=4 * self.layers * self.heads * self.head_dim,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    models: list[Supposed]


@cache
def supposed() -> dict[str, NodeDemand]:
    """The models that reference 000 supposes, by name."""
    return {one.name: one.demand() for one in parse(_File, read_document(SUPPOSED)).models}


def of_config(config: TransformerConfig) -> NodeDemand:
    """Of a dense decoder. Of the table of embeddings a row is read, unless it is the head too."""
    parameters = config.parameters()
    kept = 2 * config.layers * config.kv_heads * config.head_dim
    pair = 4 * config.layers * config.heads * config.head_dim
    near = config.window is not None
    return NodeDemand(
        name=config.name,
        parameters=parameters,
        shared=parameters - (0 if config.tied else config.vocab * config.hidden),
        layers=config.layers,
        hidden=config.hidden,
        kept=0 if near else kept,
        pair_flops=0 if near else pair,
        near=kept if near else 0,
        near_flops=pair if near else 0,
        window=config.window or 0,
    )


def of_shape(shape: StepShape) -> NodeDemand:
    """Of a model that was served and measured, experts and MLA among them; norms and biases left out."""
    expert = MATRICES_PER_FFN * shape.hidden * shape.expert_ffn
    head = shape.vocab * shape.hidden
    ffn = shape.dense_layers * MATRICES_PER_FFN * shape.hidden * shape.ffn
    shared = (
        shape.layers * _attention(shape) + ffn + head + shape.sparse_layers * expert * shape.shared
        + shape.sparse_layers * shape.hidden * shape.experts
    )  # fmt: skip
    held = shared + head + shape.sparse_layers * expert * shape.experts
    if shape.latent:
        kept = shape.layers * (LATENT + TURNED)
        pair = 2 * shape.layers * shape.heads * (2 * LATENT + TURNED)
    else:
        kept = 2 * shape.layers * shape.kv_heads * shape.head_dim
        pair = 4 * shape.layers * shape.heads * shape.head_dim
    halves = 2 if shape.window else 1  # every second layer sees the window
    return NodeDemand(
        name=shape.name,
        parameters=held,
        shared=shared,
        layers=shape.layers,
        hidden=shape.hidden,
        kept=kept // halves,
        pair_flops=pair // halves,
        prompt_flops=2 * shape.layers * shape.heads * (LATENT_QK + LATENT_V) if shape.latent else 0,
        near=kept - kept // halves,
        near_flops=pair - pair // halves,
        window=shape.window,
        experts=max(shape.experts, 1),
        topk=shape.topk,
        expert_parameters=shape.sparse_layers * expert,
    )


def _attention(shape: StepShape) -> int:
    """Parameters of a layer's attention."""
    if shape.latent:
        queries = shape.q_rank * (shape.hidden + shape.heads * LATENT_QK)
        down = shape.hidden * (LATENT + TURNED)
        up = LATENT * shape.heads * 2 * LATENT_V  # keys without their turned part are as wide as values
        return queries + down + up + shape.heads * LATENT_V * shape.hidden
    wide = shape.heads + 2 * shape.kv_heads
    return shape.hidden * shape.head_dim * (wide + shape.heads)
