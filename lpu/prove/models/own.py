"""A module of the user's own, read from the jaxpr of its step: a second, small interpreter of the ops.

It is walked equation by equation and shares nothing with how the compiler captures it. What no result reads
is not looked at. A value is a term per row; a change of shape that keeps the rows keeps it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

from lpu.prove.models.own_experts import RULES
from lpu.prove.models.record import ModelTerms, Reader
from lpu.prove.refused import RefusedError, need
from lpu.prove.terms import BIAS, MATMUL, Scoring, Terms

SAID = "the jaxpr of the module"
_OWN = "lpu_"
_SHAPES = (
    *("reshape", "squeeze", "expand_dims", "broadcast_in_dim", "copy", "copy_p", "name"),
    *("stop_gradient", "optimization_barrier", "sharding_constraint"),
)
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


@dataclass(frozen=True, slots=True)
class _Given:
    """An argument of the step that is no tensor: "token", "position" or "cache", with its number."""

    kind: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class _Value:
    """A term in every row of the step, and the shape in which the module sees it."""

    term: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A parameter by its path."""

    term: int


@dataclass(frozen=True, slots=True)
class _Largest:
    """The index of the largest number of a value, in every row."""

    term: int


@dataclass(frozen=True, slots=True)
class _Written:
    """A cache after attention has appended a value to it."""

    cache: int


@dataclass(frozen=True, slots=True)
class _Unread:
    """What the proof cannot say, and why; only a refusal if a result takes it."""

    why: str


_Item = _Given | _Value | _Tensor | _Largest | _Written | _Unread


def reader_of_module(closed: Any, names: Sequence[str], caches: Sequence[int]) -> Reader:
    """The reader of one module.

    closed: jaxpr of `step(params, tokens, position, cache) -> (logits, token, cache)` in the contract's ops.
    names: paths of the parameters in its order. caches: of each leaf of the cache, 0 for keys, 1 for values.
    """

    def read(terms: Terms, numbers: Any, longest: int, kv: str) -> ModelTerms:
        return _Walk(terms, kv, tuple(caches)).step(closed, names)

    return read


