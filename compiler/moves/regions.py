"""What a layer keeps of a sequence, as rows over the host lanes: regions of KV, and lines of states."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Int

from compiler.errors import CompileError
from compiler.lower.rows import Kernels
from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.instructions.attention import (
    AttentionKernel,
    KVKernel,
    LatentAttentionKernel,
    stripe_tokens,
)
from compiler.program.instructions.host import HandoverKernel, StateMoveKernel
from compiler.program.instructions.recurrent import StateKernel, state_lines
from compiler.program.isa import Columns, Kernel, Op
from compiler.program.packed import TAG

Rows = Int[np.ndarray, " rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedRows:
    """Regions that rows move: chip, first word and its tag, line of the layer's message, kernel, n."""

    chip: Rows
    word: Rows
    tag: Rows
    line: Rows
    aux: Rows
    n: Rows

    def then(self, other: "HandedRows") -> "HandedRows":
        """These, then the others."""
        pairs = {one.name: (getattr(self, one.name), getattr(other, one.name)) for one in fields(HandedRows)}
        return HandedRows(**{name: np.concatenate(pair) for name, pair in pairs.items()})


def renewed(rows: Columns) -> Int[np.ndarray, " some"]:
    """The rows that renew states."""
    return np.flatnonzero(np.isin(rows.op, [op for op, record in INSTRUCTIONS.items() if record.renews]))


def kv_regions(
    kind: str, name: str, rows: Columns, held: tuple[Kernel, ...], kernels: Kernels, tokens: int, slot: int
) -> HandedRows:
    """A row for each region that a block appends to, in order of lines. held: kernels of the rows.

    Raises CompileError for regions that no message of heads tells apart.
    """
    appends = rows.take(np.flatnonzero(rows.op == Op.KVW))
    _, line = TAG.unpack(appends.dst_tag)  # KV head * stripes + stripe
    order = np.argsort(line, kind="stable")
    appends, line = appends.take(order), line[order]
    if not np.array_equal(line, np.arange(len(line))) or len(np.unique(appends.aux)) > 1:
        reason = f"its {len(line)} KV regions are not those of 1 attention"
        raise CompileError(kind, name, reason, "Hand on an f32 residual between attentions.")
    if not len(line):
        return HandedRows(**dict.fromkeys([one.name for one in fields(HandedRows)], np.zeros(0, np.int64)))
    attention = held[int(appends.aux[0])]
    assert isinstance(attention, AttentionKernel)
    if isinstance(attention, LatentAttentionKernel):
        reason = f"{len(line)} chips keep copies of a latent of {attention.head_dim} lanes, moved as heads"
        raise CompileError(kind, name, reason, "Prefill on the LPUs (--prefill).")
    kernel = HandoverKernel(
        **{field.name: getattr(attention, field.name) for field in fields(KVKernel)}, host_slot=slot
    )
    n = stripe_tokens(tokens, attention.stripes, attention.run)
    aux, count = np.full(len(line), kernels.index(kernel)), np.full(len(line), n)
    return HandedRows(chip=appends.chip, word=appends.dst, tag=appends.dst_tag, line=line, aux=aux, n=count)


def state_regions(
    kind: str, name: str, rows: Columns, held: tuple[Kernel, ...], kernels: Kernels, slot: int
) -> HandedRows:
    """A row for each row that renews lines of states, which a message has state by state, line by line.

    Raises CompileError where the lines of a state are not all there, each once.
    """
    found = [_renewal(rows, row, held, kernels, slot) for row in renewed(rows).tolist()]
    chip, word, tag, aux, n = np.array(found, np.int64).reshape(-1, 5)[np.argsort([f[2] for f in found])].T
    value, first = TAG.unpack(tag)
    before = np.cumsum(n) - n
    begin = before[np.searchsorted(value, value)] if len(value) else before
    if (bad := np.flatnonzero(first != before - begin)).size:
        reason = f"has line {first[bad[0]]} of a state where line {before[bad[0]] - begin[bad[0]]} must be"
        raise CompileError(kind, name, reason, "Lay each state of a layer out over all of its lines.")
    return HandedRows(chip=chip, word=word, tag=tag, line=before, aux=aux, n=n)


def _renewal(
    rows: Columns, row: int, held: tuple[Kernel, ...], kernels: Kernels, slot: int
) -> tuple[int, int, int, int, int]:
    """Chip, word, tag, kernel and lines of the move of what one row renews."""
    op, kernel = int(rows.op[row]), held[int(rows.aux[row])]
    assert isinstance(kernel, StateKernel)
    column = INSTRUCTIONS[op].renews
    moves = StateMoveKernel(kept=kernel.kept, cached=kernel.cached, host_slot=slot)
    word, tag = (int(getattr(rows, name)[row]) for name in (column, f"{column}_tag"))
    return int(rows.chip[row]), word, tag, kernels.index(moves), int(state_lines(op, rows.n[row]))
