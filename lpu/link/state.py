"""What lives outside the transients: preloaded values, KV regions, and the accumulators of the planes."""

import numpy as np
from jaxtyping import Int

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.instructions.attention import AttentionKernel, block_number, dealt_number
from compiler.program.instructions.experts import ExpertTileKernel
from compiler.program.instructions.matmul import MatmulKernel, products_of
from compiler.program.instructions.recurrent import StateKernel, state_lines
from compiler.program.isa import (
    F16_LANES,
    F32_LANES,
    KV,
    LOAD_NAMES,
    PRODUCTS,
    SHARED,
    TILE,
    TILE_ROWS,
    WEIGHTS,
    Columns,
    Op,
)
from compiler.program.manifest import Manifest
from compiler.program.program import Loads
from compiler.program.ranges import first_of, ramp
from lpu.link.error import fail
from lpu.link.lines import SameKernel

_CHIP_SHIFT = 40  # a chip above the bits of a word


def weights(
    columns: Columns, parts: list[SameKernel], loads: Loads
) -> tuple[Int[np.ndarray, " loads"], Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
    """The preloaded values that rows read: (order of `loads`, first index into it, count) per row."""
    key = (loads.chip << _CHIP_SHIFT) | loads.addr
    order = np.argsort(key)
    key, words, kind = key[order], loads.words[order], loads.kind[order]
    size = len(columns)
    first, count = np.zeros(size, np.int64), np.zeros(size, np.int64)
    overlap = first_of(key[1:] < key[:-1] + words[:-1])
    if overlap >= 0:
        at = order[overlap + 1]
        fail(columns, 0, f"preloaded values {order[overlap]} and {at} overlap", loads.addr[at])
    ends = np.cumsum(words)
    for part in parts:
        for operand in part.reads:
            if operand.space not in (WEIGHTS, SHARED):
                continue
            extent = operand.extent(columns.n[part.rows], part.kernel)
            rows, extent = part.rows[extent > 0], extent[extent > 0]
            wanted, name = operand.kind(part.kernel), LOAD_NAMES[operand.kind(part.kernel)]
            address = getattr(columns, operand.column)[rows]
            spot = _lookup(key, (columns.chip[rows] << _CHIP_SHIFT) | address)
            if (miss := first_of(spot < 0)) >= 0:
                fail(columns, rows[miss], f"no preloaded {name} begins there", address[miss])
            last = np.searchsorted(ends, ends[spot] - words[spot] + extent)
            reach = np.minimum(last, len(key) - 1)
            whole = (last < len(key)) & (key[reach] + words[reach] == key[spot] + extent)
            if (miss := first_of(~whole)) >= 0:
                message = f"the {extent[miss]} words that it reads are not whole preloaded values"
                fail(columns, rows[miss], message, address[miss])
            many = reach - spot + 1
            each = np.repeat(spot, many) + ramp(many)
            if (miss := first_of(kind[each] != wanted)) >= 0:
                row = np.repeat(rows, many)[miss]
                message = f"finds {LOAD_NAMES[kind[each][miss]]} where it reads {name}"
                fail(columns, row, message, loads.addr[order[each[miss]]])
            first[rows], count[rows] = spot, many
    _check_tables(columns, loads, order, first)
    return order, first, count


def _lookup(keys: Int[np.ndarray, " keys"], sought: Int[np.ndarray, " sought"]) -> Int[np.ndarray, " sought"]:
    """Index of each sought key among the sorted keys, -1 where it is none."""
    spot = np.searchsorted(keys, sought)
    padded = np.append(keys, -1)
    return np.where((padded[spot] == sought) & (sought >= 0), spot, -1)


def _check_tables(
    columns: Columns, loads: Loads, order: Int[np.ndarray, " loads"], first: Int[np.ndarray, " rows"]
) -> None:
    """An embedding gathers as many lines as its table has, a plane multiplies tiles of 80 words."""
    if len(order) == 0:
        return
    rows = np.flatnonzero(columns.op == Op.EMBED)
    if (miss := first_of(loads.lines[order[first[rows]]] != columns.n[rows])) >= 0:
        fail(columns, rows[miss], "its table has another number of lines", columns.src[rows[miss]])
    if (miss := first_of((loads.kind == TILE) & (loads.words != F32_LANES))) >= 0:
        fail(columns, 0, f"preloaded tile {miss} has {loads.words[miss]} words, not 80", loads.addr[miss])


def regions(
    columns: Columns, parts: list[SameKernel]
) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " regions"], Int[np.ndarray, "regions 2"]]:
    """KV regions: (region of each row or -1, row that appends to each region, [regions, 2] chip and address).

    Every read of a region must come after this step's append to it.
    """
    region = np.full(len(columns), -1, np.int64)
    appends = np.flatnonzero(columns.op == Op.KVW)
    key = (columns.chip[appends] << _CHIP_SHIFT) | columns.dst[appends]
    order = np.argsort(key, kind="stable")
    appends, key = appends[order], key[order]
    if (twice := first_of(key[1:] == key[:-1])) >= 0:
        late = appends[twice + 1]
        fail(columns, late, "a second append to the region in one step", columns.dst[late])
    for op, kernel, rows in parts:
        if op != Op.KVW or not isinstance(kernel, AttentionKernel):
            continue
        stripe = columns.src3[rows]
        if (miss := first_of((stripe < -1) | (stripe >= kernel.stripes))) >= 0:
            fail(columns, rows[miss], f"stripe {stripe[miss]} of a context is not one of {kernel.stripes}")
    region[appends] = np.arange(len(appends))
    for part in parts:
        kernel, rows = part.kernel, part.rows
        if INSTRUCTIONS[part.op].renews or all(operand.space != KV for operand in part.reads):
            continue
        sought = (columns.chip[rows] << _CHIP_SHIFT) | columns.src2[rows]
        spot = _lookup(key, sought)
        if (miss := first_of(spot < 0)) >= 0:
            row = rows[miss]
            fail(columns, row, "reads a KV region that this step appends nothing to", columns.src2[row])
        writer = appends[spot]
        if (miss := first_of(columns.t1[writer] > columns.t0[rows])) >= 0:
            message = f"reads KV before its append at cycle {columns.t1[writer[miss]]} (row {writer[miss]})"
            fail(columns, rows[miss], message, columns.src2[rows[miss]])
        if (miss := first_of(columns.aux[writer] != columns.aux[rows])) >= 0:
            fail(columns, rows[miss], "reads KV of another attention", columns.src2[rows[miss]])
        if isinstance(kernel, AttentionKernel):
            stripe = np.maximum(columns.src3[writer], 0)
            early = part.op == Op.FETCH
            block = (dealt_number if early else block_number)(kernel, stripe, columns.n[rows])
            most = kernel.early if early else kernel.chunks
            if (miss := first_of(block >= most)) >= 0:
                fail(columns, rows[miss], f"block {block[miss]} is not one of {most}")
        region[rows] = spot
    places = np.stack([columns.chip[appends], columns.dst[appends]], axis=-1)
    return region, appends, places


