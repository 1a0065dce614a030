"""A user's step in the op vocabulary: plain JAX that the contract has an op for becomes that op.

Calls are looked into, scans over layers unrolled, stacked parameters taken apart (`equations.py`). Products
with a parameter (`nnx.Linear`, `nnx.Einsum`, `x @ w`) become `matmul`, a vector added to them `bias`, `+` of
two f32 values `add`, a constant factor `multiply` or, in a sum, `multiply_add`, casts to fp16 `round16`
(`rules.py`). What remains is left as it is, and capture refuses it at the user's line.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from models.kv import KVCache
from models.own.equations import Equation, Variable, flatten, live, stack_of, turns_in
from models.own.made import Made, Moves
from models.own.rules import RULES
from models.own.walk import Item, Provide, StepValue, Walk, Weight
from models.step import Params, Step, check_names

_SHOWN = 3  # names of a note


def adopt(step: Step) -> Step:
    """The same step in the op vocabulary as far as it can be, with the parameters that it reads."""
    with jax.enable_x64(False):  # as the user knows JAX: `jnp.zeros(3)` is f32
        closed = jax.make_jaxpr(step.fn)(*step.inputs())
    names, turns = sorted(step.params), turns_in(closed)
    leaves = {name: stack_of(step.params[name], turns) for name in names}
    rows = [Variable(var.aval) for var in closed.jaxpr.invars[len(names) : len(names) + 2]]
    caches = [stack_of(leaf, turns) for leaf in jax.tree.leaves(step.cache)]
    equations, (logits, token, *written) = flatten(closed, [*leaves.values(), *rows, *caches])
    tree = _caches(step, caches, written, live(equations, (logits, token)))
    wanted = [logits, token, *jax.tree.leaves(tree.given)]
    equations = live(equations, wanted)
    weights = _weights(leaves, equations, step.constants)
    others = [*rows, *jax.tree.leaves(tree.taken)]

    def evaluated(provide: Provide, arguments: Sequence[Any]) -> Any:
        given: dict[Variable, Item] = dict(weights)
        for variable, value in zip(others, jax.tree.leaves(arguments), strict=True):
            given[variable] = StepValue(aval=variable.aval, value=value)
        logits, token, *written = Walk(provide, RULES).run(equations, given, wanted)
        return logits, token, jax.tree.unflatten(jax.tree.structure(tree.given), written)

    asked: dict[str, tuple[Made | None, jax.ShapeDtypeStruct]] = {}
    paths = _Paths()

    def ask(made: Made | None, path: str, shape: jax.ShapeDtypeStruct) -> Array:
        asked[paths.of(made, path)] = made, shape
        return jnp.zeros(shape.shape, shape.dtype)

    cache: Any = jax.tree.map(_shape, tree.taken)
    jax.eval_shape(lambda *arguments: evaluated(ask, arguments), *step.inputs()[1:3], cache)

    def fn(params: Params, tokens: Array, position: Array, cache: KVCache) -> Any:
        check_names(params, asked)
        return evaluated(lambda made, path, _: params[paths.of(made, path)], (tokens, position, cache))

    made = _alone({name: one for name, (one, _) in asked.items() if one}, asked)
    return replace(
        step,
        fn=fn,
        params={name: shape for name, (_, shape) in sorted(asked.items())},
        cache=cache,
        constants=_constants(step.constants, asked, made),
        plain_constants=_constants(step.plain_constants, asked, made),
        made=made,
        notes=_notes(made),
    )


class _Caches(NamedTuple):
    """The caches that a step takes and gives, as trees of variables of one structure."""

    taken: Any
    given: Any


def _caches(
    step: Step, taken: Sequence[Variable], given: Sequence[Variable], equations: Sequence[Equation]
) -> _Caches:
    """The caches, those that only layers of a scan take taken apart. equations: what the results need."""
    read = {variable for equation in equations for variable in equation.inputs}
    apart = [len(a.parts) == len(b.parts) > 0 and a not in read for a, b in zip(taken, given, strict=True)]
    tree = jax.tree.structure(step.cache)
    cut = [
        tree.unflatten(one.parts if split else one for one, split in zip(leaves, apart, strict=True))
        for leaves in (taken, given)
    ]
    return _Caches(*cut)


def _shape(variable: Variable) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)


class _Paths:
    """Names of parameters: the user's own, and what is done to an array before it is quantised."""

    def __init__(self) -> None:
        self._views: dict[str, list[Moves]] = defaultdict(list)

    def of(self, made: Made | None, path: str) -> str:
        if made is None or (made.part == "values" and not made.moves and made.stack):
            return path
        if made.part == "values":
            return f"{path}.vector.bias"
        if made.moves == (("transpose", (1, 0)),):
            return f"{path}.T.{made.part}"
        views = self._views[path]
        if made.moves and made.moves not in views:
            views.append(made.moves)
        view = f".view{views.index(made.moves) + 1}" if made.moves else ""
        return f"{path}{view}.{made.part}"


