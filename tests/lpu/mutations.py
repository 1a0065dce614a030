"""Programs changed as a broken compiler would make them: one thing or two that a digest would not show."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import KV, OPERANDS, SPACE_SHIFT, TAGS, Columns, Kernel, Op
from compiler.program.manifest import Place
from compiler.program.program import Block, Call, Program
from compiler.program.store import manifest_json, manifest_of

Random = np.random.Generator
Mutation = Callable[[Program, Random], Program | None]
_TWO = (Op.KVW, Op.GLU, Op.MAD, Op.STEP, Op.GATE)  # whose operands hold the same kind, and do not commute
_KEEPS = (Op.KVW, *(op for op, record in INSTRUCTIONS.items() if record.renews))


def _among(random: Random, things: Any) -> Any:
    return things[int(random.integers(len(things)))]


def _with_block(program: Program, index: int, **changes: Any) -> Program:
    blocks = list(program.blocks)
    blocks[index] = replace(blocks[index], **changes)
    return replace(program, blocks=tuple(blocks))


def _block(program: Program, random: Random) -> tuple[int, Block, int]:
    """A block with rows: its index, itself, a context."""
    some = [(i, block) for i, block in enumerate(program.blocks) if any(map(len, block.columns.values()))]
    index, block = _among(random, some)
    return index, block, _among(random, list(block.columns))


def _columns(program: Program, index: int, context: int, columns: Columns) -> Program:
    return _with_block(program, index, columns={**program.blocks[index].columns, context: columns})


def _exchanged(columns: Columns, one: int, other: int, names: tuple[str, ...]) -> Columns:
    changed = {name: getattr(columns, name).copy() for name in names}
    for values in changed.values():
        values[[one, other]] = values[[other, one]]
    return replace(columns, **changed)


def number(program: Program, random: Random) -> Program | None:
    """An operand, count, kernel or cycle of a row, by a little."""
    index, block, context = _block(program, random)
    columns = block.columns[context]
    name = _among(random, (*OPERANDS, "n", "aux", "t0", "unit", "peer"))
    row = int(random.integers(len(columns)))
    values = getattr(columns, name).copy()
    values[row] += int(random.choice([-2, -1, 1, 2, 80])) * (program.manifest.rows if name in OPERANDS else 1)
    return _columns(program, index, context, replace(columns, **{name: values}))


def untagged(program: Program, random: Random) -> Program | None:
    """An operand of a row, in a program without tags, whose length is stated nowhere."""
    found = number(program, random)
    if found is None:
        return None
    blocks = [
        replace(
            block,
            columns={
                context: replace(rows, **{name: np.full(len(rows), -1) for name in TAGS})
                for context, rows in block.columns.items()
            },
        )
        for block in found.blocks
    ]
    return replace(found, blocks=tuple(blocks), manifest=replace(found.manifest, cycles={}))


def exchange(program: Program, random: Random) -> Program | None:
    """An operand of two rows of one opcode and chip exchanged, with its tag."""
    index, block, context = _block(program, random)
    columns = block.columns[context]
    row = int(random.integers(len(columns)))
    same = (
        (columns.op == columns.op[row]) & (columns.chip == columns.chip[row]) & (columns.n == columns.n[row])
    )
    others = np.flatnonzero(same & (np.arange(len(columns)) != row))
    if not len(others):
        return None
    name = _among(random, OPERANDS)
    return _columns(
        program, index, context, _exchanged(columns, row, int(_among(random, others)), (name, f"{name}_tag"))
    )


def sources(program: Program, random: Random) -> Program | None:
    """Both operands of the rows of an opcode exchanged, with their tags: K and V, gate and up."""
    index, block, context = _block(program, random)
    columns = block.columns[context]
    rows = np.flatnonzero(np.isin(columns.op, _TWO))
    if not len(rows):
        return None
    kind = columns.op == columns.op[int(_among(random, rows))]
    pairs = (("src", "src2"), ("src2", "src"), ("src_tag", "src2_tag"), ("src2_tag", "src_tag"))
    changed = {to: np.where(kind, getattr(columns, of), getattr(columns, to)) for to, of in pairs}
    return _columns(program, index, context, replace(columns, **changed))


def bucket(program: Program, random: Random) -> Program | None:
    """In one bucket, two KV regions or states of a chip exchanged by all rows that take them."""
    index, block, context = _block(program, random)
    columns = block.columns[context]
    keeps = np.flatnonzero(np.isin(columns.op, _KEEPS))
    if not len(keeps):
        return None
    row = int(_among(random, keeps))
    here = keeps[(columns.chip[keeps] == columns.chip[row]) & (columns.op[keeps] == columns.op[row])]
    if len(here) < 2:
        return None
    held = np.stack([getattr(columns, name) for name in OPERANDS])
    word = np.where(held >> SPACE_SHIFT == KV, held, -1).max(axis=0)
    one, other = word[random.choice(here, 2, replace=False)].tolist()
    chip, changed = columns.chip == columns.chip[row], {}
    for name in OPERANDS:
        values = getattr(columns, name)
        changed[name] = np.where(
            chip & (values == one), other, np.where(chip & (values == other), one, values)
        )
    return _columns(program, index, context, replace(columns, **changed))


def load(program: Program, random: Random) -> Program | None:
    """Tensor, row or column of two preloaded values exchanged, or one of them changed."""
    index, block, _ = _block(program, random)
    loads = block.loads
    if len(loads) < 2:
        return None
    one = int(random.integers(len(loads)))
    others = np.flatnonzero((loads.kind == loads.kind[one]) & (np.arange(len(loads)) != one))
    name = _among(random, ("tensor", "k0", "n0", "addr", "lines"))
    values = getattr(loads, name).copy()
    if len(others) and random.integers(4):
        other = int(_among(random, others))
        values[[one, other]] = values[[other, one]]
    else:
        values[one] += int(random.choice([-80, -1, 1, 80]))
    return _with_block(program, index, loads=replace(loads, **{name: values}))


def mapped(program: Program, random: Random) -> Program | None:
    """A map of rows or columns rolled, reversed, or with a cell changed."""
    index, block, _ = _block(program, random)
    if not block.maps:
        return None
    which = int(random.integers(len(block.maps)))
    entries = block.maps[which].copy()
    cell, other = (int(random.integers(len(entries))) for _ in range(2))
    turned = entries.copy()
    turned[[cell, other]] = turned[[other, cell]]
    changed = entries.copy()
    changed[cell] += int(random.choice([-1, 1]))
    made = _among(random, (np.roll(entries, 1), entries[::-1].copy(), turned, changed))
    return _with_block(program, index, maps=(*block.maps[:which], made, *block.maps[which + 1 :]))


def slot(program: Program, random: Random) -> Program | None:
    """The maps of two slots of a block exchanged, or a map that is another."""
    index, block, _ = _block(program, random)
    if len(block.slots) < 2:
        return None
    slots = list(block.slots)
    one, other = (int(random.integers(len(slots))) for _ in range(2))
    if random.integers(2):
        slots[one], slots[other] = slots[other], slots[one]
    else:
        slots[one] = (int(random.integers(-1, len(block.maps) + 1)), slots[one][1])
    return _with_block(program, index, slots=tuple(slots))


def _with_calls(program: Program, changed: dict[int, Call]) -> Program:
    calls = tuple(changed.get(i, call) for i, call in enumerate(program.calls))
    return replace(program, calls=calls)


def tensors(program: Program, random: Random) -> Program | None:
    """Tensor names of two calls of one block exchanged, or of one call among themselves."""
    one = int(random.integers(len(program.calls)))
    first = program.calls[one]
    others = [i for i, call in enumerate(program.calls) if call.block == first.block and i != one]
    if others and random.integers(2):
        other = int(_among(random, others))
        second = program.calls[other]
        return _with_calls(
            program,
            {one: replace(first, tensors=second.tensors), other: replace(second, tensors=first.tensors)},
        )
    if len(first.tensors) < 2:
        return None
    order = random.permutation(len(first.tensors))
    return _with_calls(program, {one: replace(first, tensors=tuple(first.tensors[i] for i in order))})


def call(program: Program, random: Random) -> Program | None:
    """Chips, bases or cycle of a call."""
    index = int(random.integers(len(program.calls)))
    first = program.calls[index]
    name = _among(random, ("chips", "weight_base", "kv_base", "shared_base", "base", "block"))
    if name == "base":
        return _with_calls(program, {index: replace(first, base={c: t + 1 for c, t in first.base.items()})})
    if name == "block":
        return _with_calls(program, {index: replace(first, block=int(random.integers(len(program.blocks))))})
    values = getattr(first, name)
    return _with_calls(program, {index: replace(first, **{name: (*values[1:], values[0])})})


def kernel(program: Program, random: Random) -> Program | None:
    """A number of a kernel."""
    kernels = list(program.manifest.kernels)
    index = int(random.integers(len(kernels)))
    one: Kernel = kernels[index]
    names = [field.name for field in fields(one)]
    if not names:
        return None
    name = _among(random, names)
    value = getattr(one, name)
    words = {"silu": "gelu", "fp16": "fp8", "fp8": "fp16", "f32": "f16", "f16": "f32"}
    if isinstance(value, bool):
        made: Any = not value
    elif isinstance(value, str):
        made = words.get(value, "silu")
    elif isinstance(value, float):
        made = value * 2 or 1.5
    else:
        made = max(value + int(random.choice([-1, 1])), 1)
    kernels[index] = replace(one, **{name: made})
    return replace(program, manifest=replace(program.manifest, kernels=tuple(kernels)))


def leaf(program: Program, random: Random) -> Program | None:
    """What the manifest says of outputs, cache and contexts."""
    manifest = program.manifest
    logits = list(manifest.logits)
    if len(logits) > 1:
        one, other = logits[0], logits[-1]
        logits[0], logits[-1] = one._replace(line=other.line), other._replace(line=one.line)
    token = manifest.token
    changes: tuple[dict[str, Any], ...] = (
        {"vocab": manifest.vocab - 1},
        {"logits": tuple(logits)},
        {"logits": manifest.logits[:-1]},
        {"token": None if token is None else Place(token.chip, token.address + manifest.rows)},
        {"sequences": manifest.sequences + 1},
        {"capacity": manifest.capacity - 80},
        {"contexts": ()},
        {"contexts": tuple(context + 80 for context in manifest.contexts)},
        {"cycles": {}},
        {"rows": manifest.rows + 1},
    )
    return replace(program, manifest=replace(manifest, **_among(random, changes)))


def anywhere(program: Program, random: Random) -> Program | None:
    """Any one number, word or truth value of the manifest, whatever it means."""
    body = json.loads(json.dumps(manifest_json(program.manifest)))
    places = [place for place in _places(body) if place[0] not in ("digest", "inputs", "versions")]
    kinds: dict[str, list[tuple[Any, ...]]] = {}
    for place in places:
        kinds.setdefault(".".join("*" if isinstance(one, int) else one for one in place), []).append(place)
    *above, key = _among(random, kinds[_among(random, sorted(kinds))])
    held = body
    for one in above:
        held = held[one]
    value = held[key]
    words = {
        "fp16": "fp8",
        "fp8": "fp16",
        "f32": "fp16",
        "silu": "gelu",
        "column": "row",
        "contiguous": "random",
    }
    if isinstance(value, bool) or value is None:
        held[key] = not value
    elif isinstance(value, int):
        held[key] = value + int(random.choice([-80, -1, 1, 80]))
    elif isinstance(value, float):
        held[key] = value * 2
    else:
        held[key] = words.get(value, f"{value}x")
    try:
        return replace(program, manifest=manifest_of(body))
    except ValueError:
        return None  # a compiler could not have written it


def _places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every leaf of a JSON value."""
    inner = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if inner is None:
        return [above]
    return [place for key, part in inner for place in _places(part, (*above, key))]


MUTATIONS: dict[str, Mutation] = {
    one.__name__: one
    for one in (
        *(number, untagged, exchange, sources, bucket, load, mapped, slot),
        *(tensors, call, kernel, leaf, anywhere),
    )
}


def kind_of(seed: int) -> str:
    """The kind of the mutation of a seed, the first of two."""
    return tuple(MUTATIONS)[seed % len(MUTATIONS)]


def mutated(program: Program, seed: int) -> tuple[str, Program] | None:
    """(kind, program) of a seed, each kind in turn, every fifth of two steps; None: it cannot be done."""
    random = np.random.default_rng(seed)
    names = tuple(MUTATIONS)
    kind = kind_of(seed)
    found = MUTATIONS[kind](program, random)
    if found is not None and seed % 5 == 4:
        other = _among(random, names)
        kind, found = f"{kind} and {other}", MUTATIONS[other](found, random)
    return None if found is None else (kind, found)
