"""A jaxpr as one list of equations: calls looked into, scans unrolled, and what nobody reads left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

from jax._src import source_info_util  # the only way to a readable source line of an equation
from jax.extend import core as jex

import models.contract
import models.step
from models.user_code import users

_BODIES = ("jaxpr", "call_jaxpr", "call")  # where a call keeps what it calls
_CALLS = (
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call"),
)
_MOST_TURNS = 1024  # of a scan that is unrolled: no model has so many layers
_OUTSIDE = (f"{Path(__file__).parent}/", models.step.__file__)  # what calls the model
_VOCABULARY = tuple(models.contract.__path__)


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """One array of a list of equations.

    name: of a literal or a constant of the program, else empty. parts: the arrays that it is a stack of,
    where that is known.
    """

    aval: Any
    name: str = ""
    parts: tuple["Variable", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """One equation; path: its module, source: the user's line, or the model's where there is none."""

    eqn: Any
    inputs: tuple[Variable, ...]
    outputs: tuple[Variable, ...]
    path: str
    source: str


def flatten(
    jaxpr: Any, inputs: Sequence[Variable], path: str = "", source: str = ""
) -> tuple[list[Equation], list[Variable]]:
    """The equations of a jaxpr and of all that it calls, in order, and its results."""
    found: list[Equation] = []
    env = dict(zip(jaxpr.invars, inputs, strict=True))
    env |= {var: Variable(var.aval, "const") for var in jaxpr.constvars}

    def read(var: Any) -> Variable:
        return Variable(var.aval, f"literal.{var.val}") if isinstance(var, jex.Literal) else env[var]

    for eqn in jaxpr.eqns:
        taken = tuple(read(var) for var in eqn.invars)
        where, line = _join(path, str(eqn.source_info.name_stack)), _line(eqn) or source
        if (part := _part(eqn, taken)) is not None:
            outputs = [part]
        elif eqn.primitive.name in _CALLS:
            inner, outputs = flatten(_body(eqn), taken, where, line)
            found += inner
        else:
            outputs = [Variable(var.aval, parts=_parts(eqn, taken)) for var in eqn.outvars]
            made = outputs
            if (stacks := _stacks(eqn, taken)) is not None:
                inner, outputs = _unrolled(eqn, taken, stacks, where, line)
                found += inner
                made = [Variable(var.aval) for var in eqn.outvars[: eqn.params["num_carry"]]]
                made += outputs[len(made) :]
            found.append(
                Equation(eqn=eqn, inputs=taken, outputs=tuple(made), path=where, source=line or "no line")
            )
        env.update(zip(eqn.outvars, outputs, strict=True))
    return found, [read(var) for var in jaxpr.outvars]


def live(equations: Sequence[Equation], wanted: Sequence[Variable]) -> list[Equation]:
    """The equations that something wanted depends on, or that do more than compute (print, write)."""
    read, kept = set(wanted), list[Equation]()
    for equation in reversed(equations):
        if equation.eqn.effects or not read.isdisjoint(equation.outputs):
            read.update(equation.inputs)
            kept.append(equation)
    return kept[::-1]


def _parts(eqn: Any, taken: tuple[Variable, ...]) -> tuple[Variable, ...]:
    """What the result of a stack, or of a slice of one, is a stack of."""
    if eqn.primitive.name == "stack" and eqn.params["axis"] == 0:
        return taken
    if eqn.primitive.name != "slice" or eqn.outvars[0].aval.shape[1:] != taken[0].aval.shape[1:]:
        return ()
    first, last = eqn.params["start_indices"][0], eqn.params["limit_indices"][0]
    return taken[0].parts[first : last : (eqn.params["strides"] or (1,))[0]]


def _part(eqn: Any, taken: tuple[Variable, ...]) -> Variable | None:
    """The one array of a stack of one, where an equation takes it out."""
    squeezed = eqn.primitive.name == "squeeze" and eqn.params["dimensions"] == (0,)
    return taken[0].parts[0] if squeezed and len(taken[0].parts) == 1 else None


def _stacks(eqn: Any, taken: tuple[Variable, ...]) -> tuple[Variable, ...] | None:
    """What a scan goes along, if all of it is stacks of known arrays; None of other equations."""
    if eqn.primitive.name != "scan" or not 1 <= eqn.params["length"] <= _MOST_TURNS:
        return None
    stacks = taken[eqn.params["num_consts"] + eqn.params["num_carry"] :]
    return stacks if all(stack.parts for stack in stacks) else None


def _unrolled(
    eqn: Any, taken: tuple[Variable, ...], stacks: tuple[Variable, ...], path: str, source: str
) -> tuple[list[Equation], list[Variable]]:
    """The equations of all turns of a scan, and its results: what it carries, and stacks."""
    consts, carries = eqn.params["num_consts"], eqn.params["num_carry"]
    carry, found = list(taken[consts : consts + carries]), list[Equation]()
    given: dict[int, list[Variable]] = {}
    turns = range(eqn.params["length"])
    for i in reversed(turns) if eqn.params["reverse"] else turns:
        inputs = (*taken[:consts], *carry, *(stack.parts[i] for stack in stacks))
        inner, outputs = flatten(_body(eqn), inputs, _join(path, f"scan.{i}"), source)
        found += inner
        carry, given[i] = outputs[:carries], outputs[carries:]
    columns = zip(*(given[i] for i in turns), strict=True)
    scanned = zip(eqn.outvars[carries:], columns, strict=False)
    return found, [*carry, *(Variable(var.aval, parts=column) for var, column in scanned)]


def _body(eqn: Any) -> Any:
    inner = next(eqn.params[name] for name in _BODIES if name in eqn.params)
    return getattr(inner, "jaxpr", inner)


def _join(outer: str, inner: str) -> str:
    inner = inner.replace("/", ".")
    return ".".join(part for part in (outer, inner) if part)


def _line(eqn: Any) -> str:
    """The innermost line of the user, else of the model itself, which called the op vocabulary."""
    frames = source_info_util.user_frames(eqn.source_info.traceback)
    inside = takewhile(lambda frame: not frame.file_name.startswith(_OUTSIDE), frames)
    lines = [(frame.file_name, frame.start_line) for frame in inside]
    ours = (f"{file}:{line}" for file, line in lines if not file.startswith((*_VOCABULARY, "<")))
    return next(chain(users(lines), ours), "")
