"""What is compiled: a source, and the graph and blocks that it is traced to."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax

from compiler.errors import OptionError, UnsupportedOpError
from compiler.graph.capture import capture
from compiler.graph.graph import Graph
from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock, cut
from compiler.lower.kv_blocks import block_of, in_sram, kv_capacity
from compiler.lower.rules import demands_of
from compiler.options import CompileOptions
from compiler.program.manifest import ModelIdentity
from compiler.steps import Steps
from fabric.host import RESERVOIR
from fabric.rack import Rack
from models.contract.op import OperandError

MOST_SECTIONS = 64  # of a context: each is a bucket of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is compiled: a traceable step, its shapes, and what the manifest says of the model.

    chunk: tokens of each sequence that it takes, 1 to decode. resident: tokens of a context that SRAM keeps,
    the last of a longer one, whose others lie in DDR5; 0: all.
    """

    step: Callable[..., Any]
    params: dict[str, Any]
    tokens: Any
    position: Any
    cache: Any
    contexts: tuple[int, ...]
    model: ModelIdentity
    chunk: int = 1
    resident: int = 0

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
            capacity=kv_capacity(in_sram(of.contexts, of.resident), block),
            cached=of.cached,
            chunk=self.source.chunk,
            run=block,
            appended=max(self.source.chunk, appended),
            resident=of.resident,
            host_slot=RESERVOIR.slot_cycles(rack.chip.clock_hz) if of.resident or options.cold else 0,
            slots=options.most_slots,
            cold=options.cold or 0.0,
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


def spilled(model: Traced, options: CompileOptions) -> Traced:
    """The model with a bucket for every section of its context, if its early KV is to lie in DDR5.

    A bucket is a multiple of the tokens that SRAM keeps: all but its last section lies in DDR5, behind the
    lane of the chip that keeps that section of the same region. No step appends to it: when a section is
    full, it goes out between two steps (`compiler.moves.early`). Raises OptionError for sections that cannot
    be.
    """
    kept = options.spill
    if kept is None:
        return model
    source, block, name = model.source, block_of(model.graph), f"--spill {kept}"
    longest = max(source.contexts)
    if source.chunk > 1 or source.cached != source.tokens.shape[0]:
        raise OptionError("options", name, "a step takes one token of each sequence", "Leave --spill out.")
    if kept % block or longest % kept:
        reason = f"contexts of {longest} tokens, in blocks of {block}, are cut into sections of {kept}"
        remedy = f"Give a multiple of {block} that divides {longest}, or another --context."
        raise OptionError("options", name, reason, remedy)
    if longest // kept > MOST_SECTIONS:
        reason = f"cuts {longest} tokens into {longest // kept} sections, the most are {MOST_SECTIONS}"
        raise OptionError("options", name, reason, f"Give {longest // MOST_SECTIONS} or more.")
    if any(context % kept for context in source.contexts):
        reason = f"contexts are {', '.join(map(str, source.contexts))}, a bucket is a multiple of {kept}"
        raise OptionError("options", name, reason, "Give the longest context only.")
    sections = tuple(range(kept, longest + 1, kept))
    return replace(model, source=replace(source, contexts=sections, resident=kept))


def spills(model: Traced, options: CompileOptions) -> tuple[CompileOptions, ...]:
    """The options with every way to cut the context: all of it in SRAM, then two sections, and so on."""
    longest, block = max(model.source.contexts), block_of(model.graph)
    cuts = [n for n in range(2, MOST_SECTIONS + 1) if longest % (n * block) == 0]
    whole = replace(options, spill=None, step_limit=None)
    return (whole, *(replace(options, spill=longest // n) for n in cuts))
