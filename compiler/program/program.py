"""The compiled program: blocks of instruction rows, the calls that place them, preloads, the manifest.

A *block* is a scheduled piece of the model (an attention or FFN block on one group of chips) that many calls
share. Its rows name chips by rank in the group, addresses by space and offset (`space << 40 | offset`),
cycles from 0. A *call* gives the ranks their chips, the spaces their bases, the block its cycle. Expansion is
exact.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compiler.program.isa import (
    COLUMNS,
    KV,
    READS,
    SHARED,
    SPACE_SHIFT,
    TAG_SHIFT,
    TAGS,
    WEIGHTS,
    WRITES,
    Columns,
    Op,
)

LOADS = ("chip", "addr", "words", "kind", "tensor", "k0", "n0", "lines", "tag")
HOPS = 1  # the one context of a program of hops, which read no KV
TILE, SCALE, GAIN, TABLE, ANGLES = range(5)  # kinds of preloaded values, see Loads


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """What lies in the weight space before the first cycle: one row per preloaded value, int64 columns.

    TILE: 80 words, one per output column n0 .. n0+79, each 320 e4m3 lanes of input rows k0 .. k0+319.
    SCALE: one word, the f32 scales 2^e of columns n0 .. n0+79. GAIN: one word, f32 gains of n0 .. n0+79.
    TABLE: the embedding, per vocabulary row the fp16 lanes n0 .. n0+80*lines-1 in ceil(lines/2) words.
    ANGLES: the RoPE table, per position cos then sin (Q1.15, head_dim/2 each, two bytes) in whole words.
    k0 and n0 are *padded* positions: the maps of the slot say which row or column each is (-1: zero).
    """

    chip: np.ndarray
    addr: np.ndarray
    words: np.ndarray
    kind: np.ndarray
    tensor: np.ndarray
    k0: np.ndarray
    n0: np.ndarray
    lines: np.ndarray
    tag: np.ndarray

    def __len__(self) -> int:
        return len(self.chip)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A scheduled block in rank, offset and relative-cycle form; `columns` and `cycles` per context bucket.

    `slots[tensor]` is (row map, column map), indices into `maps` (-1: none).
    """

    name: str
    columns: dict[int, Columns]
    cycles: dict[int, int]
    loads: Loads
    maps: tuple[np.ndarray, ...]
    slots: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One use of a block: its chips by rank, bases of the weight and KV spaces by rank, cycle per bucket."""

    block: int
    name: str
    chips: tuple[int, ...]
    weight_base: tuple[int, ...]
    kv_base: tuple[int, ...]
    shared_base: tuple[int, ...]
    tag: int
    tensors: tuple[str, ...]
    base: dict[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What compile returns and the only thing that lpu sees.

    `manifest` keys: model, rack, options, versions, inputs (sha256), rows (of a step), sequences (of the KV
    cache), chunk (rows of each sequence that a step takes, 1 to decode), prefill (chunk of the prefill
    program with the same memory image, 0 for none), contexts, kernels (list of dicts, the static attributes
    that `aux` indexes), chip (ChipSpec numbers), links (list of [a, b, lanes, hop_cycles, slot_cycles],
    directed), forward_cycles, regions (per chip [transient, kv, weights] -> [base, words]), logits (list of
    [chip, line address, padded line]), token ([chip, line address]), vocab, cycles per context, clock_hz,
    digest; and waves, if a new step of other users may enter every interval: users (how many keep their KV,
    in groups of `rows`), arenas, arena_words and user_words by chip (copies and words of the transients,
    words of one user's KV), tags (values of a wave), contexts: per bucket interval, turn (intervals after
    which a user may step again), bound and bound_of (no shorter interval, and why). A program that moves KV
    over the host lanes has kind ("ingest" or "egress"), tokens (of one sequence), bridge (name and numbers),
    layers, slots (per call [name, base, cycles]), ready (cycle by layer before which its slot may not
    begin, or None: slots one after another), program (digest of the decode program), and no logits or token.
    """

    manifest: dict[str, Any]
    blocks: tuple[Block, ...]
    calls: tuple[Call, ...]

    def expand(self, context: int, wave: int = 0) -> Columns:
        """Every instruction of one step in call order, with chips, SRAM words and cycles of the rack.

        wave: the step that enters `wave` intervals after the first one, of the user `wave % turn`.
        """
        rows = sum(len(self.blocks[call.block].columns[context]) for call in self.calls)
        parts = (self.expand_call(call, context) for call in self.calls)
        whole = Columns(**_joined(COLUMNS + TAGS, parts, rows))
        return _later(whole, self.manifest["waves"], context, wave) if wave else whole

    def expand_call(self, call: Call, context: int) -> Columns:
        """The instructions of one call."""
        rows = self.blocks[call.block].columns[context]
        chips = np.array(call.chips)
        bases = self._bases(call)
        out = {name: getattr(rows, name) for name in COLUMNS + TAGS}
        out["t0"] = rows.t0 + call.base[context]
        out["t1"] = rows.t1 + call.base[context]
        for name in ("dst", "src", "src2", "src3"):
            out[name] = _resolve(getattr(rows, name), rows.chip, bases)
            tag = getattr(rows, name + "_tag")
            out[name + "_tag"] = np.where(tag < 0, tag, tag + (call.tag << TAG_SHIFT))
        out["chip"] = chips[rows.chip]
        out["peer"] = np.where(rows.peer < 0, -1, chips[rows.peer])
        return Columns(**out)

    def hop(self, index: int) -> "Program":
        """The hop of that index by itself, from cycle 0: the same chips and words, its own weights only."""
        stated = self.manifest["hops"][index]
        call, zero = self.calls[stated["call"]], dict.fromkeys(stated["base"], 0)
        hop = {**stated, "call": 0, "base": zero}
        manifest = {**self.manifest, "hops": [hop], "cycles": stated["cycles"]}
        alone = replace(call, block=0, base=dict.fromkeys(call.base, 0))
        program = Program(manifest=manifest, blocks=(self.blocks[call.block],), calls=(alone,))
        manifest["digest"] = digest(program)
        return program

    def _bases(self, call: Call) -> np.ndarray:
        """Word address where each space begins, [space, rank]; the transient space begins at 0."""
        bases = np.zeros((4, len(call.chips)), np.int64)
        bases[WEIGHTS], bases[KV], bases[SHARED] = call.weight_base, call.kv_base, call.shared_base
        return bases

    def loads(self) -> Loads:
        """Every preloaded value with its chip and SRAM word; `tensor` indexes `slot_names`."""
        count = sum(len(self.blocks[call.block].loads) for call in self.calls)
        return Loads(**_joined(LOADS, self.loads_by_call(), count))

    def loads_by_call(self) -> Iterator[Loads]:
        """The preloaded values of one call after another: together they are `loads`."""
        first = 0
        for call in self.calls:
            yield self.placed(call, self.blocks[call.block].loads, first)
            first += len(call.tensors)

    def placed(self, call: Call, loads: Loads, first: int = 0) -> Loads:
        """Preloaded values of a call's block where the call places them; its tensors count from `first`."""
        out = {name: getattr(loads, name) for name in LOADS}
        out["addr"] = _resolve(loads.addr, loads.chip, self._bases(call))
        out["chip"] = np.array(call.chips)[loads.chip]
        out["tensor"] = loads.tensor + first
        out["tag"] = loads.tag + (call.tag << TAG_SHIFT)
        return Loads(**out)

    def slots(self) -> list[tuple[str, np.ndarray | None, np.ndarray | None]]:
        """(tensor name, row map, column map) of every slot, in the order that `loads` numbers them."""
        out: list[tuple[str, np.ndarray | None, np.ndarray | None]] = []
        for call in self.calls:
            block = self.blocks[call.block]
            for name, (row, col) in zip(call.tensors, block.slots, strict=True):
                out.append((name, None if row < 0 else block.maps[row], None if col < 0 else block.maps[col]))
        return out