def _weights(
    leaves: Mapping[str, Variable], equations: Iterable[Equation], constants: Mapping[str, Any]
) -> dict[Variable, Weight]:
    """The parameters and the arrays that they are stacks of, by the names that they get."""
    read = {variable for equation in equations for variable in equation.inputs}
    stacked = {
        name: len(leaf.parts)
        for name, leaf in leaves.items()
        if leaf not in read and not read.isdisjoint(leaf.parts)
    }
    whole = [name for name, leaf in leaves.items() if leaf in read]
    found: dict[Variable, Weight] = {}
    for name, leaf in leaves.items():
        moves: Moves | None = None if name in constants else ()
        aval = leaf.aval
        found[leaf] = Weight(aval=aval, path=name, shape=aval.shape, dtype=aval.dtype, moves=moves)
        if name not in stacked and read.isdisjoint(leaf.parts):
            continue
        start = _stack(name, stacked, whole)
        for i, part in enumerate(leaf.parts):
            found[part] = Weight(
                aval=part.aval,
                path=f"{start}.{i}{name.removeprefix(start)}",
                shape=part.aval.shape,
                dtype=part.aval.dtype,
                moves=moves,
                stack=(name, i),
            )
    return found


def _stack(name: str, stacked: Mapping[str, int], whole: Sequence[str]) -> str:
    """The shortest part of a path of which all that is read is stacked, to the same length."""
    words = name.split(".")
    for count in range(1, len(words)):
        start = ".".join(words[:count])
        inside = [n for one, n in stacked.items() if one.startswith(f"{start}.")]
        if len(set(inside)) == 1 and not any(one.startswith(f"{start}.") for one in whole):
            return start
    return name


def _alone(made: Mapping[str, Made], asked: Iterable[str]) -> dict[str, Made]:
    """The same, each knowing whether it is all that is made of its array."""
    views: dict[str, set[Moves]] = defaultdict(set)
    for one in made.values():
        views[one.source].add(one.moves)
    read = set(asked)
    return {
        name: replace(one, alone=len(views[one.source]) == 1 and one.source not in read - {name})
        for name, one in made.items()
    }


def _constants(held: Mapping[str, Any], asked: Iterable[str], made: Mapping[str, Made]) -> dict[str, Any]:
    """The constants by the names of the parameters, those of stacks taken apart."""
    stacks = {name: made[name].stack for name in asked if name in made}
    apart = {name: held[of[0]][of[1]] for name, of in stacks.items() if of and of[0] in held}
    return {name: held[name] for name in asked if name in held} | apart


def _notes(made: Mapping[str, Made]) -> tuple[str, ...]:
    """One line on the matrices of plain JAX."""
    names = [name.removesuffix(".codes") for name, one in made.items() if one.part == "codes"]
    if not names:
        return ()
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return (
        f"model: plain JAX products with {shown} are matmuls of the contract: weights are quantised to e4m3 "
        "with a power-of-two scale per column, activations rounded to fp16, results f32.",
    )
