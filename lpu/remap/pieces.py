"""What lies in the SRAM of a program's chips: weights by what they are, KV by layer, head and stripe."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from compiler.program.instructions.attention import KVKernel
from compiler.program.isa import SHARED, SPACE_SHIFT, TAG_SHIFT, Op
from compiler.program.program import Block, Program
from fabric.faults.fault import BadWords

_LINE = (1 << TAG_SHIFT) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldWords:
    """Words of one chip that belong together. name: what they are, the same in every program of a model.

    order: a digest of how they lie from the first one on.
    """

    name: str
    chip: int
    first: int
    words: int
    order: str = ""

    def lies_in(self, bad: tuple[BadWords, ...]) -> bool:
        """Whether bad words are among them."""
        return any(
            self.chip == one.chip and self.first < one.stop and one.first < self.first + self.words
            for one in bad
        )


class KVRegion(NamedTuple):
    """A KV region: the number of its layer, its line (head and stripe), how tokens are dealt to it."""

    layer: int
    line: int
    stripes: int
    run: int
    format: str


def weights_of(program: Program) -> tuple[HeldWords, ...]:
    """The preloaded values of every call, chip and tensor."""
    known: dict[int, list[_Part]] = {}
    out: list[HeldWords] = []
    for call in program.calls:
        if call.block not in known:
            known[call.block] = list(_parts(program.blocks[call.block]))
        for part in known[call.block]:
            base = (call.weight_base, call.shared_base)[part.shared][part.rank]
            out.append(
                HeldWords(
                    name=f"{part.content} {call.tensors[part.slot]}",
                    chip=call.chips[part.rank],
                    first=base + part.offset,
                    words=part.words,
                    order=part.order,
                )
            )
    return tuple(out)


class _Part(NamedTuple):
    """A rank's values of one tensor of a block: what they are, how they lie, from which word on."""

    rank: int
    slot: int
    content: str
    order: str
    shared: bool
    offset: int
    words: int


def _parts(block: Block) -> Iterator[_Part]:
    loads = block.loads
    offset = loads.addr & ((1 << SPACE_SHIFT) - 1)
    order = np.lexsort((loads.n0, loads.k0, loads.kind, loads.tensor, loads.chip))
    key = np.stack([loads.chip[order], loads.tensor[order]])
    starts = np.flatnonzero(np.concatenate([[True], (key[:, 1:] != key[:, :-1]).any(axis=0)]))
    for mine in np.split(order, starts[1:]) if len(order) else []:
        first = int(offset[mine].min())
        sha = hashlib.sha256()
        for name in ("words", "kind", "k0", "n0", "lines"):
            sha.update(getattr(loads, name)[mine].astype("<i8").tobytes())
        slot = int(loads.tensor[mine[0]])
        for index in block.slots[slot]:
            sha.update(b"-" if index < 0 else block.maps[index].astype("<i8").tobytes())
        yield _Part(
            rank=int(loads.chip[mine[0]]),
            slot=slot,
            content=sha.hexdigest(),
            order=hashlib.sha256((offset[mine] - first).astype("<i8").tobytes()).hexdigest(),
            shared=bool(loads.addr[mine[0]] >> SPACE_SHIFT == SHARED),
            offset=first,
            words=int(loads.words[mine].sum()),
        )


def kv_of(program: Program) -> dict[KVRegion, HeldWords]:
    """The KV regions, with the words that they take for all users."""
    manifest = program.manifest
    context = manifest.longest
    found: list[tuple[int, int, int, int, KVKernel]] = []
    for call in program.calls:
        rows = program.blocks[call.block].columns[context]
        appends = np.flatnonzero(rows.op == Op.KVW)
        if len(appends):
            placed = program.expand_call(call, context, appends)
            columns = (placed.dst_tag, placed.chip, placed.dst, placed.aux)
            for tag, chip, word, aux in zip(*(column.tolist() for column in columns), strict=True):
                kernel = manifest.kernels[aux]
                assert isinstance(kernel, KVKernel)
                found.append((tag >> TAG_SHIFT, tag & _LINE, chip, word, kernel))
    layers = {uid: i for i, uid in enumerate(sorted({one[0] for one in found}))}
    users = 1 if manifest.waves is None else manifest.waves.users
    out: dict[KVRegion, HeldWords] = {}
    for uid, line, chip, word, kernel in found:
        about = f"{kernel.head_dim} {kernel.kv} {kernel.capacity} {kernel.cached}"
        region = KVRegion(layers[uid], line, kernel.stripes, kernel.run, about)
        words = kernel.kv_stride * kernel.cached * users
        out[region] = HeldWords(name=f"kv {region.layer} {region.line}", chip=chip, first=word, words=words)
    return out


def by_name(held: Iterator[HeldWords] | tuple[HeldWords, ...]) -> dict[str, list[HeldWords]]:
    """What has one name, in order."""
    out: dict[str, list[HeldWords]] = {}
    for one in held:
        out.setdefault(one.name, []).append(one)
    return out
