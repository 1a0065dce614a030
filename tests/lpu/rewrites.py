"""Programs rewritten so that they mean the same: other addresses, cycles, order of rows, sums, and ways."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import COLUMNS, KV, OPERANDS, PRODUCTS, TAG_SHIFT, TAGS, TRANSIENT, Columns, Op
from compiler.program.manifest import Region, Regions
from compiler.program.program import Block, Program

Random = np.random.Generator
Rewrite = Callable[[Program, Random], Program | None]


def _blocks(program: Program, change: Callable[[Columns], Columns]) -> tuple[Block, ...]:
    return tuple(
        replace(block, columns={context: change(rows) for context, rows in block.columns.items()})
        for block in program.blocks
    )


def _of_space(columns: Columns, name: str, space: int) -> np.ndarray:
    """Which rows have an operand of that space in a column."""
    found = np.zeros(len(columns), bool)
    for op in np.unique(columns.op).tolist():
        found |= (columns.op == op) & any(
            one.column == name and one.space == space for one in INSTRUCTIONS[op].operands
        )
    return found & (getattr(columns, name) >= 0)


def _moved(columns: Columns, space: int, change: Callable[[np.ndarray], np.ndarray]) -> Columns:
    changed: dict[str, np.ndarray] = {}
    for name in OPERANDS:
        values = getattr(columns, name)
        changed[name] = np.where(_of_space(columns, name, space), change(values), values)
    return replace(columns, **changed)


def renamed(program: Program, random: Random) -> Program:
    """Every transient line some lines further up, and the other regions above them."""
    manifest = program.manifest
    lines, more = int(random.integers(1, 60)), int(random.integers(0, 99))
    by, room = manifest.rows * lines, manifest.rows * lines + more
    moved = _blocks(program, lambda rows: _moved(rows, TRANSIENT, lambda words: words + by))

    def up(bases: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(base + room for base in bases)

    calls = tuple(
        replace(
            call,
            weight_base=up(call.weight_base),
            kv_base=up(call.kv_base),
            shared_base=up(call.shared_base),
        )
        for call in program.calls
    )
    regions = tuple(
        Regions(
            Region(one.transient.base, one.transient.words + room),
            Region(one.kv.base + room, one.kv.words),
            Region(one.weights.base + room, one.weights.words),
        )
        for one in manifest.regions
    )
    manifest = replace(
        manifest,
        regions=regions,
        logits=tuple(place._replace(address=place.address + by) for place in manifest.logits),
        token=manifest.token and manifest.token._replace(address=manifest.token.address + by),
    )
    return replace(program, blocks=moved, calls=calls, manifest=manifest)


def heads_moved(program: Program, random: Random) -> Program | None:
    """The KV regions of the heads of a block elsewhere, and its states, in all buckets alike."""
    blocks: list[Block] = []
    for block in program.blocks:
        to: dict[int, int] = {}
        for words in _alike(block):
            to |= dict(zip(words.tolist(), random.permutation(words).tolist(), strict=True))
        if not to:
            blocks.append(block)
            continue
        words, new = (np.array(one) for one in zip(*sorted(to.items()), strict=True))

        def moved(values: np.ndarray, words: np.ndarray = words, new: np.ndarray = new) -> np.ndarray:
            at = np.minimum(np.searchsorted(words, values), len(words) - 1)
            return np.where(np.isin(values, words), new[at], values)

        columns = {context: _moved(rows, KV, moved) for context, rows in block.columns.items()}
        blocks.append(replace(block, columns=columns))
    return replace(program, blocks=tuple(blocks))


def _alike(block: Block) -> list[np.ndarray]:
    """First words of the KV regions of a block, and of the states of each size."""
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    for rows in block.columns.values():
        for op in np.unique(rows.op).tolist():
            column = "dst" if op == Op.KVW else INSTRUCTIONS[op].renews
            for n in np.unique(rows.n[rows.op == op]).tolist() if column else ():
                these = (rows.op == op) & (rows.n == n)
                size = n if op == Op.CONV else 0  # n of the others is no size
                found.setdefault((op, size), []).append(getattr(rows, column)[these])
    return [np.unique(np.concatenate(words)) for words in found.values()]


def slots_exchanged(program: Program, random: Random) -> Program | None:
    """Two slots of a mixture's table each in the other's place in all that takes them, in one bucket."""
    index, context, row = _picked(
        program, random, lambda rows: np.flatnonzero((rows.op == Op.WGLU) & (rows.src2_tag >= 0))
    )
    if row < 0:
        return None
    c = program.blocks[index].columns[context]
    takes = np.isin(c.op, (Op.XMM, Op.WGLU)) & (c.src2_tag >> TAG_SHIFT == c.src2_tag[row] >> TAG_SHIFT)
    pair = random.permutation(np.unique(c.src2_tag[takes]))[:2].tolist()
    at = {(int(c.chip[i]), int(c.src2_tag[i])): int(c.src2[i]) for i in np.flatnonzero(takes)}
    src2, tags = c.src2.copy(), c.src2_tag.copy()
    for i in np.flatnonzero(takes & np.isin(c.src2_tag, pair)).tolist():
        tags[i] = pair[1 - pair.index(int(c.src2_tag[i]))]
        if (int(c.chip[i]), int(tags[i])) not in at:
            return None
        src2[i] = at[int(c.chip[i]), int(tags[i])]
    return _with_rows(program, index, context, replace(c, src2=src2, src2_tag=tags))


def _later(program: Program, context: int, first: list[int], by: int) -> Program:
    """Some calls later in a bucket, each as often as it is named."""
    calls = tuple(
        replace(call, base={**call.base, context: call.base[context] + by * first.count(i)})
        for i, call in enumerate(program.calls)
    )
    cycles = {**program.manifest.cycles}
    program = replace(program, calls=calls)
    last = max(
        int(program.blocks[call.block].columns[context].t1.max(initial=0)) + call.base[context]
        for call in calls
    )
    cycles[context] = last
    return replace(program, manifest=replace(program.manifest, cycles=cycles))


def waits(program: Program, random: Random) -> Program:
    """Free cycles before a call and all that come after it."""
    contexts = program.manifest.contexts
    context = contexts[int(random.integers(len(contexts)))]
    order = sorted(range(len(program.calls)), key=lambda i: (program.calls[i].base[context], i))
    return _later(program, context, order[int(random.integers(len(order))) :], int(random.integers(1, 99)))


def _picked(
    program: Program, random: Random, wanted: Callable[[Columns], np.ndarray]
) -> tuple[int, int, int]:
    """Block, bucket and row of one of the rows that are wanted; a row of -1 if there is none."""
    for index in random.permutation(len(program.blocks)).tolist():
        block = program.blocks[index]
        context = list(block.columns)[int(random.integers(len(block.columns)))]
        rows = wanted(block.columns[context])
        if len(rows):
            return index, context, int(random.choice(rows))
    return -1, -1, -1


def _with_rows(program: Program, index: int, context: int, columns: Columns) -> Program:
    blocks = list(program.blocks)
    blocks[index] = replace(blocks[index], columns={**blocks[index].columns, context: columns})
    return replace(program, blocks=tuple(blocks))


def row_moved(program: Program, random: Random) -> Program | None:
    """One row some cycles earlier or later: its unit may be free then, and its value not yet needed."""
    index, context, row = _picked(program, random, lambda rows: np.arange(len(rows)))
    columns = program.blocks[index].columns[context]
    by = int(random.choice([-9, -3, -1, 1, 2, 5, 20]))
    moved = np.arange(len(columns)) == row
    if columns.t0[row] + by < 0:
        return None
    return _later(
        _with_rows(
            program,
            index,
            context,
            replace(columns, t0=columns.t0 + by * moved, t1=columns.t1 + by * moved),
        ),
        *(context, [], 0),
    )


def rows_permuted(program: Program, random: Random) -> Program:
    """The rows of every block in another order."""
    return replace(program, blocks=_blocks(program, lambda rows: rows.take(random.permutation(len(rows)))))


def sums_turned(program: Program, random: Random) -> Program:
    """a + b as b + a in some rows, with the tags."""

    def turned(rows: Columns) -> Columns:
        add = (rows.op == Op.ADD) & (random.random(len(rows)) < 0.5)
        pairs = (("src", "src2"), ("src2", "src"), ("src_tag", "src2_tag"), ("src2_tag", "src_tag"))
        return replace(rows, **{to: np.where(add, getattr(rows, of), getattr(rows, to)) for to, of in pairs})

    return replace(program, blocks=_blocks(program, turned))


def products_turned(program: Program, random: Random) -> Program | None:
    """Two products of one sum in the other order."""

    def several(rows: Columns) -> np.ndarray:
        products = np.flatnonzero(np.isin(rows.op, PRODUCTS))
        key = np.stack([rows.op, rows.chip, rows.unit, rows.dst, rows.dst_tag, rows.n], axis=-1)[products]
        _, number, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
        return products[count[number.reshape(-1)] > 1]

    index, context, row = _picked(program, random, several)
    if row < 0:
        return None
    c = program.blocks[index].columns[context]
    same = (c.op == c.op[row]) & (np.arange(len(c)) != row)
    for name in ("chip", "unit", "dst", "dst_tag", "n"):
        same &= getattr(c, name) == getattr(c, name)[row]
    other = int(random.choice(np.flatnonzero(same)))
    names = ("src", "src_tag", "src2", "src2_tag", "src3", "src3_tag", "aux")
    changed = {name: getattr(c, name).copy() for name in names}
    for values in changed.values():
        values[[row, other]] = values[[other, row]]
    return _with_rows(program, index, context, replace(c, **changed))


def detoured(program: Program, random: Random) -> Program | None:
    """A copy from chip to chip by way of a third, for which all that comes later waits."""
    program = renamed(program, random)
    index, context, row = _picked(
        program, random, lambda rows: np.flatnonzero((rows.op == Op.SEND) & (rows.n <= 2))
    )
    if row < 0:
        return None
    c = program.blocks[index].columns[context]
    ranks = min(len(call.chips) for call in program.calls if call.block == index)
    others = [rank for rank in range(ranks) if rank not in (c.chip[row], c.peer[row])]
    if not others:
        return None
    by, long = int(random.choice(others)), int(c.t1[row] - c.t0[row])
    forward = long + program.manifest.forward_cycles
    start = int(c.t1[row])
    first = {name: int(getattr(c, name)[row]) for name in COLUMNS + TAGS}
    second = first | {"op": int(Op.FORWARD), "chip": by, "src": 0, "t0": start, "t1": start + forward}
    first |= {"peer": by, "dst": 0}
    late = c.t0 >= start
    keep = np.arange(len(c)) != row
    columns = {
        name: np.append(
            (getattr(c, name) + (forward * late if name in ("t0", "t1") else 0))[keep],
            [first[name], second[name]],
        )
        for name in COLUMNS + TAGS
    }
    uses = sorted((call.base[context], i) for i, call in enumerate(program.calls))
    later: list[int] = []
    for at, (_, user) in enumerate(uses):
        if program.calls[user].block == index:
            later += [i for _, i in uses[at + 1 :]]
    return _later(_with_rows(program, index, context, Columns(**columns)), context, later, forward)


REWRITES: dict[str, Rewrite] = {
    one.__name__: one
    for one in (
        *(renamed, heads_moved, waits, row_moved),
        *(rows_permuted, sums_turned, products_turned, detoured, slots_exchanged),
    )
}


def rewritten(program: Program, seed: int) -> tuple[str, Program] | None:
    """(kind, program) of a seed, each kind in turn, every third with another one after it."""
    random = np.random.default_rng(seed)
    names = tuple(REWRITES)
    kind = names[seed % len(names)]
    found = REWRITES[kind](program, random)
    if found is not None and seed % 3 == 2:
        other = names[int(random.integers(len(names)))]
        kind, found = f"{kind} and {other}", REWRITES[other](found, random)
    return None if found is None else (kind, found)
