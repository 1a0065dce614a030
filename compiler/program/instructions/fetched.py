"""Blocks of early KV that lie in DDR5: fetched into transient lines, and attended to from there."""

from compiler.program.instructions.attention import (
    AttentionKernel,
    kv_region_words,
    node_lines,
    score_lines,
    weight_lines,
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


def _queries(n: Lines, k: AttentionKernel) -> Lines:
    return k.query_lines


def _scores(n: Lines, k: AttentionKernel) -> Lines:
    return score_lines(k)


def _weights(n: Lines, k: AttentionKernel) -> Lines:
    return weight_lines(k)


def _node(n: Lines, k: AttentionKernel) -> Lines:
    return node_lines(k)


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
        reads=(Operand("src", TRANSIENT, _queries, Holds.F16), _FETCHED),
        write=Operand("dst", TRANSIENT, _scores, Holds.SCORE),
        least=0,
        numbers=_BLOCK,
    ),
    Instruction(
        op=Op.PVF,
        name="PVF",
        unit=MXM,
        kernel=AttentionKernel,
        reads=(Operand("src", TRANSIENT, _weights, Holds.WEIGHT, whole=weight_lines), _FETCHED),
        write=Operand("dst", TRANSIENT, _node, Holds.BLOCKS),
        least=0,
        numbers=_BLOCK,
    ),
)
