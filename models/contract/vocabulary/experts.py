"""`experts`: the weighted sum of the FFNs that a router chose, rounded once.

The router's weight meets the activation before that is rounded to fp16, and all experts have one exponent per
column. So the sum over experts is the sum of one product: exact in any order, on any chips. Source:
docs/experts.md; facts/contract2.md section 5 states the other form, a fixed-point sum of rounded results.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float16, Float32, Int32, UInt8

from models.contract import deferred, numerics
from models.contract.experts.slots import OAI, RELU2, UNGATED, WEIGHED, slots_of, table, weighted_glu
from models.contract.formats import F64, Wide, add32, pow2
from models.contract.functions.gates import oai_plain
from models.contract.op import F16, F32, I32, U8, Results, bytes_of, check_operand, check_same, define
from models.contract.parts import leaf, part_starts
from models.contract.tree import tree32
from models.contract.vocabulary.glu import ACTIVATIONS

UNIT = 32  # input rows of an expert's down projection that stay in one part
PARTS = 8  # of it, at most
_GATES = ACTIVATIONS | {RELU2: jax.nn.relu}  # of plain f32; of relu squared the gate is up

UpStack = UInt8[Array, "experts k wide"] | Float32[Array, "experts k wide"]
DownStack = UInt8[Array, "experts half n"] | Float32[Array, "experts half n"]


class ExpertOperands(NamedTuple):
    """The operands of the op by name: arrays, shapes, or views of a graph."""

    a: Any
    statistic: Any | None
    weights: Any
    gate_up: Any
    gate_up_scale: Any
    down: Any
    down_scale: Any
    biases: Any | None = None


def named(operands: Sequence[Any], normed: bool = True) -> ExpertOperands:
    """The operands of a bound op. normed: whether there is a statistic among them."""
    return ExpertOperands(*operands) if normed else ExpertOperands(operands[0], None, *operands[1:])


def experts(
    a: Float16[Array, "batch k"],
    statistic: Float32[Array, "batch 1"] | None,
    weights: Float32[Array, "batch experts"],
    gate_up: tuple[UpStack, Int32[Array, " wide"]],
    down: tuple[DownStack, Int32[Array, " n"]],
    biases: Float32[Array, " experts_wide"] | None = None,
    *,
    chosen: int,
    activation: str,
    starts: tuple[int, ...],
) -> Float32[Array, "batch n"]:
    """The sum over all experts of weight x down(glu(gate, up)), of a row normalised by its statistic.

    statistic: None for a row that is normalised already. weights: at most `chosen` of a row are not 0.
    gate_up: codes and exponents, columns of the gate before those of up; down: likewise. biases: what is
    added to gate and up, of one expert behind those of another. activation: of the gate, or OAI, or WEIGHED,
    by which experts take the row times their weight, or RELU2, of up without a gate. starts: first rows of
    the contract parts of down, in every expert alike.
    """
    normed = () if statistic is None else (statistic,)
    operands = (a, *normed, weights, *gate_up, *down, *(() if biases is None else (biases,)))
    already = {} if normed else {"normed": False}
    return EXPERTS.bind(*operands, chosen=chosen, activation=activation, starts=starts, **already)


def expert_starts(width: int) -> tuple[int, ...]:
    """Where the parts of an expert's down projection begin, and its width: up to 8, of whole units of 32."""
    unit = UNIT if width % UNIT == 0 else 1
    most = min(PARTS, width // UNIT if unit == UNIT else 1)
    return part_starts(width // unit, unit, 1 << (max(most, 1).bit_length() - 1))


def _shape(
    *operands: ShapedArray, chosen: int, activation: str, starts: tuple[int, ...], normed: bool = True
) -> Results:
    a, statistic, weights, gate_up, gate_up_exponent, down, down_exponent, biases = named(operands, normed)
    check_operand("experts", "a", a, 2, F16)
    if statistic is not None:
        check_operand("experts", "statistic", statistic, 2, F32)
    check_operand("experts", "weights", weights, 2, F32)
    for name, codes, exponent in (("gate_up", gate_up, gate_up_exponent), ("down", down, down_exponent)):
        check_operand("experts", name, codes, 3, U8, F32)
        check_operand("experts", f"exponent of {name}", exponent, 1, I32)
        check_same("experts", f"experts of {name} and of the weights", codes.shape[0], weights.shape[1])
        check_same("experts", f"columns of {name} and of its exponents", codes.shape[2], exponent.shape[0])
    check_same("experts", "k of a and of gate_up", a.shape[1], gate_up.shape[1])
    known = (*ACTIVATIONS, OAI, WEIGHED, *UNGATED)
    if activation not in known:
        raise ValueError(f"experts: activation {activation!r}: it takes {' or '.join(known)}.")
    times, of = (1, "the") if activation in UNGATED else (2, "twice the")
    check_same(
        "experts", f"columns of gate_up and {of} rows of down", gate_up.shape[2], times * down.shape[1]
    )
    check_same("experts", "last of the starts and rows of down", starts[-1:], (down.shape[1],))
    if biases is not None:
        check_operand("experts", "biases", biases, 1, F32)
        every = gate_up.shape[0] * gate_up.shape[2]
        check_same("experts", "biases and columns of all experts' gate_up", biases.shape[0], every)
    if not 1 <= chosen <= weights.shape[1]:
        raise ValueError(f"experts: {chosen} of {weights.shape[1]} experts cannot be chosen.")
    return (ShapedArray((a.shape[0], down.shape[2]), F32),)


def _flops(*operands: ShapedArray, chosen: int, normed: bool = True, **others: Any) -> int:
    """Of the chosen experts."""
    o = named(operands, normed)
    return 2 * o.a.shape[0] * chosen * (math.prod(o.gate_up.shape[1:]) + math.prod(o.down.shape[1:]))


def _bytes(*operands: ShapedArray, chosen: int, normed: bool = True, **others: Any) -> int:
    """Of as many experts as the rows can choose."""
    o = named(operands, normed)
    taken = slots_of(o.weights.shape[1], chosen, o.a.shape[0])
    used = [ShapedArray((taken, *stack.shape[1:]), stack.dtype) for stack in (o.gate_up, o.down)]
    used += [ShapedArray((taken * o.gate_up.shape[2],), o.biases.dtype)] if o.biases is not None else []
    out = _shape(*operands, chosen=chosen, normed=normed, **others)
    whole = [one for one in o._replace(gate_up=None, down=None, biases=None) if one is not None]
    return bytes_of(*whole, *used, *out)


def _contract(
    *operands: Array, chosen: int, activation: str, starts: tuple[int, ...], normed: bool = True
) -> Array:
    a, statistic, weights, gate_up, gate_up_exponent, down, down_exponent, biases = named(operands, normed)
    if gate_up.dtype != jnp.uint8 or down.dtype != jnp.uint8:
        raise TypeError(
            "experts: weights are f32, the contract takes e4m3 codes (uint8). Use contract.plain."
        )
    width, found = down.shape[1], table(weights, slots_of(weights.shape[1], chosen, a.shape[0]))
    parts = list(pairwise(starts))

    def one(total: tuple[Array, ...], slot: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
        expert, weight = slot
        both = numerics.matmul(a, gate_up[expert], gate_up_exponent)
        both = both if statistic is None else deferred.scale_rows(both, statistic)
        if biases is not None:
            both = add32(both, jnp.broadcast_to(biases.reshape(len(gate_up), -1)[expert], both.shape))
        h = weighted_glu(both[:, :width], both[:, -width:], weight[:, None], activation)
        codes = down[expert]
        sums = [numerics.carry(numerics.wide(h[:, i:j], codes[i:j])) for i, j in parts]
        return tuple(have + new for have, new in zip(total, (x for s in sums for x in s), strict=True)), None

    zero = tuple(jnp.zeros((a.shape[0], down.shape[2]), F64) for _ in range(2 * len(parts)))
    total, _ = jax.lax.scan(one, zero, (found.ids, found.weights.T))
    leaves = [leaf(Wide(total[2 * i], total[2 * i + 1]), pow2(down_exponent)) for i in range(len(parts))]
    return tree32(jnp.stack(leaves))


def _plain(
    *operands: Array, chosen: int, activation: str, starts: tuple[int, ...], normed: bool = True
) -> Array:
    """In f32, slot by slot; weights come scaled: see `contract.plain.plain_params`."""
    a, statistic, weights, gate_up, _, down, _, biases = named(operands, normed)
    width, found = down.shape[1], table(weights, slots_of(weights.shape[1], chosen, a.shape[0]))

    def one(total: Array, slot: tuple[Array, Array]) -> tuple[Array, None]:
        expert, weight = slot
        both = a @ gate_up[expert]
        both = both if statistic is None else both * statistic
        both = both if biases is None else both + biases.reshape(len(gate_up), -1)[expert]
        gate, up = both[:, :width], both[:, -width:]
        if activation == WEIGHED:
            h = ACTIVATIONS["silu"](gate * weight[:, None]) * up * weight[:, None]
            return total + h @ down[expert], None
        h = oai_plain(gate, up) if activation == OAI else _GATES[activation](gate) * up
        return total + (h @ down[expert]) * weight[:, None], None

    zero = jnp.zeros((a.shape[0], down.shape[2]), jnp.float32)
    return jax.lax.scan(one, zero, (found.ids, found.weights.T))[0]


EXPERTS = define(name="experts", shape=_shape, flops=_flops, bytes=_bytes, contract=_contract, plain=_plain)
