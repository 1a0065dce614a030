"""What is compiled: a source, and the graph and blocks that it is traced to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from compiler.errors import UnsupportedOpError
from compiler.graph.capture import capture
from compiler.graph.graph import Graph
from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock, cut
from compiler.lower.kv_blocks import block_of, kv_capacity
from compiler.lower.rules import demands_of
from compiler.options import CompileOptions
from compiler.program.manifest import ModelIdentity
from compiler.steps import Steps
from fabric.rack import Rack
from models.contract.op import OperandError


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is compiled: a traceable step, its shapes, and what the manifest says of the model.

    chunk: tokens of each sequence that it takes, 1 to decode.
    """

    step: Callable[..., Any]
    params: dict[str, Any]
    tokens: Any
    position: Any
    cache: Any
    contexts: tuple[int, ...]
    model: ModelIdentity
    chunk: int = 1

    @property
    def cached(self) -> int:
        """Sequences of the KV cache."""
        return next((leaf.shape[0] for leaf in jax.tree.leaves(self.cache)), self.tokens.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A source as a graph and as blocks: what all compilations of it begin with."""

    source: Source
    graph: Graph
    blocks: tuple[ModelBlock, ...]

    def plan(
        self, rack: Rack, options: CompileOptions, decode: Source | None = None, appended: int = 1
    ) -> Plan:
        """What all blocks share. decode: whose cache the step works on, if not its own.

        appended: tokens of a sequence that another step on the same cache takes.
        """
        of, block = decode or self.source, block_of(self.graph)
        return Plan(
            graph=self.graph,
            demands=demands_of(self.graph),
            chip=rack.chip,
            contexts=self.source.contexts,
            capacity=kv_capacity(of.contexts, block),
            cached=of.cached,
            chunk=self.source.chunk,
            run=block,
            appended=max(self.source.chunk, appended),
            slots=options.most_slots,
        )


def captured(source: Source) -> Graph:
    """The graph of a source. Raises UnsupportedOpError, also for what an op of the contract refuses."""
    try:
        return capture(source.step, source.params, source.tokens, source.position, source.cache)
    except OperandError as error:
        raise UnsupportedOpError("capture", source.model.name or "the model", str(error)) from error


def traced(source: Source, step: Steps | None = None, suffix: str = "") -> Traced:
    """A source in two steps. Raises CompileError if its values do not let it be cut into blocks."""
    step = step or Steps()
    graph = step(f"capture{suffix}", captured, source)
    return Traced(source=source, graph=graph, blocks=step(f"blocks{suffix}", cut, graph))
