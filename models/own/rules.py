"""What of plain JAX is an op of the contract, primitive by primitive; parameters are not read before."""

import math
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from models.contract import ops
from models.contract.op import F16, F32
from models.own.equations import Equation
from models.own.walk import Item, Rule, StepValue, Walk, Weight, moved, unnamed

_FLOATS = (F32, F16, jnp.dtype("bfloat16"))


def _dot_general(walk: Walk, equation: Equation, items: Sequence[Item]) -> Item | None:
    """A product of a value and a parameter over all but the value's first axis: `matmul`."""
    (left, right), batch = equation.eqn.params["dimension_numbers"]
    kinds = [type(item) for item in items]
    if any(batch) or set(kinds) != {StepValue, Weight}:
        return None
    at = kinds.index(StepValue)
    value, weight = items[at], items[1 - at]
    mine, theirs = (left, right) if at == 0 else (right, left)
    assert isinstance(value, StepValue)
    assert isinstance(weight, Weight)
    axes, free = weight.aval.shape, [i for i in range(weight.aval.ndim) if i not in theirs]
    rest = [i for i in range(value.aval.ndim) if i not in mine]
    floats = value.aval.dtype in _FLOATS and weight.aval.dtype in _FLOATS
    narrow = _half(walk, value)
    if rest != [0] or not free or not floats or weight.moves is None or weight.over_rows or narrow is None:
        return None
    order = [theirs[mine.index(axis)] for axis in sorted(mine)]
    turned = moved(weight, equation, ("transpose", (*order, *free)))
    k, n = prod(axes[i] for i in order), prod(axes[i] for i in free)
    codes, exponent = (walk.parameter(turned, part, (k, n)) for part in ("codes", "exponent"))
    rows = value.aval.shape[0]
    y = ops.matmul(jnp.reshape(narrow, (rows, k)), codes, exponent)
    y = jnp.reshape(y, (rows, *(axes[i] for i in free)))
    swapped = None if at == 0 else (*range(1, y.ndim), 0)
    return StepValue(aval=equation.outputs[0].aval, value=y, loose=True, turned=swapped)


def _half(walk: Walk, value: StepValue) -> Any:
    """A value in fp16, without the casts that the user saw; None if it lies turned."""
    if value.turned is not None:
        return None
    return walk.half(_multiplied(walk, value).value)


def _add(walk: Walk, equation: Equation, items: Sequence[Item]) -> Item | None:
    """A sum of two f32 values, or of a value and a vector."""
    aval = equation.outputs[0].aval
    if aval.ndim < 2:
        return None
    for value, weight in (items, items[::-1]):
        if isinstance(value, StepValue) and isinstance(weight, Weight):
            return _bias(walk, equation, value, weight)
    shapes = {item.aval.shape for item in items}
    return _sum(walk, equation, items) if aval.dtype == F32 and shapes == {aval.shape} else None


def _sum(walk: Walk, equation: Equation, items: Sequence[Item]) -> Item | None:
    """Of two f32 values; a factor of one of them is part of the sum if it is an f32 value."""
    x, y = items
    if not isinstance(x, StepValue) or not isinstance(y, StepValue):
        return None
    x, y = (x, y) if y.factor is not None else (y, x)
    joined = y.factor is not None and y.factor == float(np.float32(y.factor))
    x, factor = _multiplied(walk, x), y.factor if joined else None
    y = replace(y, factor=None) if joined else _multiplied(walk, y)
    if not _f32(x) or not _f32(y):
        return None
    total = ops.add(x.value, y.value) if factor is None else ops.multiply_add(x.value, y.value, factor=factor)
    return StepValue(aval=equation.outputs[0].aval, value=total)


def _multiplied(walk: Walk, item: StepValue) -> StepValue:
    """The value with its factor, where one waits."""
    if item.factor is None:
        return item
    return replace(item, value=walk.multiplied(item), factor=None)


def _mul(walk: Walk, equation: Equation, items: Sequence[Item]) -> Item | None:
    """A product with a constant number, which waits for what reads it."""
    numbers = [variable.held for variable in equation.inputs]
    for item, number in zip(items, numbers[::-1], strict=True):
        if number is not None and np.size(number) == 1 and isinstance(item, StepValue):
            return _by(walk, equation, item, float(np.float32(np.reshape(number, ()))))
    return None


def _div(walk: Walk, equation: Equation, items: Sequence[Item]) -> Item | None:
    """A quotient by a constant number: the product with its inverse."""
    item, number = items[0], equation.inputs[1].held
    if number is None or np.size(number) != 1 or not isinstance(item, StepValue):
        return None
    divisor = float(np.float32(np.reshape(number, ())))
    return _by(walk, equation, item, 1 / divisor) if divisor else None


def _by(walk: Walk, equation: Equation, item: StepValue, factor: float) -> Item | None:
    item, aval = _multiplied(walk, item), equation.outputs[0].aval
    if not _f32(item) or aval.dtype != F32 or aval.ndim < 2 or not math.isfinite(factor):
        return None
    return replace(item, aval=aval, factor=factor, line=equation)