@dataclass(slots=True)
class _Walk:
    terms: Terms
    kv: str
    caches: tuple[int, ...]
    out: ModelTerms = field(default_factory=ModelTerms)
    rows: int = 0

    def step(self, closed: Any, names: Sequence[str]) -> ModelTerms:
        """Token to logits."""
        avals = [var.aval for var in closed.jaxpr.invars]
        need(len(avals) == len(names) + 2 + len(self.caches), "the module's jaxpr takes other arguments")
        self.rows = int(avals[len(names)].shape[0])
        given: list[_Item] = []
        for name, aval in zip(names, avals, strict=False):
            self.out.tensors[name] = self.terms.tensor(name, tuple(aval.shape))
            given.append(_Tensor(self.out.tensors[name]))
        caches = [_Given("cache", i) for i in range(len(self.caches))]
        given += [_Given("token"), _Given("position"), *caches]
        logits, token, *left = self.body(closed.jaxpr, given)
        self.out.logits = self.value(logits, "the logits").term
        self.out.places[self.out.logits] = "logits"
        need(token == _Largest(self.out.logits), f"the module's token is not the largest logit{_why(token)}")
        for index, item in enumerate(left):
            given_back = item in (_Given("cache", index), _Written(index))
            need(given_back, f"the module does not give back its cache {index}{_why(item)}")
        return self.out

    def body(self, jaxpr: Any, given: Sequence[_Item]) -> list[_Item]:
        """The results of a jaxpr for these arguments."""
        held: dict[Any, _Item] = dict(zip(jaxpr.invars, given, strict=True))
        held |= {var: _Unread("a constant of the module") for var in jaxpr.constvars}

        def item(var: Any) -> _Item:
            return _Unread("a number of the module") if hasattr(var, "val") else held[var]

        for eqn in jaxpr.eqns:
            found = self.equation(eqn, [item(var) for var in eqn.invars])
            held.update(zip(eqn.outvars, found, strict=True))
        return [item(var) for var in jaxpr.outvars]

    def equation(self, eqn: Any, items: list[_Item]) -> list[_Item]:
        """What an equation makes; where no rule says so, something that no result may take."""
        name, where = eqn.primitive.name, str(eqn.source_info.name_stack)
        try:
            if name in _OPS:
                made = _OPS[name](self, items, dict(eqn.params))
                for one in made:
                    if isinstance(one, _Value):
                        self.out.places.setdefault(one.term, where or name)
                return made
            if name in _SHAPES:
                return [self._reshaped(items[0], tuple(eqn.outvars[0].aval.shape))]
            if name in ("split", "slice"):
                return self._parts(name, eqn, self.value(items[0], "what is cut"))
            inner = next((eqn.params[one] for one in _BODIES if one in eqn.params), None)
            if inner is not None and name not in ("scan", "while", "cond"):
                body = getattr(inner, "jaxpr", inner)
                return self.body(body, items[-len(body.invars) :])
            why = f"{name} is no op of the contract"
            if name.startswith(_OWN):
                why = f"no rule reads {name}. Register one in lpu.prove.models.own"
        except RefusedError as refused:
            why = refused.reason
        return [_Unread(f"{where or 'the step'}: {why}") for _ in eqn.outvars]

    def _reshaped(self, item: _Item, shape: tuple[int, ...]) -> _Item:
        value = self.value(item, "what is reshaped")
        kept = bool(shape) and shape[0] == value.shape[0] == self.rows and prod(shape) == prod(value.shape)
        need(kept, f"{value.shape} becomes {shape}: the rows of the step are mixed")
        return _Value(value.term, shape)

    def _parts(self, name: str, eqn: Any, value: _Value) -> list[_Item]:
        """Parts of the columns of a product: products with parts of its matrix."""
        shapes = [tuple(var.aval.shape) for var in eqn.outvars]
        if name == "split":
            starts = [sum(shape[1] for shape in shapes[:i]) for i in range(len(shapes))]
            need(eqn.params["axis"] == 1, "is cut along another axis than the first of its features")
        else:
            first, strides = eqn.params["start_indices"], eqn.params["strides"] or (1,)
            starts = [first[1] if len(first) > 1 else 0]
            need(first[0] == 0 and set(strides) == {1} and not any(first[2:]), "is no run of features")
        inner = prod(value.shape[2:])
        kept = all(shape[:1] == (self.rows,) and shape[2:] == value.shape[2:] for shape in shapes)
        need(kept and len(value.shape) > 1, "is cut across the rows of the step, or no run of features")
        pairs = zip(starts, shapes, strict=True)
        return [_Value(self._part(value.term, at * inner, prod(to[1:])), to) for at, to in pairs]

    def _part(self, term: int, start: int, count: int) -> int:
        made = self.terms.all[term]
        need(made.op in (MATMUL, BIAS), f"only products with a matrix are cut, not {made.op}")
        first, *tensors = made.operands
        if made.op == BIAS:
            return self.terms.bias(self._part(first, start, count), self._piece(tensors[0], start, count))
        codes, scale = (self._piece(tensor, start, count) for tensor in tensors[:2])
        statistic = tensors[2] if len(tensors) > 2 else -1
        return self.terms.matmul(first, codes, scale, statistic, made.attributes)

    def _piece(self, tensor: int, start: int, count: int) -> int:
        """The term of some columns of a tensor, which overlap no others that are read as a part."""
        (name,), shape = self.terms.all[tensor].attributes, self.terms.shape(tensor)
        piece = self.terms.tensor(f"{name}[{start}:{start + count}]", (*shape[:-1], count))
        pieces = self.out.pieces.setdefault(tensor, [])
        if (start, count, piece) not in pieces:
            apart = all(start + count <= other or other + n <= start for other, n, _ in pieces)
            need(apart, f"{name} is read in parts that overlap")
            pieces.append((start, count, piece))
        return piece

    def value(self, item: _Item, what: str) -> _Value:
        """An operand that is a value."""
        if not isinstance(item, _Value):
            raise RefusedError(f"{what} of the module cannot be read{_why(item)}")
        return item

    def tensor(self, item: _Item, what: str) -> int:
        """An operand that is a parameter."""
        if not isinstance(item, _Tensor):
            raise RefusedError(f"{what} is no parameter of the module{_why(item)}")
        return item.term

    def of(self, term: int, like: _Value, shape: tuple[int, ...] | None = None) -> list[_Item]:
        """A term in the shape of another value, or in its own."""
        return [_Value(term, like.shape if shape is None else shape)]

    def vectors(self, items: Sequence[_Item]) -> list[_Value]:
        """Operands that are values."""
        return [self.value(item, f"operand {i}") for i, item in enumerate(items)]

    def embed(self, items: list[_Item], attributes: dict[str, Any]) -> list[_Item]:
        table, place, positions = *items, items[1] == _Given("position")
        need(positions or place == _Given("token"), "the embedding is not read at the step's token")
        term = self.terms.embed(self.tensor(table, "the embedding"), positions=positions)
        return [_Value(term, (self.rows, self.terms.width(term)))]

    def matmul(self, items: list[_Item], attributes: dict[str, Any]) -> list[_Item]:
        x, codes, scale, *normed = self.value(items[0], "a product's input"), *items[1:]
        statistic = self.value(normed[0], "a statistic").term if normed else -1
        term = self.terms.matmul(
            x.term,
            self.tensor(codes, "a matrix"),
            self.tensor(scale, "the scales of a matrix"),
            statistic,
            tuple(attributes.get("starts", ())),
        )
        return self.of(term, x, (*x.shape[:-1], self.terms.width(term)))

    def normed(
        self, make: Callable[[int, int, float, int], int], items: list[_Item], eps: float
    ) -> list[_Item]:
        x = self.value(items[0], "a norm's input")
        return self.of(make(x.term, self.tensor(items[1], "a gain"), eps, x.shape[-1]), x)

    def alone(self, make: Callable[[int], int], items: list[_Item]) -> list[_Item]:
        """One operand, lane by lane."""
        (x,) = self.vectors(items)
        return self.of(make(x.term), x)

    def pair(self, make: Callable[[int, int], int], items: list[_Item]) -> list[_Item]:
        """Two operands, lane beside lane."""
        one, other = self.vectors(items)
        return self.of(make(one.term, other.term), one)

    def beside(self, make: Callable[[int, int], int], what: str, items: list[_Item]) -> list[_Item]:
        """An operand, and a vector that is applied to it."""
        x = self.value(items[0], f"what {what} is applied to")
        return self.of(make(x.term, self.tensor(items[1], what)), x)

    def rms_stat(self, items: list[_Item], attributes: dict[str, Any]) -> list[_Item]:
        x = self.value(items[0], "a norm's input")
        term = self.terms.rms_stat(x.term, self.tensor(items[1], "a gain"), attributes["eps"])
        return self.of(term, x, (self.rows, 1))

    def rope(self, items: list[_Item], attributes: dict[str, Any]) -> list[_Item]:
        x = self.value(items[0], "what RoPE turns")
        need(items[2] == _Given("position"), "RoPE does not turn by the step's position")
        table, first = self.tensor(items[1], "the RoPE table"), attributes.get("first", 0)
        return self.of(self.terms.rope(x.term, table, x.shape[-1], first), x)

    def attention(self, items: list[_Item], attributes: dict[str, Any]) -> list[_Item]:
        q, k, v = self.vectors(items[:3])
        places = self._appended(k, v, items[3:6])
        said = {name: value for name, value in attributes.items() if name != "block"}
        form = Scoring(**said, sinks=self.tensor(items[6], "the sinks") if len(items) > 6 else -1)
        block = attributes["block"]
        term = self.terms.attention(q.term, k.term, v.term, q.shape[-1], block, self.kv, form)
        return [*self.of(term, q, (self.rows, self.terms.width(term))), *map(_Written, places)]

    def _appended(self, k: _Value, v: _Value, items: list[_Item]) -> list[int]:
        """The caches that keys and values go to. items: the caches and the position."""
        keys, values, position = items
        need(position == _Given("position"), "attention is not at the step's position")
        places = [one.index for one in (keys, values) if isinstance(one, _Given) and one.kind == "cache"]
        need(len(places) == 2, "attention does not read the caches that the step takes")
        need([self.caches[i] for i in places] == [0, 1], "attention takes caches of keys for values")
        need(k.term not in self.out.keys, "two layers append the same keys")
        self.out.keys.append(k.term)
        self.out.values.append(v.term)
        return places

    def head_matmul(self, items: list[_Item], attributes: dict[str, Any]) -> list[_Item]:
        x = self.value(items[0], "a product's input")
        codes, scale = self.tensor(items[1], "a matrix"), self.tensor(items[2], "the scales of a matrix")
        term = self.terms.head_matmul(x.term, codes, scale)
        return self.of(term, x, (*x.shape[:-1], self.terms.shape(codes)[-1]))

    def latent_attention(self, items: list[_Item], attributes: dict[str, Any]) -> list[_Item]:
        q, turned, k, v = self.vectors(items[:4])
        places = self._appended(k, v, items[4:])
        sigma, block = attributes["sigma"], attributes["block"]
        term = self.terms.latent_attention((q.term, turned.term), k.term, v.term, sigma, block, self.kv)
        return [*self.of(term, q), *map(_Written, places)]

    def argmax(self, items: list[_Item], attributes: dict[str, Any]) -> list[_Item]:
        return [_Largest(self.vectors(items)[0].term)]


