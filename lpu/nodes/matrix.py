"""The benchmark matrix of reference 000 section 15, computed: 3 models, 2 formats, 4 batches, 4 contexts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from fabric.node import NodeSpec
from lpu.nodes.compare import OnNode, on_node, seconds_text
from lpu.nodes.demand import supposed
from lpu.nodes.faults import Misses
from lpu.nodes.roofline import NodeWork
from lpu.screen import OnScreen

MODELS = ("dense-70b", "dense-200b", "dense-500b")
FORMATS = ("fp8", "fp4")
BATCHES = (1, 2, 4, 8)
CONTEXTS = (32_768, 131_072, 524_288, 1_048_576)
KV = "fp8"
HEADERS = ("node", "model", "weights", "batch", "context", "lies in", "first token", "tokens/s", 
           "P95 a token", "page faults", "J a token")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Matrix96(OnScreen):
    """Every point of every node, in the order of the tables above; (model, point)."""

    points: tuple[tuple[str, OnNode], ...]

    def rows(self) -> list[list[str]]:
        """Cells under HEADERS."""
        return [_row(model, one) for model, one in self.points]

    def __str__(self) -> str:
        return "\n".join("  ".join(row) for row in self.rows())

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "schema": "lpu-nodes-matrix/1",
            "kv": KV,
            "points": [
                {
                    "model": model,
                    "weights": one.load.weights,
                    "batch": one.load.batch,
                    "context": one.load.context,
                }
                | one.to_json()
                for model, one in self.points
            ],
        }


def matrix(nodes: Sequence[NodeSpec], misses: Misses | None = None, duty: float = 1.0) -> Matrix96:
    """96 points a node, KV in fp8."""
    models = supposed()
    every = product(nodes, MODELS, FORMATS, BATCHES, CONTEXTS)
    return Matrix96(
        points=tuple(
            (
                name,
                on_node(
                    node,
                    models[name],
                    NodeWork(context=context, batch=batch, weights=weights, kv=KV),
                    misses or Misses(),
                    duty,
                ),
            )
            for node, name, weights, batch, context in every
        )
    )


def _row(model: str, one: OnNode) -> list[str]:
    load = one.load
    head = [one.node.name, model, load.weights, str(load.batch), f"{load.context:,}"]
    if one.error:
        return [*head, "does not fit", *["-"] * (len(HEADERS) - len(head) - 1)]
    low, high = one.joules_per_token
    return [
        *head,
        "+".join(tier for tier, *_ in one.held),
        seconds_text(one.prompts[0].seconds),
        f"{one.tokens_per_second:,.4g}",
        seconds_text(one.p95_seconds),
        f"{100 * one.fault_rate:.3g} %",
        f"{low:,.3g} - {high:,.3g}",
    ]
