"""A walk over equations that evaluates them, with some of them done another way."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax._src import source_info_util  # what eval_jaxpr keeps lines with

from models.contract import ops
from models.contract.op import F16, F32
from models.contract.ops import op_of
from models.own.equations import Equation, Variable
from models.own.made import Made, Moves, Part, apply


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A parameter, or a view of one: not read yet.

    path, shape, dtype: of the array. stack: what it is one of. moves: as in `Made`, None if not to be said.
    over_rows: the same for every row of the step. seen: the equations that made the view.
    """

    aval: Any
    path: str
    shape: tuple[int, ...]
    dtype: Any
    stack: tuple[str, int] | None = None
    moves: Moves | None = ()
    over_rows: bool = False
    seen: tuple[Equation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepValue:
    """A value of the step. aval: what the user sees.

    waits: casts that are done when something reads the value as it is. factor: so is this product, of that
    line. loose: the value is f32, whatever the user sees. turned: axes in which the user sees it, if others.
    """

    aval: Any
    value: Any
    waits: tuple[Equation, ...] = ()
    factor: float | None = None
    line: Equation | None = None
    loose: bool = False
    turned: tuple[int, ...] | None = None


Item = Weight | StepValue
Provide = Callable[[Made | None, str, jax.ShapeDtypeStruct], Array]


@runtime_checkable
class Rule(Protocol):
    """How an equation is done another way; None where it is not."""

    def __call__(self, walk: "Walk", equation: Equation, items: Sequence[Item]) -> Item | list[Item] | None:
        """What the equation's result is; a list where there are several."""
        ...


@contextmanager
def placed(equation: Equation) -> Generator[None]:
    """What is bound here has the path and the line of that equation."""
    stack = source_info_util.new_name_stack(equation.path)
    with source_info_util.user_context(equation.traceback, name_stack=stack):
        yield


class Walk:
    """One evaluation. provide: gives a parameter by name, with what it is made of and its shape."""

    def __init__(self, provide: Provide, rules: Mapping[str, Rule]) -> None:
        self._provide = provide
        self._rules = rules
        self._items: dict[Variable, Item] = {}
        self._made: dict[tuple[int, int], list[Any]] = {}  # by identity; the value itself comes first

    def run(
        self,
        equations: Sequence[Equation],
        given: Mapping[Variable, Item],
        wanted: Sequence[Variable],
    ) -> list[Any]:
        """The arrays of the wanted variables."""
        self._items.update(given)
        for equation in equations:
            with placed(equation):
                self._items.update(zip(equation.outputs, self._step(equation), strict=True))
        return [self.settled(self._read(variable)) for variable in wanted]

    def parameter(self, weight: Weight, part: Part, shape: tuple[int, ...]) -> Array:
        """A parameter of the contract that is made of the user's: a matrix's codes or exponents, a vector."""
        assert weight.moves is not None
        moves = _after(weight.shape, weight.moves, ("reshape", shape))
        if part == "values" and weight.dtype == F32 and not moves:
            return self._array(weight)
        made = Made(source=weight.path, shape=weight.shape, moves=moves, part=part, stack=weight.stack)
        dtype = {"codes": jnp.uint8, "exponent": jnp.int32, "values": jnp.float32}[part]
        size = shape[-1:] if part == "exponent" else shape
        return self._provide(made, weight.path, jax.ShapeDtypeStruct(size, dtype))

    def multiplied(self, item: StepValue) -> Any:
        """The value times its factor, at the line of the product."""
        assert item.factor is not None
        assert item.line is not None
        factor, line = item.factor, item.line
        with placed(line):
            return self._once(item.value, id(line), lambda value: ops.multiply(value, factor=factor))

    def half(self, value: Any) -> Any:
        """The value in fp16."""
        return value if value.dtype == F16 else self._once(value, 0, ops.round16)

    def _once(self, value: Any, what: int, make: Callable[[Any], Any]) -> Any:
        """What is made of a value, the same array whenever it is asked for."""
        held = self._made.setdefault((id(value), what), [value])
        if len(held) == 1:
            held.append(make(value))
        return held[1]

    def settled(self, item: Item) -> Any:
        """The array as the user sees it."""
        if isinstance(item, Weight):
            value, waits = self._array(item), item.seen
        else:
            value, waits = item.value, item.waits
            if item.factor is not None:
                value = self.multiplied(item)
            if item.loose and item.aval.dtype == F16:
                value = self.half(value)
            elif item.loose and item.aval.dtype != F32:
                value = jax.lax.convert_element_type(value, item.aval.dtype)
            if item.turned is not None:
                value = jax.lax.transpose(value, item.turned)
        for equation in waits:
            with placed(equation):
                value = _bound(equation, [value])[0]
        return value

    def _array(self, weight: Weight) -> Array:
        """The user's own array, or one of a stack of them."""
        made = Made(source=weight.path, shape=weight.shape, stack=weight.stack) if weight.stack else None
        return self._provide(made, weight.path, jax.ShapeDtypeStruct(weight.shape, weight.dtype))

    def _step(self, equation: Equation) -> Sequence[Item]:
        items = [self._read(variable) for variable in equation.inputs]
        name = equation.eqn.primitive.name
        if (rule := self._rules.get(name)) is not None:
            found = rule(self, equation, items)
            if found is not None:
                return found if isinstance(found, list) else [found]
        values = _bound(equation, [self.settled(item) for item in items])
        return [
            StepValue(aval=variable.aval, value=value)
            for variable, value in zip(equation.outputs, values, strict=True)
        ]

    def _read(self, variable: Variable) -> Item:
        if variable not in self._items:
            return StepValue(aval=variable.aval, value=variable.held)
        return self._items[variable]


def _bound(equation: Equation, values: Sequence[Any]) -> list[Any]:
    primitive, params = equation.eqn.primitive, equation.eqn.params
    if op_of(primitive) is None:
        params = primitive.get_bind_params(params)
    out: Any = primitive.bind(*values, **params)
    return list(out) if primitive.multiple_results else [out]


def moved(weight: Weight, equation: Equation, *move: tuple[str, tuple[Any, ...]]) -> Weight:
    """The view of a weight that an equation makes by these moves."""
    moves = weight.moves
    for one in move:
        moves = None if moves is None else _after(weight.shape, moves, one)
    return replace(weight, aval=equation.outputs[0].aval, moves=moves, seen=(*weight.seen, equation))


def unnamed(weight: Weight, equation: Equation) -> Weight:
    """A view that cannot be said in moves."""
    return replace(moved(weight, equation), moves=None)


def _after(shape: tuple[int, ...], moves: Moves, move: tuple[str, tuple[Any, ...]]) -> Moves:
    """Moves and one more; one that changes nothing is left out, reshapes that follow one another are one."""
    name, to = move
    if name == "reshape" and moves and moves[-1][0] == name:
        moves = moves[:-1]
    here = np.broadcast_to(np.int8(0), shape)
    for before in moves:
        here = apply(here, before)
    idle = tuple(range(len(to))) if name == "transpose" else here.shape
    return moves if name != "slice" and to == idle else (*moves, move)