def _joined(names: Sequence[str], parts: Iterable[Any], rows: int) -> dict[str, np.ndarray]:
    """The columns of all parts one after another, of so many rows: no two copies of the whole."""
    out = {name: np.empty(rows, np.int64) for name in names}
    stop = 0
    for part in parts:
        start, stop = stop, stop + len(part)
        for name, column in out.items():
            column[start:stop] = getattr(part, name)
    return out


def _later(columns: Columns, waves: dict[str, Any], context: int, wave: int) -> Columns:
    """The rows of the first wave as a later one: its cycles, arenas, KV of its user, tags of its own."""
    entry = waves["contexts"][str(context)]
    user = wave % entry["turn"]
    if user >= waves["users"]:
        raise ValueError(f"wave {wave} is of user {user}, there are {waves['users']}")
    move = np.zeros((4, len(waves["arenas"])), np.int64)
    move[0] = wave % np.array(waves["arenas"]) * np.array(waves["arena_words"])
    move[KV] = user * np.array(waves["user_words"])
    space = np.full((4, len(Op)), WEIGHTS)  # by operand and opcode; what is no operand does not move
    named = np.zeros((4, len(Op)), bool)  # tags of accumulators count, too
    for op in Op:
        for operand in READS[op] + ((write,) if (write := WRITES[op]) else ()):
            space[_OPERANDS.index(operand.column), op] = operand.space
    named[:] = (space != WEIGHTS) & (space != SHARED)
    named[0, Op.MM] = named[1, Op.WB] = True
    out = {name: getattr(columns, name) for name in COLUMNS + TAGS}
    transfer = (columns.op == Op.SEND) | (columns.op == Op.FORWARD)
    for i, name in enumerate(_OPERANDS):
        chip = np.where(transfer, columns.peer, columns.chip) if name == "dst" else columns.chip
        value, tag = out[name], out[name + "_tag"]
        out[name] = np.where(value < 0, value, value + move[space[i, columns.op], chip])
        moved = named[i, columns.op] & (tag >= 0)
        out[name + "_tag"] = tag + np.where(moved, wave * waves["tags"] << TAG_SHIFT, 0)
    out["t0"] = columns.t0 + wave * entry["interval"]
    out["t1"] = columns.t1 + wave * entry["interval"]
    return Columns(**out)


