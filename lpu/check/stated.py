"""What the manifest states, as numbers and arrays that the rules need, and what a program claims at all."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction

import numpy as np
from jaxtyping import Int

from compiler.program.isa import WORD_BYTES, Kernel
from compiler.program.manifest import SCHEMA, Manifest, Move, Step, Switch, Waves
from compiler.program.program import Block, Call, Program
from fabric.catalog import rack_names
from fabric.faults.broken import break_rack
from fabric.faults.fault import FaultError, parse_faults
from fabric.rack import load_rack
from lpu.screen import plain

_UNITS = ("planes", "accumulators", "vxm_chains", "activation_ports")
_COUNTS = (*_UNITS, "sram_bytes", "sram_bytes_per_cycle", "clock_hz")
_DELAYS = ("mxm_fill_cycles", "vxm_latency_cycles", "lane_reduce_cycles")
_MOST = 1 << 40
_MOST_UNITS = 1 << 16  # of a kind on a chip, and lanes of a link


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """The machine, the memory map and the outputs of a manifest.

    kind: of the program; moves: the kind of one that moves KV or weights, else nothing. words: of the SRAM of
    a chip. regions: base and words, in the order of `REGIONS`. link[chip * chips + peer] is an index of
    `lanes`, `hop` and `slot`, or -1. logits: chip, word and line; token: chip and word, none where no token
    is left.
    """

    kind: str
    moves: str
    chips: int
    rows: int
    sequences: int
    chunk: int
    words: int
    planes: int
    chains: int
    accumulators: int
    ports: int
    plane_bytes: int
    mxm_fill: int
    vxm_latency: int
    lane_reduce: int
    forward: int
    kernels: tuple[Kernel, ...]
    regions: Int[np.ndarray, "chips 3 2"]
    link: Int[np.ndarray, " pairs"]
    lanes: Int[np.ndarray, " links"]
    hop: Int[np.ndarray, " links"]
    slot: Int[np.ndarray, " links"]
    logits: Int[np.ndarray, "lines 3"]
    token: Int[np.ndarray, "tokens 2"]

    @staticmethod
    def of(manifest: Manifest) -> "Stated":
        """The numbers of a manifest.

        Raises ValueError where one is out of range, or a link or the token makes no sense.
        """
        _in_range(manifest)
        chip, body, regions, links = (
            manifest.chip,
            manifest.body,
            manifest.region_table(),
            manifest.link_table(),
        )
        token = () if manifest.token is None else manifest.token
        if (manifest.token is not None) != isinstance(body, Step | Waves):
            raise ValueError(f"token: is {manifest.token}, the program is of kind {manifest.kind!r}")
        return Stated(
            kind=manifest.kind,
            moves=body.kind if isinstance(body, Move | Switch) else "",
            chips=len(regions),
            rows=manifest.rows,
            sequences=manifest.sequences,
            chunk=manifest.chunk,
            words=chip.sram_bytes // WORD_BYTES,
            planes=chip.planes,
            chains=chip.vxm_chains,
            accumulators=chip.accumulators,
            ports=chip.activation_ports,
            plane_bytes=_plane_bytes(manifest),
            mxm_fill=chip.mxm_fill_cycles,
            vxm_latency=chip.vxm_latency_cycles,
            lane_reduce=chip.lane_reduce_cycles,
            forward=manifest.forward_cycles,
            kernels=manifest.kernels,
            regions=regions,
            link=_between(links, len(regions)),
            lanes=links[:, 2],
            hop=links[:, 3],
            slot=links[:, 4],
            logits=np.array(manifest.logits, np.int64).reshape(-1, 3),
            token=np.array(token, np.int64).reshape(-1, 2),
        )


def _in_range(manifest: Manifest) -> None:
    counts = {name: getattr(manifest.chip, name) for name in _COUNTS}
    counts |= {"rows": manifest.rows, "sequences": manifest.sequences, "chunk": manifest.chunk}
    delays = {name: getattr(manifest.chip, name) for name in _DELAYS}
    delays |= {"forward_cycles": manifest.forward_cycles}
    for least, numbers in ((1, counts), (0, delays)):
        for name, value in numbers.items():
            if not least <= value < _MOST:
                raise ValueError(f"{name} is {value}, must be a whole number of at least {least}")
    for name in _UNITS:
        if counts[name] > _MOST_UNITS:
            raise ValueError(f"{name} is {counts[name]}, must be at most {_MOST_UNITS}")
    if manifest.chips != len(manifest.regions):
        raise ValueError(f"chips is {manifest.chips}, there are regions of {len(manifest.regions)}")
    wired = [chip for level in manifest.levels for group in level.groups for chip in group]
    busy = [chip for group in manifest.groups for chip in group]
    for name, chips in (("levels", wired), ("groups", busy)):
        if outside := [chip for chip in chips if not 0 <= chip < manifest.chips]:
            raise ValueError(f"{name}: chip {outside[0]}, chips are 0 .. {manifest.chips - 1}")


def _between(links: Int[np.ndarray, "links 5"], chips: int) -> Int[np.ndarray, " pairs"]:
    """Index of the link from one chip to another, -1 for none."""
    if ((links[:, :2] < 0) | (links[:, :2] >= chips)).any() or (links[:, 2:] < [1, 0, 1]).any():
        raise ValueError("links: an end is no chip, or lanes, hop_cycles or slot_cycles are too small")
    if (links[:, 2:] > [_MOST_UNITS, _MOST, _MOST]).any():
        raise ValueError("links: lanes, hop_cycles or slot_cycles are more than a link can have")
    pair = links[:, 0] * chips + links[:, 1]
    if len(np.unique(pair)) < len(pair):
        raise ValueError("links: two links join one pair of chips in one direction")
    link = np.full(chips * chips, -1, np.int32)
    link[pair] = np.arange(len(links))
    return link


def _plane_bytes(manifest: Manifest) -> int:
    """Whole bytes that a plane installs per cycle, halves rounded up: docs/timing.md, "Cycles"."""
    chip = manifest.chip
    rate = Fraction(chip.sram_bytes_per_cycle) * Fraction(str(chip.weight_install_frac))
    found = int(rate / chip.planes + Fraction(1, 2))
    if found < 1:
        raise ValueError("weight_install_frac: a plane installs less than one byte per cycle")
    return found


def claims(program: Program, context: int) -> list[str]:
    """What is wrong with the claims of a program that is to be expanded for a context."""
    return [*_of_contexts(program.manifest, context), *_calls(program, context), *_maps(program.blocks)]


def machine(manifest: Manifest) -> str:
    """Whether the chip and the links of a program are the catalog's; of others the hash and what differs."""
    if manifest.rack in rack_names():
        rack, broken = load_rack(manifest.rack), manifest.broken
        known = True
        try:
            rack = rack if broken is None else break_rack(rack, parse_faults(broken.faults))
        except FaultError:
            known = False
        wires = (rack.links.a, rack.links.b, rack.links.lanes, rack.links.hop_cycles, rack.links.slot_cycles)
        differs = [
            name
            for name, ours, theirs in (
                ("chip", replace(manifest.chip, sources=()), replace(rack.chip, sources=())),
                ("links", manifest.link_table().tolist(), np.stack(wires, axis=-1).tolist()),
                ("forwarding", manifest.forward_cycles, rack.forward_cycles),
                ("faults", known, True),
            )
            if ours != theirs
        ]
        if not differs:
            return f"{plain(manifest.rack)} of the catalog" + (
                f", broken: {' '.join(broken.faults)}" if broken else ""
            )
        why = f"differs from the catalog's {plain(manifest.rack)} in {' and '.join(differs)}"
    else:
        why = "the catalog has none of that name"
    held = json.dumps([asdict(manifest.chip), manifest.links], sort_keys=True, default=str)
    digest = hashlib.sha256(held.encode()).hexdigest()
    return f"{plain(manifest.rack)}, a machine of its own ({why}), sha256 {digest}"


