"""`remap`: from a program and new faults to the program on what is left, and what getting there takes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compiler.errors import CapacityError
from compiler.options import CompileOptions
from compiler.pipeline import compile_pair, compile_program
from compiler.program.manifest import Manifest, Step, Waves
from compiler.program.program import Program
from compiler.source import Traced, traced
from fabric.faults.broken import break_rack
from fabric.faults.fault import FaultError
from fabric.numbering import Numbering, in_order, numbering
from fabric.rack import Rack
from lpu.compiled import ProgramLike, programs_of
from lpu.diff.again import CannotRepeatError, rack_of
from lpu.folder import Progress, quiet
from lpu.inputs.document import FileError
from lpu.inputs.faults import read_faults
from lpu.inputs.files import ModelFile, read_rack
from lpu.inputs.model import OpenModel
from lpu.inputs.open import open_file, reopen
from lpu.remap.ladder import Pair, Rung, degraded
from lpu.remap.moves import MemoryBefore, RemapMoves, moves_between
from lpu.remap.options import RemapOptions, Way
from lpu.remap.order import orders
from lpu.remap.remapped import Remapped, Tried
from lpu.remap.stages import lost_users, remap_stages
from models.families.registry import config_of
from models.sources.absent import IDENTITY


def remap(
    program: ProgramLike,
    faults: Sequence[str],
    *,
    rack: str | Path | Rack | None = None,
    how: RemapOptions | None = None,
    factory: str | None = None,
    progress: Progress = quiet,
) -> Remapped:
    """The program of the same model on what faults leave of its rack, and what getting there takes.

    program: one that decodes, or its folder; faults it knows are kept. faults: names and files. rack: where
    the manifest does not tell it (links that a file lists). factory: of a module of the user's own.
    Raises FileError, CompileError (CapacityError where nothing that may be given up helps).
    """
    parent, long = programs_of(program)
    manifest, how = parent.manifest, how or RemapOptions()
    if not isinstance(manifest.body, Step | Waves):
        raise FileError(f"remap: a program of kind {manifest.kind!r} decodes no tokens. Give one that does.")
    rungs, named = how.rungs(), read_faults(faults)
    if not named:
        raise FileError("remap: no --fault is given, so nothing is broken. Give one.")
    try:
        broken = break_rack(_rack(manifest, rack), named)
    except FaultError as error:
        raise FileError(str(error)) from None
    assert broken.damage is not None
    broken = replace(broken, damage=replace(broken.damage, parent=manifest.digest))
    maker = _Maker(broken, None if long is None else long.manifest.chunk, factory, progress)
    tried, chosen = _kept(maker, parent, how)
    rung: Rung | None = None
    if chosen is None:
        options, first = maker.options(manifest), tried[-1].error
        assert first is not None
        rung, pair = degraded(manifest, options, rungs, maker, first)
        moves = moves_between(MemoryBefore.of(parent), pair[0], numbering(broken))
        chosen = _Chosen(way="anew", pair=pair, moves=moves)
    child, chunks = chosen.pair
    moves = chosen.moves
    return Remapped(
        parent=parent,
        model=maker.model(child.manifest),
        program=child,
        prefill=chunks,
        rack=broken,
        way=chosen.way,
        tried=tuple(tried),
        rung=rung,
        moves=moves,
        stages=remap_stages(parent, child, moves, broken),
        users=lost_users(child, chunks, moves, broken),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    way: Way
    pair: Pair
    moves: RemapMoves


def _kept(maker: "_Maker", parent: Program, how: RemapOptions) -> tuple[list[Tried], _Chosen | None]:
    """The ways that keep what the parent has, in order of preference, and the best of them."""
    manifest, before = parent.manifest, MemoryBefore.of(parent)
    tried: list[Tried] = []
    best: tuple[tuple[int, int, int], _Chosen] | None = None
    for way, order in orders(manifest, maker.rack, how.prefer):
        if way == "anew" and best is not None:
            break
        numbers = in_order(maker.rack, order)
        try:
            pair = maker(manifest, maker.options(manifest), numbers)
        except CapacityError as error:
            tried.append(Tried(way=way, error=error))
            continue
        cycles = pair[0].manifest.cycles[manifest.longest]
        moved = moves_between(before, pair[0], numbers)
        count = moved.bytes_from("DDR5") + moved.bytes_from("host") + moved.bytes_from("link")
        tried.append(Tried(way=way, cycles=cycles, moved_bytes=count))
        cost = (cycles, count, len(tried)) if how.prefer == "latency" else (len(tried), 0, 0)
        if best is None or cost < best[0]:
            best = cost, _Chosen(way=way, pair=pair, moves=moved)
        if how.prefer != "latency" or way != "stay":
            break
    return tried, None if best is None else best[1]


class _Maker:
    """Compiles the parent's model on the broken rack."""

    def __init__(self, rack: Rack, chunk: int | None, factory: str | None, progress: Progress) -> None:
        self.rack, self.chunk, self.factory, self.progress = rack, chunk, factory, progress
        self._opened: dict[tuple[int, tuple[int, ...]], OpenModel] = {}
        self._traced: dict[tuple[int, tuple[int, ...]], Traced] = {}

    def options(self, manifest: Manifest) -> CompileOptions:
        """Those of the parent; blocks fill its groups in order, and as many users keep their KV."""
        found, waves = manifest.options, manifest.waves
        users = None if waves is None else waves.users
        return replace(found, tp=manifest.tp, users=users, placement="contiguous")

    def __call__(self, manifest: Manifest, options: CompileOptions, numbers: Numbering | None = None) -> Pair:
        left = self.rack.chips - len(self.rack.damage.lost if self.rack.damage else ())
        if (options.tp or 1) > left:
            reason = f"a group has {options.tp} chips, {left} are left"
            raise CapacityError("remap", f"tp {options.tp}", reason, "Give up tp.")
        model, key = self.model(manifest), (manifest.rows, manifest.contexts)
        if self.chunk is None:
            if key not in self._traced:
                self._traced[key] = traced(model.source())
            return compile_program(
                self._traced[key], self.rack, options, self.progress, numbers=numbers
            ), None
        sources = model.source(), model.source(self.chunk)
        return compile_pair(*sources, self.rack, options, self.progress, numbers=numbers)

    def model(self, manifest: Manifest) -> OpenModel:
        """The model of a manifest, for its rows and contexts, without weights."""
        key = manifest.rows, manifest.contexts
        if key not in self._opened:
            self._opened[key] = self._other(manifest) if self._opened else self._same(manifest)
        return self._opened[key]

    def _same(self, manifest: Manifest) -> OpenModel:
        """The model of the parent, whose shapes the manifest has a digest of."""
        bare = replace(manifest, model=replace(manifest.model, weights=IDENTITY))
        return replace(reopen(bare, "none", self.factory), about=manifest.model)

    def _other(self, manifest: Manifest) -> OpenModel:
        """The same for other rows or contexts."""
        about = manifest.model
        file = ModelFile(
            model=about.name,
            config=None if about.config is None else config_of(about.config),
            weights="none",
            batch=manifest.rows,
            context=manifest.contexts,
            kv=about.kv,
        )
        opened = open_file(file)
        return replace(opened, about=replace(about, parameters=opened.about.parameters))


def _rack(manifest: Manifest, given: str | Path | Rack | None) -> Rack:
    """The rack of a program with the faults it knows. Raises FileError."""
    if given is not None:
        found = given if isinstance(given, Rack) else read_rack(given)
        known = () if manifest.broken is None else read_faults(manifest.broken.faults)
        found = break_rack(found, known) if known and found.damage is None else found
        links = found.links
        if len(links) != len(manifest.links) or found.chips != manifest.chips:
            raise FileError(
                f"remap: --rack {found.name} has {found.chips} chips and {len(links)} links, "
                f"the program's has {manifest.chips} and {len(manifest.links)}. Give the one of the program."
            )
        return replace(found, chip=replace(manifest.chip, sources=found.chip.sources))
    try:
        found = rack_of(manifest, manifest)
        of_chip = {one.field for one in found.chip.sources}
        return replace(found, sources=tuple(one for one in manifest.sources if one.field not in of_chip))
    except CannotRepeatError as error:
        raise FileError(f"remap: {error}. Name it: --rack FILE.") from None
