"""A program as a folder, and its digest: the one place where a program becomes JSON, and JSON a program."""

import functools
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np

from compiler.program.damage import DAMAGE, why
from compiler.program.instruction_set import INSTRUCTIONS, KERNELS
from compiler.program.isa import COLUMNS, TAGS, Columns, Kernel
from compiler.program.manifest import HOPS, SCHEMA, Hops, Manifest, Step, Waves
from compiler.program.program import LOADS, Block, Call, Loads, Program

_HASHED = (
    *("rows", "sequences", "chunk", "contexts", "capacity", "kernels"),
    *("regions", "logits", "token", "vocab", "chip", "links", "body"),
)
_UNHASHED = ("versions", "digest")
_MOST = 1 << 60
_INPUTS = (
    *("model", "options", "contexts", "chunk", "prefill"),
    *("rack", "chips", "chip", "forward_cycles", "levels", "links", "sources"),
)


class ProgramError(Exception):
    """A program folder that cannot be read: missing, truncated, altered, or of another release."""

    exit_code = 2


def digest(program: Program) -> str:
    """sha256 of what a program computes and of all that its manifest says but versions and this digest."""
    entry = manifest_json(program.manifest)
    said = {name: value for name, value in entry.items() if name not in _UNHASHED}
    return hashlib.sha256(f"{content(program)}{_text(said)}".encode()).hexdigest()


def content(program: Program) -> str:
    """sha256 over the expanded columns of every bucket, the preloaded values and what they are made of.

    Programs of other options or on another rack may be the same in it. Call by call: nothing of the size of
    the program is ever held.
    """
    sha = hashlib.sha256()
    for context in program.manifest.contexts:
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
    entry = manifest_json(program.manifest)
    sha.update(_text({name: entry[name] for name in _HASHED}).encode())
    return sha.hexdigest()


def sealed(program: Program) -> Program:
    """The program with the digests of what was compiled and of itself in the manifest."""
    manifest = replace(program.manifest, inputs=_inputs(program.manifest))
    program = replace(program, manifest=manifest)
    return replace(program, manifest=replace(manifest, digest=digest(program)))


def _inputs(manifest: Manifest) -> str:
    """sha256 of what was asked for: model, options, machine, and what a hop or a move is."""
    entry = manifest_json(manifest)
    names = _INPUTS if isinstance(manifest.body, Step | Waves) else (*_INPUTS, "body")
    names = names if manifest.broken is None else (*names, "broken")
    return hashlib.sha256(_text({name: entry[name] for name in names}).encode()).hexdigest()


def hop_alone(program: Program, index: int) -> Program:
    """The hop of that index by itself, from cycle 0: the same chips and words, its own weights only."""
    body = program.manifest.body
    assert isinstance(body, Hops)
    hop = body.hops[index]
    call = replace(program.calls[hop.call], block=0, base={HOPS: 0})
    manifest = replace(
        program.manifest,
        body=replace(body, hops=(replace(hop, call=0, base=0),)),
        cycles={HOPS: hop.cycles},
    )
    block = program.blocks[program.calls[hop.call].block]
    return sealed(Program(manifest=manifest, blocks=(block,), calls=(call,)))


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
    body = {"manifest": manifest_json(program.manifest), "blocks": blocks, "calls": calls}
    np.savez_compressed(folder / "columns.npz", **arrays)  # pyright: ignore[reportArgumentType]
    text = json.dumps({"seal": _seal(json.loads(json.dumps(body))), **body}, sort_keys=True, indent=None)
    (folder / "manifest.json").write_text(text + "\n")


def load(folder: Path) -> Program:
    """Read what `save` wrote.

    Raises ProgramError if a file is missing, of another release, not what the seal and the digest say, or of
    an extension that is not loaded.
    """
    try:
        for name in ("manifest.json", "columns.npz"):
            if (folder / name).exists() and not (folder / name).is_file():
                raise ProgramError(f"{folder / name}: is no file. Compile again.")
        _check_schema(folder)
        body = json.loads((folder / "manifest.json").read_text())
        _plain(body)
        if body.pop("seal") != _seal(body):
            raise ProgramError(
                f"{folder}/manifest.json: its seal differs: the file was altered. Compile again."
            )
        with (folder / "columns.npz").open("rb") as file, np.load(file) as arrays:
            blocks = tuple(_block(arrays, i, meta) for i, meta in enumerate(body["blocks"]))
        families = {entry.get("family") for entry in body["manifest"]["kernels"]}
        _require_known(folder, "kernel family", families - KERNELS.keys())
        calls = tuple(_read(Call, entry) for entry in body["calls"])
        program = Program(manifest=manifest_of(body["manifest"]), blocks=blocks, calls=calls)
        found, stated = digest(program), program.manifest.digest
    except DAMAGE as error:
        raise ProgramError(f"{folder}: not a whole program folder ({why(error)}). Compile again.") from error
    if not program.manifest.contexts or sorted(program.manifest.cycles) != sorted(program.manifest.contexts):
        raise ProgramError(
            f"{folder}/manifest.json: contexts {list(program.manifest.contexts)}, cycles of "
            f"{sorted(program.manifest.cycles)}: a program has some, and cycles for each. Compile again."
        )
    if found != stated:
        raise ProgramError(
            f"{folder}/columns.npz: digest {found[:16]} differs from the manifest's "
            f"{stated[:16]}: the file was altered. Compile again."
        )
    opcodes = {int(op) for block in blocks for rows in block.columns.values() for op in np.unique(rows.op)}
    _require_known(folder, "opcode", opcodes - INSTRUCTIONS.keys())
    return program