def states(
    columns: Columns, parts: list[SameKernel]
) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, "states 5"]]:
    """States by line: (the first of each row's, or -1; of each chip, word, kept, cached, its row).

    Numbered by what they keep, then by place. Two rows that renew one word in a step are an error.
    """
    found: list[Int[np.ndarray, "some 5"]] = [np.zeros((0, 5), np.int64)]
    for op, kernel, rows in parts:
        if not isinstance(kernel, StateKernel) or not INSTRUCTIONS[op].renews:
            continue
        lines = state_lines(op, columns.n[rows]) + 0 * rows
        row = np.repeat(rows, lines)
        word = getattr(columns, INSTRUCTIONS[op].renews)[row] + ramp(lines) * kernel.kept * kernel.cached
        same = np.zeros_like(row)
        found.append(
            np.stack([columns.chip[row], word, same + kernel.kept, same + kernel.cached, row], axis=1)
        )
    every = np.concatenate(found)
    place = (every[:, 0] << _CHIP_SHIFT) | every[:, 1]
    order = np.argsort(place, kind="stable")
    end = (place + every[:, 2] * every[:, 3])[order]
    if (twice := first_of(place[order][1:] < end[:-1])) >= 0:
        late = every[order[twice + 1]]
        fail(columns, late[4], "renews a state that another row renews in the same step", late[1])
    every = every[np.lexsort((place, every[:, 3], every[:, 2]))]
    first = np.full(len(columns), -1, np.int64)
    first[every[::-1, 4]] = np.arange(len(every))[::-1]
    return first, every


