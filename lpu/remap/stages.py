"""From the fault to serving again: the stages in order, each with its cycles and how they are known."""

from dataclasses import dataclass
from typing import Any, Literal

from compiler.program.isa import WORD_BYTES
from compiler.program.program import Program
from fabric.host import RESERVOIR
from fabric.rack import Rack
from lpu.remap.moves import RemapMoves

INSTRUCTION_BYTES = 32  # of a row in an instruction queue; assumed: not published
Known = Literal["exact for the stated machine", "modelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemapStage:
    """One stage: its cycles, what they are, and of what kind that number is."""

    name: str
    cycles: int
    what: str
    known: Known


@dataclass(frozen=True, slots=True, kw_only=True)
class LostUsers:
    """Users whose KV is lost, and what it costs to have it back. known: of what kind each figure is.

    users: of `all_users`. prefill_cycles: of one user, whose context is full. parity_words: that a chip would
    keep for the others of its group to restore it; parity_cycles: to restore one chip from them.
    """

    users: int
    all_users: int
    prefill_tokens: int
    prefill_cycles: int
    parity_words: int
    parity_cycles: int


def remap_stages(parent: Program, child: Program, moves: RemapMoves, rack: Rack) -> tuple[RemapStage, ...]:
    """The stages of a hard fault. The host has the new program before: compiling is no stage."""
    exact: Known = "exact for the stated machine"
    before, after = parent.manifest, child.manifest
    step, new = before.cycles[before.longest], after.cycles[after.longest]
    drain = step if before.waves is not None else 0
    return (
        RemapStage(
            name="detect", cycles=2 * step, what="the step that deviates, and its replay", known=exact
        ),
        RemapStage(name="drain", cycles=drain, what="waves of other users run out", known=exact),
        RemapStage(
            name="program",
            cycles=load_cycles(child),
            what=f"{INSTRUCTION_BYTES} bytes of each row over the FPGA lane of its chip",
            known="modelled",
        ),
        RemapStage(
            name="move", cycles=moves.cycles, what="weights over FPGA lanes, KV over links", known=exact
        ),
        RemapStage(name="restart", cycles=new, what="the first step of the new program", known=exact),
    )


def load_cycles(child: Program) -> int:
    """Cycles until the busiest chip has its instructions of every bucket."""
    rows = [0] * child.manifest.chips
    counts: dict[tuple[int, int], list[int]] = {}
    for call in child.calls:
        for context in child.manifest.contexts:
            key = call.block, context
            if key not in counts:
                mine = child.blocks[call.block].columns[context].chip
                counts[key] = [int((mine == rank).sum()) for rank in range(int(mine.max(initial=-1)) + 1)]
            for chip, count in zip(call.chips, counts[key], strict=False):
                rows[chip] += count
    clock_hz = child.manifest.clock_hz
    words = -(-max(rows) * INSTRUCTION_BYTES // WORD_BYTES)
    return words * RESERVOIR.slot_cycles(clock_hz)


def lost_users(child: Program, long: Program | None, moves: RemapMoves, rack: Rack) -> LostUsers:
    """Every user has KV on every chip in use, so one lost region is a region of every user."""
    manifest = child.manifest
    users = manifest.sequences * (1 if manifest.waves is None else manifest.waves.users)
    tokens = manifest.longest
    cycles = tokens * manifest.cycles[tokens]
    if long is not None:
        chunk = long.manifest
        cycles = -(-tokens // chunk.chunk) * chunk.cycles[chunk.longest]
    kv = int(manifest.region_table()[:, 1, 1].max())
    others = max(manifest.tp - 1, 1)
    links = rack.links
    slot, lanes = int(links.slot_cycles.max()), int(links.lanes.max())
    return LostUsers(
        users=users if moves.lost else 0,
        all_users=users,
        prefill_tokens=tokens,
        prefill_cycles=cycles,
        parity_words=-(-kv // others),
        parity_cycles=-(-kv // lanes) * slot + int(links.hop_cycles.max()),
    )


def as_json(stages: tuple[RemapStage, ...], clock_hz: int) -> list[dict[str, Any]]:
    """Plain JSON values."""
    return [
        {
            "stage": one.name,
            "cycles": one.cycles,
            "seconds": one.cycles / clock_hz,
            "what": one.what,
            "kind": one.known,
        }
        for one in stages
    ]


def stage_line(one: RemapStage, clock_hz: int) -> str:
    """A stage in words."""
    milliseconds = 1e3 * one.cycles / clock_hz
    return f"{one.name}: {one.cycles:,} cycles = {milliseconds:.3f} ms, {one.what} ({one.known})"
