"""The record of one op: what is known of it here, and the JAX primitive that stands for it in a jaxpr.

A record's functions take the op's operands in order and its attributes by name. `shape`, `flops` and `bytes`
see shapes and dtypes only. The primitive is one named equation (`lpu_matmul`) with the attributes as
parameters; its lowering is the contract function, and `plain.py` evaluates it by the plain f32 function.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir

PREFIX = "lpu_"
F16, F32, I32, U8 = (jnp.dtype(name) for name in ("float16", "float32", "int32", "uint8"))
Results = tuple[ShapedArray, ...]


class OperandError(ValueError):
    """An op is given what the contract does not compute: it says which op, and both numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpRecord:
    """What is known of one op; made by `define`.

    shape: one `ShapedArray` per result, or a ValueError. bytes: what one use reads and writes; of tables the
    rows used, of a KV cache all of it plus the tokens written. contract: the exact function. plain: in f32.
    """

    name: str
    shape: Callable[..., Results]
    flops: Callable[..., int]
    bytes: Callable[..., int]
    contract: Callable[..., Any]
    plain: Callable[..., Any]
    primitive: Primitive

    @property
    def home(self) -> str:
        """The module that states the op, for messages."""
        return self.shape.__module__

    def bind(self, *operands: Array, **attributes: Any) -> Any:
        """The op in the function being traced, or its value: one array, or a tuple of them."""
        out = self.primitive.bind(*operands, **attributes)
        return out[0] if len(out) == 1 else tuple(out)


def define(
    *,
    name: str,
    shape: Callable[..., Results],
    flops: Callable[..., int],
    contract: Callable[..., Any],
    plain: Callable[..., Any],
    bytes: Callable[..., int] | None = None,
) -> OpRecord:
    """The record with its primitive. bytes: by default, of all operands and results, each once."""
    primitive = Primitive(PREFIX + name)
    primitive.multiple_results = True

    def results(*operands: Any, **attributes: Any) -> tuple[Any, ...]:
        out = contract(*operands, **attributes)
        return out if isinstance(out, tuple) else (out,)

    @functools.cache
    def compiled(attributes: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
        return jax.jit(functools.partial(primitive.bind, **dict(attributes)))

    def shaped(*operands: ShapedArray, **attributes: Any) -> Results:
        try:
            return shape(*operands, **attributes)
        except ValueError as error:
            raise OperandError(str(error)) from None

    primitive.def_abstract_eval(shaped)
    primitive.def_impl(lambda *operands, **attributes: compiled(tuple(attributes.items()))(*operands))
    mlir.register_lowering(primitive, mlir.lower_fun(results, multiple_results=True))
    return OpRecord(
        name=name,
        shape=shape,
        flops=flops,
        bytes=bytes or _moved(shape),
        contract=contract,
        plain=plain,
        primitive=primitive,
    )


def bytes_of(*arrays: ShapedArray) -> int:
    """Bytes of these arrays together."""
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)


def per_element(flops: int) -> Callable[..., int]:
    """A FLOP rule: that many for each element of the first operand."""
    return lambda x, *rest, **attributes: flops * math.prod(x.shape)


def check_operand(op: str, name: str, array: ShapedArray, rank: int | None, *dtypes: Any) -> None:
    """Raise ValueError unless an operand has that rank (None: any) and one of these dtypes."""
    if rank is not None and len(array.shape) != rank:
        raise ValueError(f"{op}: {name} has {len(array.shape)} axes, it takes {rank}.")
    if array.dtype not in dtypes:
        raise ValueError(f"{op}: {name} is {array.dtype}, it takes {' or '.join(str(d) for d in dtypes)}.")


def check_same(op: str, what: str, left: Any, right: Any) -> None:
    """Raise ValueError with both values unless they are equal."""
    if left != right:
        raise ValueError(f"{op}: {what}: {left} and {right} differ.")


def _moved(shape: Callable[..., Results]) -> Callable[..., int]:
    return lambda *operands, **attributes: bytes_of(*operands, *shape(*operands, **attributes))