def chains(columns: Columns, parts: list[SameKernel], manifest: Manifest) -> Int[np.ndarray, " rows"]:
    """The write-back that closes the accumulation of each MM row; -1 for other rows."""
    planes = manifest.chip.planes
    products = np.flatnonzero(np.isin(columns.op, PRODUCTS))
    drains = np.flatnonzero(columns.op == Op.WB)
    owner = np.full(len(columns), -1, np.int64)
    bits = int(max(columns.t1.max(initial=0), 1)).bit_length()
    slots = int(max(columns.dst[products].max(initial=0), columns.src3[drains].max(initial=0))) + 1

    def key(
        rows: Int[np.ndarray, " some"],
        plane: Int[np.ndarray, " some"],
        slot: Int[np.ndarray, " some"],
        time: Int[np.ndarray, " some"],
    ) -> Int[np.ndarray, " some"]:
        if (miss := first_of((plane < 0) | (plane >= planes) | (slot < 0))) >= 0:
            fail(
                columns,
                rows[miss],
                f"unit {columns.unit[rows[miss]]} or accumulator {slot[miss]} does not exist",
            )
        return ((columns.chip[rows] * planes + plane) * slots + slot) << bits | time

    closing = key(drains, columns.unit[drains] - planes, columns.src3[drains], columns.t0[drains])
    order = np.argsort(closing, kind="stable")
    closing, drains = closing[order], drains[order]
    if (twice := first_of(closing[1:] == closing[:-1])) >= 0:
        fail(columns, drains[twice + 1], f"drains the accumulator in the same cycle as row {drains[twice]}")
    adding = key(products, columns.unit[products], columns.dst[products], columns.t1[products])
    sought = np.argsort(adding)
    at = np.empty_like(sought)
    at[sought] = np.searchsorted(closing, adding[sought])
    spot = np.minimum(at, max(len(drains) - 1, 0))
    open_ = (
        np.ones(len(products), bool)
        if not len(drains)
        else ((at == len(drains)) | (closing[spot] >> bits != adding >> bits))
    )
    if (miss := first_of(open_)) >= 0:
        fail(
            columns,
            products[miss],
            f"no write-back empties accumulator {columns.dst[products[miss]]} after it",
        )
    counts = np.bincount(spot, minlength=len(drains)) if len(products) else np.zeros(len(drains), np.int64)
    wanted = products_of(manifest.kernels)[columns.aux[drains]]
    if (miss := first_of((counts == 0) | (counts != wanted))) >= 0:
        message = f"finds {counts[miss]} products in its accumulator, expects {wanted[miss]}"
        fail(columns, drains[miss], message)
    owner[products] = drains[spot]
    if (miss := first_of(columns.n[products] != columns.n[owner[products]])) >= 0:
        fail(
            columns,
            products[miss],
            f"multiplies {columns.n[products[miss]]} lines, its write-back takes another number",
        )
    for _, kernel, rows in parts:
        if (
            isinstance(kernel, MatmulKernel | ExpertTileKernel)
            and not 1 <= kernel.k_lines <= TILE_ROWS // F16_LANES
        ):
            fail(columns, rows[0], f"a tile of {kernel.k_lines} fp16 lines does not exist")
    return owner
