"""Blocks of early KV that lie in DDR5: fetched into transient lines, and attended to from there."""

from compiler.program.instructions.attention import (
    AttentionKernel,
    kv_region_words,
    node_made,
    queries_read,
    scores_made,
    weight_lines,
    weights_made,
)
from compiler.program.isa import HOST_IN, KV, MXM, TRANSIENT, Holds, Instruction, Lines, Op, Operand


def fetched_lines(k: AttentionKernel) -> int:
    """Lines of K and V of a block, in which a word belongs to each sequence."""
    return k.chunk * k.kv_words


def early_local(k: AttentionKernel) -> int:
    """Blocks that DDR5 keeps of each region in a step of this context."""
    return k.early // k.stripes


def _fetched(n: Lines, k: AttentionKernel) -> Lines:
    return fetched_lines(k)


_FETCHED = Operand("src2", TRANSIENT, _fetched, Holds.FETCHED, whole=fetched_lines, installed=True)
_BLOCK = (("n", "block"),)

INSTRUCTIONS = (
    Instruction(
        op=Op.FETCH,
        name="FETCH",
        unit=HOST_IN,
        kernel=AttentionKernel,
        reads=(Operand("src2", KV, kv_region_words),),
        write=Operand("dst", TRANSIENT, _fetched, Holds.FETCHED),
        least=0,
        numbers=_BLOCK,
    ),
    Instruction(
        op=Op.QKF,
        name="QKF",
        unit=MXM,
        kernel=AttentionKernel,
        reads=(Operand("src", TRANSIENT, queries_read, Holds.F16), _FETCHED),
        write=Operand("dst", TRANSIENT, scores_made, Holds.SCORE),
        least=0,
        numbers=_BLOCK,
    ),
    Instruction(
        op=Op.PVF,
        name="PVF",
        unit=MXM,
        kernel=AttentionKernel,
        reads=(Operand("src", TRANSIENT, weights_made, Holds.WEIGHT, whole=weight_lines), _FETCHED),
        write=Operand("dst", TRANSIENT, node_made, Holds.BLOCKS),
        least=0,
        numbers=_BLOCK,
    ),
)