def schema_of(folder: Path) -> str | None:
    """The schema that the manifest of a folder states; None if it states none, or is no file of JSON."""
    try:
        text = (folder / "manifest.json").read_text()
        first = json.JSONDecoder().raw_decode(text)[0]
        if set(first) == {"seal"}:  # lpu-program/1: the seal on a line of its own
            first = json.loads(text.split("\n", 1)[1])
        return str(first["manifest"]["schema"])
    except DAMAGE:
        return None


def _check_schema(folder: Path) -> None:
    found = schema_of(folder)
    if found is not None and found != SCHEMA:
        raise ProgramError(
            f"{folder}: schema is {found!r}, this version reads {SCHEMA!r}. "
            "Compile again: `lpu compile MODEL -o DIR`."
        )


def _require_known(folder: Path, what: str, unknown: set[Any]) -> None:
    if unknown:
        named = ", ".join(repr(one) for one in sorted(unknown))
        raise ProgramError(
            f"{folder}: {what} {named} of this program is of no extension that is loaded. "
            "Install the one that it was compiled with, or name its module with --extend."
        )


def kernel_json(kernel: Kernel) -> dict[str, Any]:
    """A kernel for JSON: its attributes, and the name of its family."""
    return {"family": kernel.family, **kernel.said()}


def kernel_of(entry: dict[str, Any]) -> Kernel:
    """The kernel of a JSON object.

    Raises ValueError if its family is unknown or an attribute is missing, unknown or of another type.
    """
    given = dict(entry)
    family = given.pop("family", None)
    if family not in KERNELS:
        raise ValueError(f"kernel family {family!r} is unknown")
    return _read(KERNELS[family], given)


def manifest_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest for JSON, as `manifest_of` reads it.

    A rack that works says nothing of faults, nor does a program of experts that have slots for any routing.
    """
    entry = _reader(Manifest).dump_python(replace(manifest, kernels=()), mode="json")
    if manifest.broken is None:
        del entry["broken"]
    if manifest.options.most_slots is None:
        del entry["options"]["experts"]
    return {**entry, "kernels": [kernel_json(kernel) for kernel in manifest.kernels]}


def manifest_of(entry: dict[str, Any]) -> Manifest:
    """The manifest of a JSON object.

    Raises ValueError if a key is missing, unknown or of another type.
    """
    kernels = tuple(kernel_of(kernel) for kernel in entry["kernels"])
    return replace(_read(Manifest, {**entry, "kernels": []}), kernels=kernels)


def _read(record: type, entry: dict[str, Any]) -> Any:
    """A record of a JSON object: no key more or less, and no number in quotes."""
    return _reader(record).validate_json(json.dumps(entry), strict=True, extra="forbid")


@functools.cache
def _reader(record: type) -> Any:
    """The pydantic reader and writer of a record; pydantic is imported when the first file is."""
    from pydantic import TypeAdapter

    return TypeAdapter(record)


def _plain(value: Any) -> None:
    """Raise ValueError for a number that is no int64 or not finite, and for text that no screen can show."""
    if isinstance(value, str):
        if any(category(letter)[0] == "C" for letter in value):
            raise ValueError(f"text with control characters: {value!r}")
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError("a number of more than 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a number is {value}")
    elif isinstance(value, dict):
        for key, part in value.items():
            _plain(key)
            _plain(part)
    elif isinstance(value, list):
        for part in value:
            _plain(part)


def _text(entry: Any) -> str:
    return json.dumps(entry, sort_keys=True)


def _seal(body: dict[str, Any]) -> str:
    return hashlib.sha256(_text(body).encode()).hexdigest()


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


def _narrow(values: np.ndarray) -> np.ndarray:
    """The same integers in the smallest type that holds them."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    for kind in (np.int8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    return values.astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meta:
    """What the JSON file says of a block; its arrays are in the other one."""

    name: str
    cycles: dict[int, int]
    maps: int
    slots: tuple[tuple[int, int], ...]


def _block(arrays: Any, i: int, entry: dict[str, Any]) -> Block:
    meta: _Meta = _read(_Meta, entry)

    def table(names: Sequence[str], of: str) -> dict[str, np.ndarray]:
        found = {name: _whole(arrays, f"{i}.{of}.{name}") for name in names}
        if len({len(column) for column in found.values()}) > 1:
            raise ValueError(f"columns {i}.{of} are not of one length")
        return found

    return Block(
        name=meta.name,
        columns={c: Columns(**table(COLUMNS + TAGS, str(c))) for c in meta.cycles},
        cycles=meta.cycles,
        loads=Loads(**table(LOADS, "loads")),
        maps=tuple(_whole(arrays, f"{i}.map.{j}") for j in range(meta.maps)),
        slots=meta.slots,
    )


def _whole(arrays: Any, name: str) -> np.ndarray:
    """A row of integers of a file, none so large that it could not be added to another."""
    found = np.asarray(arrays[name])
    if found.ndim != 1 or found.dtype.kind != "i":
        raise ValueError(f"column {name} is {found.dtype} {found.shape}, must be one row of integers")
    wide = found.astype(np.int64)
    if len(wide) and max(-int(wide.min()), int(wide.max())) >= _MOST:
        raise ValueError(f"column {name} has {wide.min()} to {wide.max()}, must be below 2^60")
    return wide