def _of_contexts(manifest: Manifest, context: int) -> Iterator[str]:
    if manifest.schema != SCHEMA:
        yield f"schema is {manifest.schema!r}, must be {SCHEMA!r}"
    contexts = list(manifest.contexts)
    if not contexts or contexts != sorted(set(contexts)) or contexts[0] < 1 or context not in contexts:
        yield f"contexts are {contexts}, must be ascending numbers, {context} among them"
    if sorted(manifest.cycles) != contexts or min(manifest.cycles.values(), default=-1) < 0:
        yield f"cycles are stated for {sorted(manifest.cycles)}, the contexts are {contexts}"


def _calls(program: Program, context: int) -> Iterator[str]:
    for call in program.calls:
        if wrong := _call(program, call, context):
            yield f"call {call.name}: {wrong}"


def _call(program: Program, call: Call, context: int) -> str:
    if not 0 <= call.block < len(program.blocks):
        return f"block {call.block} of {len(program.blocks)}"
    block, chips = program.blocks[call.block], len(call.chips)
    if context not in block.columns or context not in call.base:
        return f"has no rows or no cycle for context {context}"
    if len(set(call.chips)) < chips:
        return f"names a chip twice among {list(call.chips)}"
    bases = (call.weight_base, call.kv_base, call.shared_base)
    if any(len(one) != chips or min(one, default=0) < 0 for one in bases):
        return f"bases of other than its {chips} chips, or below 0"
    if len(call.tensors) != len(block.slots):
        return f"{len(call.tensors)} tensors for {len(block.slots)} slots"
    rows = block.columns[context]
    ranks = np.concatenate([rows.chip, rows.peer, block.loads.chip])
    low = min(int(rows.chip.min(initial=0)), int(block.loads.chip.min(initial=0)))
    if low < 0 or int(ranks.max(initial=-1)) >= chips:
        return f"its block names ranks {low} .. {int(ranks.max(initial=-1))}, it has {chips} chips"
    if (peer := int(rows.peer.min(initial=-1))) < -1:
        return f"its block names rank {peer}"
    slot = block.loads.tensor
    if int(slot.min(initial=0)) < 0 or int(slot.max(initial=-1)) >= len(block.slots):
        return f"preloaded values name slot {int(slot.max(initial=-1))} of {len(block.slots)}"
    return ""


def _maps(blocks: tuple[Block, ...]) -> Iterator[str]:
    for block in blocks:
        known = range(-1, len(block.maps))
        if outside := [index for slot in block.slots for index in slot if index not in known]:
            yield f"block {block.name}: a slot names map {outside[0]} of {len(block.maps)}"
        for number, entries in enumerate(block.maps):
            real = np.sort(entries[entries >= 0])
            if (entries < -1).any() or (real[1:] == real[:-1]).any():
                yield f"block {block.name}: map {number} names an index twice, or one below -1"
