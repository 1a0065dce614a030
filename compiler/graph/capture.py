"""Capture: a Flax/JAX decode step -> jaxpr -> Graph.

Accepted equations are the ops of the registry (`models.contract.ops.OPS`) and shape-only primitives;
anything else is an `UnsupportedOpError` that names the primitive, the source line and the module path.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jaxtyping
from jax._src import source_info_util  # the only way to a readable source line of an equation
from jax.extend import core as jex

import models.contract
from compiler.errors import UnsupportedOpError
from compiler.graph.graph import Graph, Node, Value, View, width
from models.contract.ops import OPS, op_of

_VIEWS = ("reshape", "squeeze", "expand_dims", "copy", "stop_gradient", "optimization_barrier")
_NO_MODEL = (*models.contract.__path__, *jaxtyping.__path__, "<")  # whose lines are not the user's
_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "remat", "checkpoint")


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
    walker = _Walker()
    views = [
        walker.value(kind, name, var.aval)
        for (kind, name), var in zip(names, closed.jaxpr.invars, strict=True)
    ]
    outs = walker.walk(closed.jaxpr, closed.consts, views, "")
    return Graph(
        values=tuple(walker.values),
        nodes=tuple(walker.nodes),
        logits=outs[0],
        token=outs[1],
        batch=int(tokens.shape[0]),
    )


class _Walker:
    """Walks jaxprs, inlining calls; every variable becomes a View of a Value."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.nodes: list[Node] = []

    def value(self, kind: str, name: str, aval: Any) -> View:
        index = len(self.values)
        self.values.append(
            Value(index=index, kind=kind, name=name, shape=tuple(aval.shape), dtype=str(aval.dtype))
        )
        return View(value=index, start=0, width=width(self.values[index]))

    def walk(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[View], path: str) -> list[View]:
        env: dict[Any, View] = dict(zip(jaxpr.invars, inputs, strict=True))
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            env[var] = self.value("param", f"const.{len(self.values)}", const)
        for eqn in jaxpr.eqns:
            outs = self._equation(eqn, [self._read(env, var, eqn, path) for var in eqn.invars], path)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [self._read(env, var, None, path) for var in jaxpr.outvars]

    def _read(self, env: dict[Any, View], var: Any, eqn: Any, path: str) -> View:
        if isinstance(var, jex.Literal):
            return self.value("param", f"literal.{var.val}", var.aval)
        return env[var]

    def _equation(self, eqn: Any, inputs: list[View], path: str) -> list[View]:
        name = eqn.primitive.name
        path = _join(path, str(eqn.source_info.name_stack))
        if (record := op_of(eqn.primitive)) is not None:
            outs = [self.value("node", "", var.aval) for var in eqn.outvars]
            self.nodes.append(
                Node(
                    index=len(self.nodes),
                    op=record.name,
                    inputs=tuple(inputs),
                    outputs=tuple(view.value for view in outs),
                    attributes=dict(eqn.params),
                    path=path,
                    source=_source(eqn),
                )
            )
            return outs
        if name in _CALLS:
            inner = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
            jaxpr, consts = (inner.jaxpr, inner.consts) if hasattr(inner, "jaxpr") else (inner, ())
            return self.walk(jaxpr, consts, inputs, path)
        if name in _VIEWS and _keeps_batch(eqn):
            return inputs[:1]
        if name == "broadcast_in_dim" and _size(eqn.invars[0]) == _size(eqn.outvars[0]) and _keeps_batch(eqn):
            return inputs[:1]
        if name == "slice" and (piece := _features(eqn, inputs[0])) is not None:
            return [piece]
        raise UnsupportedOpError(
            "capture",
            f"primitive '{name}' at {_source(eqn)}" + (f" in module '{path}'" if path else ""),
            "it is neither an op of the vocabulary nor a shape-only change that keeps the batch axis",
            f"Write it with models.contract.ops ({', '.join(OPS)}).",
        )


def _join(outer: str, inner: str) -> str:
    inner = inner.replace("/", ".")
    return ".".join(part for part in (outer, inner) if part)


def _size(var: Any) -> int:
    size = 1
    for extent in var.aval.shape:
        size *= extent
    return size


def _keeps_batch(eqn: Any) -> bool:
    """Whether the leading (batch) axis is untouched, so that only the features are regrouped."""
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    return bool(before) and bool(after) and before[0] == after[0]


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


def _source(eqn: Any) -> str:
    """The innermost line of the model itself, which called the op vocabulary."""
    frames = source_info_util.user_frames(eqn.source_info.traceback)
    frame = next((frame for frame in frames if not frame.file_name.startswith(_NO_MODEL)), None)
    return f"{frame.file_name}:{frame.start_line}" if frame is not None else "an unknown line"
