"""A jaxpr as one list of equations: calls looked into, scans unrolled, and what nobody reads left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

import jax
from jax._src import source_info_util  # the only way to a readable source line of an equation
from jax.extend import core as jex

import models.contract
import models.step
from models.own.user_code import users

_BODIES = ("jaxpr", "call_jaxpr", "call")  # where a call keeps what it calls
_CALLS = (
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call"),
)
_MOST_TURNS = 1024  # of a scan that is unrolled: no model has so many layers
_HOME = Path(__file__).parents[2]
_OUTSIDE = (f"{_HOME}/compiler/graph/", f"{Path(__file__).parent}/", models.step.__file__)  # calls the model
_VOCABULARY = tuple(models.contract.__path__)


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """One array of a list of equations.

    name: of a literal or a constant of the program, else empty; held: its value. parts: the arrays that it is
    a stack of, where that is known.
    """

    aval: Any
    name: str = ""
    held: Any = None
    parts: tuple["Variable", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """One equation; path: its module, traceback: of the user's line, or the model's where there is none."""

    eqn: Any
    inputs: tuple[Variable, ...]
    outputs: tuple[Variable, ...]
    path: str
    traceback: Any

    @property
    def source(self) -> str:
        """The line, as `file:line`."""
        return _line(self.traceback) or "no line"


def flatten(
    closed: Any, inputs: Sequence[Variable], path: str = "", caller: Any = None
) -> tuple[list[Equation], list[Variable]]:
    """The equations of a jaxpr (closed, or without constants) and of all that it calls, and its results.

    caller: the traceback for equations that have no line.
    """
    found: list[Equation] = []
    jaxpr, consts = getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())
    env = dict(zip(jaxpr.invars, inputs, strict=True))
    env |= {var: Variable(var.aval, "const", held) for var, held in zip(jaxpr.constvars, consts, strict=True)}

    def read(var: Any) -> Variable:
        if isinstance(var, jex.Literal):
            return Variable(var.aval, f"literal.{var.val}", var.val)
        return env[var]

    for eqn in jaxpr.eqns:
        taken = tuple(read(var) for var in eqn.invars)
        where, own = _join(path, str(eqn.source_info.name_stack)), eqn.source_info.traceback
        line = own if _line(own) else caller
        if (apart := _apart(eqn, taken)) is not None:
            outputs = apart
        elif eqn.primitive.name in _CALLS:
            inner, outputs = flatten(body_of(eqn), taken, where, line)
            found += inner
        else:
            outputs = [Variable(var.aval, parts=_parts(eqn, taken)) for var in eqn.outvars]
            made = outputs
            if (stacks := _stacks(eqn, taken)) is not None:
                inner, outputs = _unrolled(eqn, taken, stacks, where, line)
                found += inner
                made = [Variable(var.aval) for var in eqn.outvars[: _constants_and_carries(eqn)[1]]]
                made += outputs[len(made) :]
            found.append(Equation(eqn=eqn, inputs=taken, outputs=tuple(made), path=where, traceback=line))
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


def turns_in(closed: Any) -> set[int]:
    """The lengths of all scans of a jaxpr and of what it calls."""
    found = set[int]()
    for eqn in getattr(closed, "jaxpr", closed).eqns:
        scan = eqn.primitive.name == "scan"
        found |= {eqn.params["length"]} if scan else set()
        found |= turns_in(body_of(eqn)) if scan or eqn.primitive.name in _CALLS else set()
    return found


def stack_of(aval: Any, turns: set[int]) -> Variable:
    """An input that may be a stack along its first axis."""
    count = aval.shape[0] if aval.shape else 0
    if not 0 < count <= _MOST_TURNS or (len(aval.shape) == 1 and count not in turns):
        return Variable(aval)
    part = jax.ShapeDtypeStruct(aval.shape[1:], aval.dtype)
    return Variable(aval, parts=tuple(Variable(part) for _ in range(count)))


def _parts(eqn: Any, taken: tuple[Variable, ...]) -> tuple[Variable, ...]:
    """What the result of a stack, or of a slice of one, is a stack of."""
    if eqn.primitive.name == "stack" and eqn.params["axis"] == 0:
        return taken
    if eqn.primitive.name != "slice" or eqn.outvars[0].aval.shape[1:] != taken[0].aval.shape[1:]:
        return ()
    first, last = eqn.params["start_indices"][0], eqn.params["limit_indices"][0]
    return taken[0].parts[first : last : (eqn.params["strides"] or (1,))[0]]


def _apart(eqn: Any, taken: tuple[Variable, ...]) -> list[Variable] | None:
    """The arrays of a stack, where an equation takes all of them out."""
    squeezed = eqn.primitive.name == "squeeze" and eqn.params["dimensions"] == (0,)
    unstacked = eqn.primitive.name == "unstack" and eqn.params["axis"] == 0
    parts = list(taken[0].parts) if squeezed or unstacked else []
    return parts if parts and len(parts) == len(eqn.outvars) else None


def _stacks(eqn: Any, taken: tuple[Variable, ...]) -> tuple[Variable, ...] | None:
    """What a scan goes along, if all of it is stacks of known arrays; None of other equations."""
    if eqn.primitive.name != "scan" or not 1 <= eqn.params["length"] <= _MOST_TURNS:
        return None
    stacks = taken[sum(_constants_and_carries(eqn)) :]
    return stacks if all(stack.parts for stack in stacks) else None


def _unrolled(
    eqn: Any, taken: tuple[Variable, ...], stacks: tuple[Variable, ...], path: str, caller: Any
) -> tuple[list[Equation], list[Variable]]:
    """The equations of all turns of a scan, and its results: what it carries, and stacks."""
    consts, carries = _constants_and_carries(eqn)
    carry, found = list(taken[consts : consts + carries]), list[Equation]()
    given: dict[int, list[Variable]] = {}
    turns = range(eqn.params["length"])
    for i in reversed(turns) if eqn.params["reverse"] else turns:
        inputs = (*taken[:consts], *carry, *(stack.parts[i] for stack in stacks))
        inner, outputs = flatten(body_of(eqn), inputs, _join(path, f"scan.{i}"), caller)
        found += inner
        carry, given[i] = outputs[:carries], outputs[carries:]
    columns = zip(*(given[i] for i in turns), strict=True)
    scanned = zip(eqn.outvars[carries:], columns, strict=False)
    return found, [*carry, *(Variable(var.aval, parts=column) for var, column in scanned)]


def _constants_and_carries(eqn: Any) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many it carries; JAX 0.12 says so by trees."""
    if "num_consts" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    constants, carries, _ = eqn.params["ft_in"].unpack()
    return _leaves(constants), _leaves(carries)


def _leaves(tree: Any) -> int:
    return sum(_leaves(one) for one in tree.elts) if hasattr(tree, "elts") else 1


def body_of(eqn: Any) -> Any:
    """What a call or a scan calls."""
    return next(eqn.params[name] for name in _BODIES if name in eqn.params)


def _join(outer: str, inner: str) -> str:
    inner = inner.replace("/", ".")
    return ".".join(part for part in (outer, inner) if part)


def _line(traceback: Any) -> str:
    """The innermost line of the user, else of the model itself, which called the op vocabulary."""
    frames = source_info_util.user_frames(traceback)
    inside = takewhile(lambda frame: not frame.file_name.startswith(_OUTSIDE), frames)
    lines = [(frame.file_name, frame.start_line) for frame in inside]
    ours = (f"{file}:{line}" for file, line in lines if not file.startswith((*_VOCABULARY, "<")))
    return next(chain(users(lines), ours), "")