def _bias(walk: Walk, equation: Equation, value: StepValue, weight: Weight) -> Item | None:
    aval = equation.outputs[0].aval
    fits = weight.over_rows or weight.aval.shape == (1, *aval.shape[1:])
    known = weight.moves is not None and weight.aval.dtype in _FLOATS
    if not fits or not known or value.aval.shape != aval.shape or not _f32(value):
        return None
    shape = (aval.shape[0], prod(aval.shape[1:]))
    vector = walk.parameter(weight, "values", shape[1:])
    y = ops.bias(jnp.reshape(_multiplied(walk, value).value, shape), vector)
    return StepValue(aval=aval, value=jnp.reshape(y, aval.shape), loose=value.loose)


def _f32(value: StepValue) -> bool:
    """Whether a value is f32 as it is: nothing waits."""
    plain = not value.waits and value.turned is None and value.value.dtype == F32
    return plain and (value.loose or value.aval.dtype == F32)


def _convert(walk: Walk, equation: Equation, items: Sequence[Item]) -> Item | None:
    """Casts of floats: to fp16 done at once, others when something reads the result as it is."""
    (item,), aval = items, equation.outputs[0].aval
    if item.aval.dtype not in _FLOATS or aval.dtype not in _FLOATS:
        return None
    if isinstance(item, Weight):
        return moved(item, equation)
    if aval.dtype == item.aval.dtype:
        return replace(item, aval=aval)
    item = _multiplied(walk, item)
    if item.loose and (item.aval.dtype != F32 or aval.dtype == F32):
        return replace(item, aval=aval)
    if aval.dtype == F16 and item.value.dtype == F16 and item.aval.dtype == F32:
        return replace(item, aval=aval, waits=())
    if aval.dtype == F16 and _f32(item):
        return StepValue(aval=aval, value=ops.round16(item.value))
    return replace(item, aval=aval, waits=(*item.waits, equation))


def _view(walk: Walk, equation: Equation, items: Sequence[Item]) -> Item | None:
    """A change of shape."""
    item, aval = items[0], equation.outputs[0].aval
    if isinstance(item, Weight):
        return unnamed(item, equation) if item.over_rows else moved(item, equation, ("reshape", aval.shape))
    if item.turned is not None:
        return None
    params = equation.eqn.primitive.get_bind_params(equation.eqn.params)
    return replace(item, aval=aval, value=equation.eqn.primitive.bind(item.value, **params))


def _transpose(walk: Walk, equation: Equation, items: Sequence[Item]) -> Item | None:
    """Of a parameter a view; of a product that lies turned, perhaps the product itself."""
    (item,), axes = items, tuple(equation.eqn.params["permutation"])
    if isinstance(item, Weight):
        return unnamed(item, equation) if item.over_rows else moved(item, equation, ("transpose", axes))
    turned = tuple((item.turned or range(len(axes)))[axis] for axis in axes)
    still = turned != tuple(range(len(turned)))
    return replace(item, aval=equation.outputs[0].aval, turned=turned if still else None)


def _broadcast(walk: Walk, equation: Equation, items: Sequence[Item]) -> Item | None:
    """As many values as before are a change of shape; a parameter may be the same for all rows."""
    item, aval = items[0], equation.outputs[0].aval
    if prod(item.aval.shape) == prod(aval.shape):
        return _view(walk, equation, items[:1])
    if not isinstance(item, Weight):
        return None
    inner = tuple(
        (axis, extent)
        for axis, extent in zip(equation.eqn.params["broadcast_dimensions"], item.aval.shape, strict=True)
        if axis or extent != 1
    )
    if item.over_rows or inner != tuple(enumerate(aval.shape))[1:]:
        return unnamed(item, equation)
    return replace(moved(item, equation, ("reshape", aval.shape[1:])), over_rows=True)


def _slice(walk: Walk, equation: Equation, items: Sequence[Item]) -> Item | None:
    """A piece of a parameter."""
    (item,), params = items, equation.eqn.params
    if not isinstance(item, Weight):
        return None
    strides = params["strides"] or (1,) * item.aval.ndim
    cut = tuple(zip(params["start_indices"], params["limit_indices"], strides, strict=True))
    return unnamed(item, equation) if item.over_rows else moved(item, equation, ("slice", cut))


def _split(walk: Walk, equation: Equation, items: Sequence[Item]) -> list[Item] | None:
    """Pieces of a parameter."""
    (item,), axis = items, equation.eqn.params["axis"]
    if not isinstance(item, Weight) or item.over_rows:
        return None
    found: list[Item] = []
    start = 0
    for size, output in zip(equation.eqn.params["sizes"], equation.outputs, strict=True):
        cut = [(0, extent, 1) for extent in item.aval.shape]
        cut[axis] = (start, start + size, 1)
        found.append(replace(moved(item, equation, ("slice", tuple(cut))), aval=output.aval))
        start += size
    return found


RULES: dict[str, Rule] = {
    "dot_general": _dot_general,
    "add": _add,
    ops.OPS["add"].primitive.name: _sum,
    "mul": _mul,
    "div": _div,
    "convert_element_type": _convert,
    **dict.fromkeys(("reshape", "squeeze", "expand_dims", "copy", "copy_p", "stop_gradient"), _view),
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "split": _split,
}
"""By name of the primitive."""
