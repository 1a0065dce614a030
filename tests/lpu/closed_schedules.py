"""Published closed forms of ping-pong, exact: what `lpu/pingpong/pingpong.py` must give in their limits.

Times are picoseconds; t_c is one direction of the link. Source: facts/afd.md sections 1 and 4.
"""

from fractions import Fraction

from lpu.pingpong.stages import StageError, Stages

STEP3_STAGES = 3  # attention, transfer, FFN; facts/afd.md section 1.2


def ping_pong(layers: int, micro_batches: int, time: int) -> int:
    """T = m L t + t, to the end of the last FFN stage: t_a = t_f = t and links that take no time; m >= 2."""
    return micro_batches * layers * time + time


def one_micro_batch(layers: int, stages: Stages) -> int:
    """T = L (t_a + t_f + t_dn + t_up), to the end of the last link up: nothing overlaps with m = 1."""
    return layers * sum(stages.times)


def megascale_step(layers: int, micro_batches: int, t_a: int, t_e: int, t_c: int) -> int:
    """T = (t_a + t_e + 2 t_c) + T_f (m L - 1), T_f = max(t_a, t_e), to the end of the last link up.

    Holds when `megascale_holds`. Source: arXiv 2504.02263; facts/afd.md section 1.1.
    """
    return t_a + t_e + 2 * t_c + max(t_a, t_e) * (micro_batches * layers - 1)


def megascale_holds(micro_batches: int, t_a: int, t_e: int, t_c: int) -> bool:
    """The paper's conditions t_c <= T_f and m T_f >= 2 (T_f + t_c).

    They suffice. What is necessary, with more than one layer, is t_c <= T_f and m T_f >= t_a + t_e + 2 t_c,
    which is the same where t_a = t_e. Source: facts/afd.md section 1.1 (there t_c < T_f).
    """
    most = max(t_a, t_e)
    return t_c <= most and micro_batches * most >= 2 * (most + t_c)


def megascale_least_micro_batches(t_a: int, t_e: int, t_c: int) -> int:
    """The least m of m >= 2 (1 + t_c / T_f). Source: facts/afd.md section 1.1. Raises StageError."""
    most = max(t_a, t_e)
    if not most:
        raise StageError("closed forms: t_a and t_e: are 0 ps, one needs 1 or more. Give a time.")
    return -(-2 * (most + t_c) // most)


def step3_stage(tpot: int, layers: int) -> Fraction:
    """Time of each of the three stages of a layer: tpot / L / 3. Source: facts/afd.md section 1.2."""
    return Fraction(tpot, STEP3_STAGES * layers)


def step3_holds(stages: Stages) -> bool:
    """The rule A2F + F2A <= A, with F <= A: then three micro-batches hide the links. facts/afd.md 1.2."""
    return stages.down + stages.up <= stages.attention and stages.ffn <= stages.attention