_OPERANDS = ("dst", "src", "src2", "src3")


def _resolve(operand: np.ndarray, rank: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """Space-coded offsets to SRAM words; -1 and accumulators (small numbers in space 0) stay as they are."""
    space = operand >> SPACE_SHIFT
    offset = operand & ((1 << SPACE_SHIFT) - 1)
    return np.where(operand < 0, operand, offset + bases[np.maximum(space, 0), rank])


def digest(program: Program) -> str:
    """sha256 over the expanded columns of every bucket, the preloaded values and what they are made of.

    Call by call: nothing of the size of the program is ever held.
    """
    sha = hashlib.sha256()
    for context in program.manifest["contexts"]:
        for call in program.calls:
            for part in _written(program.expand_call(call, context), COLUMNS + TAGS):
                sha.update(part)
    for loads in program.loads_by_call():
        for part in _written(loads, LOADS):
            sha.update(part)
    for block in program.blocks:
        for entries in block.maps:
            sha.update(len(entries).to_bytes(8, "little"))
            for part in _column(entries):
                sha.update(part)
        sha.update(repr(block.slots).encode())
    sha.update(json.dumps([call.tensors for call in program.calls]).encode())
    stated = {k: program.manifest[k] for k in _HASHED if k not in _SOME or k in program.manifest}
    sha.update(json.dumps(stated, sort_keys=True).encode())
    return sha.hexdigest()


def _written(table: Columns | Loads, names: Sequence[str]) -> Iterator[bytes | memoryview]:
    """The bytes of a table: its length, then each column after the type that it narrows to.

    Hashing takes longer than everything else here, and most numbers fit two bytes.
    """
    yield len(table).to_bytes(8, "little")
    for name in names:
        yield from _column(getattr(table, name))


def _column(values: np.ndarray) -> tuple[bytes, memoryview]:
    narrow = _narrow(values)
    return narrow.dtype.char.encode(), np.ascontiguousarray(narrow, narrow.dtype.newbyteorder("<")).data


_HASHED = (
    *("rows", "sequences", "chunk", "contexts", "capacity", "kernels"),
    *("regions", "logits", "token", "vocab", "chip", "links", "waves", "hops", "bridge"),
    *("kind", "tokens", "slots", "ready"),
)
_SOME = ("waves", "hops", "bridge", "kind", "tokens", "slots", "ready")  # not every program has them


_NOT_WHOLE = (OSError, EOFError, zipfile.BadZipFile, LookupError, ValueError, TypeError, AttributeError)


class ProgramError(Exception):
    """A program folder that cannot be read: missing, truncated or altered."""

    exit_code = 2


def save(program: Program, folder: Path) -> None:
    """Write `manifest.json` and `columns.npz` into an existing folder: equal programs give equal bytes."""
    arrays: dict[str, np.ndarray] = {}
    blocks: list[dict[str, Any]] = []
    for i, block in enumerate(program.blocks):
        for context, columns in block.columns.items():
            arrays |= {f"{i}.{context}.{name}": _narrow(getattr(columns, name)) for name in COLUMNS + TAGS}
        arrays |= {f"{i}.loads.{name}": _narrow(getattr(block.loads, name)) for name in LOADS}
        arrays |= {f"{i}.map.{j}": _narrow(entries) for j, entries in enumerate(block.maps)}
        blocks.append(
            {"name": block.name, "cycles": block.cycles, "maps": len(block.maps), "slots": block.slots}
        )
    calls = [{name: getattr(call, name) for name in Call.__slots__} for call in program.calls]
    body = {"manifest": program.manifest, "blocks": blocks, "calls": calls}
    np.savez_compressed(folder / "columns.npz", **arrays)  # pyright: ignore[reportArgumentType]
    text = json.dumps(body, sort_keys=True)
    sealed = json.dumps({"seal": hashlib.sha256(text.encode()).hexdigest()}) + "\n" + text + "\n"
    (folder / "manifest.json").write_text(sealed)


def load(folder: Path) -> Program:
    """Read what `save` wrote.

    Raises ProgramError if a file is missing, or is not what the seal and the digest say.
    """
    try:
        seal, text = (folder / "manifest.json").read_text().split("\n", 1)
        if json.loads(seal)["seal"] != hashlib.sha256(text.rstrip("\n").encode()).hexdigest():
            raise ProgramError(
                f"{folder}/manifest.json: its seal differs: the file was altered. Compile again."
            )
        body = json.loads(text)
        with (folder / "columns.npz").open("rb") as file, np.load(file) as arrays:
            blocks = tuple(_block(arrays, i, meta) for i, meta in enumerate(body["blocks"]))
        calls = tuple(_call(entry) for entry in body["calls"])
        program = Program(manifest=body["manifest"], blocks=blocks, calls=calls)
        found, stated = digest(program), program.manifest["digest"]
    except _NOT_WHOLE as error:
        raise ProgramError(f"{folder}: not a whole program folder ({error}). Compile again.") from error
    if found != stated:
        raise ProgramError(
            f"{folder}/columns.npz: digest {found[:16]} differs from the manifest's "
            f"{stated[:16]}: the file was altered. Compile again."
        )
    return program


def _narrow(values: np.ndarray) -> np.ndarray:
    """The same integers in the smallest type that holds them."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    for kind in (np.int8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    return values.astype(np.int64)


def _by_context(counts: dict[str, int]) -> dict[int, int]:
    return {int(context): count for context, count in counts.items()}


def _call(entry: dict[str, Any]) -> Call:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    fields["base"] = _by_context(entry["base"])
    return Call(**fields)


def _block(arrays: Any, i: int, meta: dict[str, Any]) -> Block:
    def wide(key: str) -> np.ndarray:
        return arrays[key].astype(np.int64)

    contexts = [int(context) for context in meta["cycles"]]
    return Block(
        name=meta["name"],
        columns={c: Columns(**{n: wide(f"{i}.{c}.{n}") for n in COLUMNS + TAGS}) for c in contexts},
        cycles=_by_context(meta["cycles"]),
        loads=Loads(**{name: wide(f"{i}.loads.{name}") for name in LOADS}),
        maps=tuple(wide(f"{i}.map.{j}") for j in range(meta["maps"])),
        slots=tuple((row, column) for row, column in meta["slots"]),
    )
