"""The GPUs' share of a divided step: the pieces of its jaxpr between the hops to another machine.

A hop is a run of vocabulary ops that the other machine computes: one value goes there, one comes back. What
is left is cut where a value comes back, and each piece is jitted; pieces that differ in names only share one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
from jax.extend import core as jex

from models.contract.ops import op_of
from models.kv import KVCache
from models.step import Params, Step

Hop = Callable[[int, Array], Array]
"""(number of the hop, what goes there [rows, width]) -> what comes back [rows, width]."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Equations in a row: the variables that they read, those that they leave, and the jitted function."""

    reads: tuple[Any, ...]
    leaves: tuple[Any, ...]
    run: Callable[..., list[Array]]

    def take(self, env: dict[Any, Any]) -> None:
        """Add what the equations leave to the values by variable."""
        env.update(zip(self.leaves, self.run(*(env[var] for var in self.reads)), strict=True))


class GpuPieces:
    """A step without its hops: `step(params, tokens, position, cache, hop)` returns what the step does.

    hops: of each the numbers of its ops, counted over the vocabulary ops of the step as the compiler's graph
    does. Raises ValueError if more than one value goes to a hop or comes back.
    """

    def __init__(self, step: Step, hops: Sequence[Sequence[int]]) -> None:
        with jax.disable_jit():
            closed = jax.make_jaxpr(step.fn)(*step.inputs())
        jaxpr = closed.jaxpr
        self._tree = jax.tree.structure(step.cache)
        self._names = sorted(step.params)
        self._inputs, self._outputs = tuple(jaxpr.invars), tuple(jaxpr.outvars)
        self._consts = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        here, away = _divided(jaxpr.eqns, hops)
        held = {id(var) for var in (*jaxpr.invars, *jaxpr.constvars)}
        ends = [_ends(number, eqns, jaxpr, held) for number, eqns in enumerate(away)]
        self._down, self._up = [down for down, _ in ends], [up for _, up in ends]
        known: dict[str, Callable[..., list[Array]]] = {}
        self._away = [_piece(eqns, {id(up)}, known) for eqns, up in zip(away, self._up, strict=True)]
        later = set(map(id, (*jaxpr.outvars, *self._down)))
        pieces: list[_Piece] = []
        for eqns in reversed(here):
            pieces.append(_piece(eqns, later, known))
            later |= set(map(id, pieces[-1].reads))
        self._here = pieces[::-1]

    def step(
        self, params: Params, tokens: Any, position: Any, cache: KVCache, hop: Hop
    ) -> tuple[Array, Array, KVCache]:
        """(logits, token, cache) of one step."""
        values = [*(params[name] for name in self._names), tokens, position, *jax.tree.leaves(cache)]
        env: dict[Any, Any] = dict(zip(self._inputs, values, strict=True)) | self._consts
        self._here[0].take(env)
        for number, piece in enumerate(self._here[1:]):
            env[self._up[number]] = hop(number, env[self._down[number]])
            piece.take(env)
        logits, token, *leaves = (env[var] for var in self._outputs)
        return logits, token, jax.tree.unflatten(self._tree, leaves)

    def local(self, params: Params) -> Hop:
        """The hops computed here under the contract: what the other machine must give, bit for bit."""
        held: dict[Any, Any] = dict(zip(self._inputs, (params[name] for name in self._names), strict=False))

        def hop(number: int, value: Array) -> Array:
            env = held | self._consts | {self._down[number]: value}
            self._away[number].take(env)
            return env[self._up[number]]

        return hop


def _divided(eqns: Sequence[Any], hops: Sequence[Sequence[int]]) -> tuple[list[list[Any]], list[list[Any]]]:
    """(equations before, between and after the hops; those of each hop).

    An equation that only changes the shape of what a hop makes, before its last op, belongs to the hop.
    """
    of_node = {node: number for number, nodes in enumerate(hops) for node in nodes}
    here: list[list[Any]] = [[]]
    away: list[list[Any]] = [[] for _ in hops]
    left = [len(nodes) for nodes in hops]
    made: set[int] = set()
    node, now = 0, -1
    for eqn in eqns:
        if op_of(eqn.primitive) is not None:
            hop, node = of_node.get(node, -1), node + 1
        else:
            hop = now if any(id(var) in made for var in eqn.invars) else -1
        if hop < 0:
            here[-1].append(eqn)
            continue
        now = hop
        away[hop].append(eqn)
        made |= set(map(id, eqn.outvars))
        left[hop] -= op_of(eqn.primitive) is not None
        if not left[hop]:
            here.append([])
            made.clear()
    return here, away


def _ends(number: int, eqns: Sequence[Any], jaxpr: Any, held: set[int]) -> tuple[Any, Any]:
    """The variable that goes to a hop and the one that comes back; parameters (`held`) are there already."""
    made = {id(var) for eqn in eqns for var in eqn.outvars}
    down = {id(var): var for var in _read(eqns) if id(var) not in made | held}
    inside = set(map(id, eqns))
    others = _read([eqn for eqn in jaxpr.eqns if id(eqn) not in inside])
    up = {id(var): var for var in (*others, *jaxpr.outvars) if id(var) in made}
    if len(down) != 1 or len(up) != 1:
        raise ValueError(f"hop {number}: {len(down)} values go there and {len(up)} come back, one each can.")
    return next(iter(down.values())), next(iter(up.values()))


def _read(eqns: Sequence[Any]) -> list[Any]:
    return [var for eqn in eqns for var in eqn.invars if not isinstance(var, jex.Literal)]


def _piece(eqns: Sequence[Any], later: set[int], known: dict[str, Callable[..., list[Array]]]) -> _Piece:
    """Jitted equations that leave what is read `later`; equal ones are compiled once."""
    made = {id(var) for eqn in eqns for var in eqn.outvars}
    reads = tuple({id(var): var for var in _read(eqns) if id(var) not in made}.values())
    leaves = tuple(var for eqn in eqns for var in eqn.outvars if id(var) in later)
    text = _text(eqns, reads, leaves)
    if text not in known:
        known[text] = jax.jit(partial(_evaluate, tuple(eqns), reads, leaves))
    return _Piece(reads, leaves, known[text])


def _text(eqns: Sequence[Any], reads: Sequence[Any], leaves: Sequence[Any]) -> str:
    """What equations compute, with variables numbered in order of appearance."""
    numbers: dict[int, int] = {}

    def name(var: Any) -> str:
        if isinstance(var, jex.Literal):
            return f"{var.val}:{var.aval}"
        return f"{numbers.setdefault(id(var), len(numbers))}:{var.aval}"

    lines = [" ".join(map(name, reads))]
    for eqn in eqns:
        stated = sorted((key, str(value)) for key, value in eqn.params.items())
        words = [*map(name, eqn.invars), eqn.primitive.name, str(stated), *map(name, eqn.outvars)]
        lines.append(" ".join(words))
    return "\n".join([*lines, " ".join(map(name, leaves))])


def _evaluate(
    eqns: Sequence[Any], reads: Sequence[Any], leaves: Sequence[Any], *values: Array
) -> list[Array]:
    env: dict[Any, Any] = dict(zip(reads, values, strict=True))
    for eqn in eqns:
        operands = [var.val if isinstance(var, jex.Literal) else env[var] for var in eqn.invars]
        found = eqn.primitive.bind(*operands, **eqn.params)
        env.update(zip(eqn.outvars, found if eqn.primitive.multiple_results else [found], strict=True))
    return [env[var] for var in leaves]