Reading = Callable[[Terms, Sequence[int], Mapping[str, Any]], int]
"""The term that an op makes of its operands' terms and its attributes, as wide as the first operand."""


def register(op: str, reading: Reading) -> None:
    """Say how the op of an extension is read. op: its name. Raises ValueError if a rule reads it already."""
    if (name := _OWN + op) in _OPS:
        raise ValueError(f"proof: op {op} has a rule that reads it. Give the op another name.")

    def rule(walk: _Walk, items: list[_Item], attributes: dict[str, Any]) -> list[_Item]:
        values = walk.vectors(items)
        return walk.of(reading(walk.terms, [value.term for value in values], attributes), values[0])

    _OPS[name] = rule


def _why(item: _Item) -> str:
    return f" ({item.why})" if isinstance(item, _Unread) else ""


_Rule = Callable[[_Walk, list[_Item], dict[str, Any]], list[_Item]]
_OPS: dict[str, _Rule] = {
    "lpu_embed": _Walk.embed,
    "lpu_matmul": _Walk.matmul,
    "lpu_matmul_scaled": _Walk.matmul,
    "lpu_rms_norm": lambda walk, items, said: walk.normed(walk.terms.norm, items, said["eps"]),
    "lpu_prescale": lambda walk, items, _: walk.beside(walk.terms.prescale, "a gain", items),
    "lpu_rms_stat": _Walk.rms_stat,
    "lpu_rope": _Walk.rope,
    "lpu_round16": lambda walk, items, _: walk.alone(lambda x: walk.terms.rounded(x, 16), items),
    "lpu_round8": lambda walk, items, _: walk.alone(lambda x: walk.terms.rounded(x, 8), items),
    "lpu_attention": _Walk.attention,
    "lpu_rms_norm32": lambda walk, items, said: walk.normed(walk.terms.norm32, items, said["eps"]),
    "lpu_softcap": lambda walk, items, said: walk.alone(lambda x: walk.terms.softcap(x, said["cap"]), items),
    "lpu_head_matmul": _Walk.head_matmul,
    "lpu_latent_attention": _Walk.latent_attention,
    "lpu_glu": lambda walk, items, a: walk.pair(partial(walk.terms.glu, **a), items),
    "lpu_add": lambda walk, items, _: walk.pair(walk.terms.add, items),
    "lpu_bias": lambda walk, items, _: walk.beside(walk.terms.bias, "a bias", items),
    "lpu_multiply": lambda walk, items, a: walk.alone(
        partial(walk.terms.multiply, factor=a["factor"]), items
    ),
    "lpu_multiply_add": lambda walk, items, a: walk.pair(partial(walk.terms.multiply_add, **a), items),
    "lpu_argmax": _Walk.argmax,
    **RULES,
}
