"""A program compiled again with some of what it was compiled from taken from another one."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compiler.errors import CompileError
from compiler.options import STRATEGIES, CompileOptions
from compiler.pipeline import compile_pair, compile_program
from compiler.program.manifest import Manifest
from compiler.program.program import Program
from compiler.source import Source, Traced, traced
from fabric.catalog import rack_names, rack_spec
from fabric.chip import ChipSpec, Confidence, Sourced
from fabric.faults.broken import break_rack
from fabric.faults.fault import parse_faults
from fabric.link import NS_PER_SECOND
from fabric.rack import Rack, build_rack
from fabric.topology import Level, RackSpec
from lpu.diff.side import COMPUTE
from lpu.inputs.files import ModelFile
from lpu.inputs.open import open_file
from lpu.report.traffic import link_levels
from models.families.registry import config_of


class CannotRepeatError(ValueError):
    """A program that cannot be compiled again here: why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a program is compiled from. chunk: of the program that takes chunks of a prompt beside it, if any.

    long: whether that program is meant, and not the one that decodes.
    """

    source: Source | Traced
    rack: Rack
    options: CompileOptions
    chunk: Source | None = None
    long: bool = False

    def program(self, rack: Rack | None = None) -> Program:
        """What is compiled of it, on its rack or on another one. Raises CompileError."""
        machine = rack or self.rack
        if self.chunk is None or isinstance(self.source, Traced):
            return compile_program(self.source, machine, self.options)
        return compile_pair(self.source, self.chunk, machine, self.options)[self.long]

    def traced(self) -> "Recipe":
        """The same with its source traced, which is then done once for all racks."""
        if self.chunk is not None or isinstance(self.source, Traced):
            return self
        return replace(self, source=traced(self.source))


def mixed(first: Manifest, other: Manifest, taken: Sequence[str], context: tuple[int, int]) -> Program:
    """`first` compiled again, with the named facts of a `Side` taken from `other`.

    context: of both sides; only this bucket is compiled. Raises CannotRepeatError.
    """
    try:
        return recipe_of(first, other, taken, context).program()
    except (CompileError, ValueError) as error:
        raise _cannot(error) from None


def recipe_of(first: Manifest, other: Manifest, taken: Sequence[str], context: tuple[int, int]) -> Recipe:
    """What `mixed` compiles. Raises CannotRepeatError."""

    def side(fact: str) -> Manifest:
        return other if fact in taken else first

    about = side("model").model
    if about.config is None:
        raise CannotRepeatError("a module of one's own is not imported again")
    for one in (first, other):
        if one.kind not in COMPUTE:
            raise CannotRepeatError(f"a program of {one.kind} is not compiled again")
    if side("placement").options.placement not in STRATEGIES:
        raise CannotRepeatError("a placement of one's own is not imported again")
    file = ModelFile(
        model=about.name,
        config=config_of(about.config),
        weights="none",
        batch=side("batch").sequences,
        context=(context[1] if "context" in taken else context[0],),
        kv=side("kv").model.kv,
    )
    options = CompileOptions(
        tp=side("tp").tp,
        pp=side("pp").options.pp,
        cp=side("cp").options.cp,
        layout=side("layout").options.layout,
        experts=side("experts").options.experts,
        placement=side("placement").options.placement,
        seed=side("placement").options.seed,
        objective=side("objective").options.objective,
        interval_slack=side("objective").options.interval_slack,
        users=side("objective").options.users,
        waves=side("chunk").options.waves,
    )
    chunk = side("chunk").chunk
    tokens = chunk if chunk > 1 else side("chunk").prefill
    try:
        rack, opened = rack_of(side("rack"), side("chip")), open_file(file)
        return Recipe(
            source=opened.source(),
            rack=rack,
            options=options,
            chunk=opened.source(tokens) if tokens else None,
            long=chunk > 1,
        )
    except (CompileError, ValueError) as error:
        raise _cannot(error) from None


def _cannot(error: Exception) -> CannotRepeatError:
    return error if isinstance(error, CannotRepeatError) else CannotRepeatError(" ".join(str(error).split()))


def rack_of(wires: Manifest, chips: Manifest) -> Rack:
    """The rack that one manifest states, of the chips of another; hops keep their nanoseconds.

    A manifest has links, and numbering wants levels: those of a rack of the catalog that is wired so, or
    plain ones. Raises CannotRepeatError if no such rack has the links of the manifest.
    """
    for spec in _specs(wires):
        try:
            own = build_rack(spec, _chip(wires))
            if wires.broken is not None:
                own = break_rack(own, parse_faults(wires.broken.faults))
            if own.forward_cycles == wires.forward_cycles and _table(own) == wires.link_table().tolist():
                return own if chips is wires else _of(own, spec, _chip(chips))
        except ValueError:
            continue
    raise CannotRepeatError(f"the file of rack {wires.rack} is not here")


def _of(own: Rack, spec: RackSpec, chip: ChipSpec) -> Rack:
    """The same rack of other chips, with its faults."""
    made = build_rack(spec, chip)
    return made if own.damage is None else break_rack(made, own.damage.faults)


def _chip(manifest: Manifest) -> ChipSpec:
    """The chip of a manifest with the sources of its numbers, which the manifest keeps apart."""
    names = manifest.chip.numbers()
    return replace(manifest.chip, sources=tuple(one for one in manifest.sources if one.field in names))


def _specs(wires: Manifest) -> Iterator[RackSpec]:
    """Racks that may be the one of a manifest, with its lanes and nanoseconds."""
    table, levels, clock = wires.link_table(), link_levels(wires), wires.clock_hz
    names = [level.name for level in wires.levels]
    forward = wires.forward_cycles * NS_PER_SECOND // clock

    def numbers(name: str) -> dict[str, int]:
        mine = table[levels == names.index(name)] if name in names else table[:0]
        if not len(mine):
            return {}
        _, _, lanes, hop, slot = mine[int(np.argmax(mine[:, 2]))].tolist()  # faults leave fewer lanes to some
        other = {} if slot == wires.chip.slot_cycles else {"slot_cycles": slot}
        return {"lanes": lanes, "hop_ns": hop * NS_PER_SECOND // clock, **other}

    for name in dict.fromkeys((wires.rack, *rack_names())):
        with suppress(ValueError, OSError, KeyError):
            spec = rack_spec(name)
            if [level.name for level in spec.levels] == names and spec.span == wires.chips:
                same = tuple(replace(level, **numbers(level.name)) for level in spec.levels)
                yield _stated(replace(spec, levels=same, forward_ns=forward))
    about_rack: Any = {"name": wires.rack, "chip": wires.chip.name, "forward_ns": forward}
    inner = 1
    plain: list[Level] = []
    with suppress(ValueError):
        for name, kind, groups in wires.levels:
            about: Any = {"name": name, "kind": kind, "size": len(groups[0]) // inner, **numbers(name)}
            plain.append(Level(links=int(kind == "dragonfly"), **about))
            inner = len(groups[0])
        yield _stated(RackSpec(levels=tuple(plain), **about_rack))
    if names == ["links"]:
        cables = [row for row in table.tolist() if row[0] < row[1]]
        links = tuple((a, b, lanes, hop * NS_PER_SECOND // clock) for a, b, lanes, hop, _ in cables)
        yield _stated(RackSpec(chips=wires.chips, links=links, **about_rack))


def _stated(spec: RackSpec) -> RackSpec:
    """The spec with a source for each number, which building asks for."""
    known: Confidence = "assumed"
    sources = [Sourced(field=name, confidence=known, source="the manifest") for name in spec.numbers()]
    return replace(spec, sources=tuple(sources))


def _table(rack: Rack) -> list[list[int]]:
    links = rack.links
    return np.stack([links.a, links.b, links.lanes, links.hop_cycles, links.slot_cycles], axis=-1).tolist()
