"""Capture: a Flax/JAX decode step -> jaxpr -> Graph.

Calls are looked into and what nobody reads is dropped (`models/own/equations.py`). Accepted equations are
the ops of the registry (`models.contract.ops.OPS`) and shape-only primitives; anything else is an
`UnsupportedOpError` that names the primitive, the source line and the module path.
"""

from collections.abc import Callable
from typing import Any

import jax

from compiler.errors import CompileError, UnsupportedOpError
from compiler.graph.graph import Graph, Node, Value, View, width
from models.contract.ops import op_of
from models.own.equations import Equation, Variable, flatten, live

_VIEWS = (
    *("reshape", "squeeze", "expand_dims", "copy", "copy_p", "name"),
    *("stop_gradient", "optimization_barrier", "sharding_constraint"),
)


def capture(
    step: Callable[..., Any], params: dict[str, Any], tokens: Any, position: Any, cache: Any
) -> Graph:
    """Trace `step(params, tokens, position, cache) -> (logits, token, cache)` by shapes alone.

    Args:
        step: the decode step, pure.
        params: flat weights by path, as shapes.
        tokens: int32 [batch] shape.
        position: int32 [batch] shape.
        cache: pytree of KV shapes.
    """
    closed = jax.make_jaxpr(step)(params, tokens, position, cache)
    names: list[tuple[str, str]] = [("param", name) for name in sorted(params)]
    names += [("token", "token"), ("position", "position")]
    names += [("cache", f"cache.{i}") for i in range(len(jax.tree.leaves(cache)))]
    inputs = [Variable(var.aval) for var in closed.jaxpr.invars]
    equations, (logits, token, *caches) = flatten(closed, inputs)
    equations = live(equations, (logits, token))
    _check_caches(equations, inputs[len(inputs) - len(caches) :], caches)
    walker = _Walker()
    for (kind, name), variable in zip(names, inputs, strict=True):
        walker.views[variable] = walker.value(kind, name, variable.aval)
    for equation in equations:
        walker.walk(equation)
    return Graph(
        values=tuple(walker.values),
        nodes=tuple(walker.nodes),
        logits=walker.view(logits),
        token=walker.view(token),
        batch=int(tokens.shape[0]),
    )


def _check_caches(equations: list[Equation], taken: list[Variable], given: list[Variable]) -> None:
    """Raise CompileError unless each cache that an op wrote comes back in the place of the one it took."""
    for equation in equations:
        if op_of(equation.eqn.primitive) is None:
            continue
        places = [taken.index(variable) for variable in equation.inputs if variable in taken]
        for place, written in zip(
            places, equation.outputs[len(equation.outputs) - len(places) :], strict=True
        ):
            if given[place] is not written:
                raise CompileError(
                    "capture",
                    f"cache leaf {place}",
                    f"the step does not return what is written into it at {equation.source}",
                    "Return each cache that attention gives in the place of the one that it took.",
                )


class _Walker:
    """Walks equations; every variable becomes a View of a Value."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.nodes: list[Node] = []
        self.views: dict[Variable, View] = {}

    def value(self, kind: str, name: str, aval: Any) -> View:
        index = len(self.values)
        self.values.append(
            Value(index=index, kind=kind, name=name, shape=tuple(aval.shape), dtype=str(aval.dtype))
        )
        return View(value=index, start=0, width=width(self.values[index]))

    def view(self, variable: Variable) -> View:
        if variable not in self.views:
            name = f"const.{len(self.values)}" if variable.name == "const" else variable.name
            self.views[variable] = self.value("param", name, variable.aval)
        return self.views[variable]

    def walk(self, equation: Equation) -> None:
        inputs = [self.view(variable) for variable in equation.inputs]
        outs = self._views(equation, inputs)
        self.views.update(zip(equation.outputs, outs, strict=True))

    def _views(self, equation: Equation, inputs: list[View]) -> list[View]:
        eqn = equation.eqn
        name = eqn.primitive.name
        if (record := op_of(eqn.primitive)) is not None:
            outs = [self.value("node", "", variable.aval) for variable in equation.outputs]
            self.nodes.append(
                Node(
                    index=len(self.nodes),
                    op=record.name,
                    inputs=tuple(inputs),
                    outputs=tuple(view.value for view in outs),
                    attributes=dict(eqn.params),
                    path=equation.path,
                    source=equation.source,
                )
            )
            return outs
        if name in _VIEWS and _keeps_batch(eqn):
            return inputs[: len(equation.outputs)]
        if name == "broadcast_in_dim" and _size(eqn.invars[0]) == _size(eqn.outvars[0]) and _keeps_batch(eqn):
            return inputs[:1]
        if name == "split" and eqn.params["axis"] == 1:
            return _pieces(eqn, inputs[0])
        if name == "slice" and (piece := _features(eqn, inputs[0])) is not None:
            return [piece]
        raise UnsupportedOpError(
            "capture",
            f"primitive '{name}' at {equation.source}"
            + (f" in module '{equation.path}'" if equation.path else ""),
            "is neither an op nor a change of shape that keeps the batch axis",
            "Write it with the ops of models.contract.ops; docs/modules.md lists them.",
        )


def _size(var: Any) -> int:
    size = 1
    for extent in var.aval.shape:
        size *= extent
    return size


def _keeps_batch(eqn: Any) -> bool:
    """Whether the leading (batch) axis is untouched, so that only the features are regrouped."""
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    return bool(before) and bool(after) and before[0] == after[0]


def _pieces(eqn: Any, view: View) -> list[View]:
    """The features cut along their first axis, as views one after another."""
    widths = [_size(var) // var.aval.shape[0] for var in eqn.outvars]
    starts = [view.start + sum(widths[:i]) for i in range(len(widths))]
    return [
        View(value=view.value, start=start, width=width) for start, width in zip(starts, widths, strict=True)
    ]


def _features(eqn: Any, view: View) -> View | None:
    """A slice of the features as a view: full batch, and one contiguous run of the flattened rest."""
    shape = eqn.invars[0].aval.shape
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    if any(step != 1 for step in eqn.params["strides"] or ()) or starts[0] or limits[0] != shape[0]:
        return None
    inner = 1
    for extent in shape[2:]:
        inner *= extent
    if len(shape) < 2 or any(starts[2:]) or tuple(limits[2:]) != tuple(shape[2:]):
        return None
    return View(value=view.value, start=view.start + starts[1] * inner, width=(limits[1] - starts[1]) * inner)
