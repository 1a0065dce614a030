"""Terms: whole logical vectors of a model, hash-consed, so that equal values are equal numbers.

A term is an op, the terms that it takes, its attributes and its shape. Tensors are terms without operands.
Within the template of a block the tensors are slots and what earlier calls left are inputs; `bind` puts the
terms of one call in their places. A dozen constructors below are shared by the reader of the model and by the
rules; an op from outside uses `make`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

TENSOR, SLOT, INPUT = "tensor", "slot", "input"
MATMUL, BIAS = "matmul", "bias"


class Scoring(NamedTuple):
    """Of attention: which tokens are seen (window, span), the scale and cap of scores; 0 is none.

    whole: each row of the step sees what all rows of its sequence see. sinks: a term with a logit per head,
    -1: none.
    """

    window: int = 0
    span: int = 0
    scale: float = 0.0
    cap: float = 0.0
    whole: bool = False
    sinks: int = -1


class Term(NamedTuple):
    """One value: what makes it. commutes: the order of the operands does not matter, and they are sorted."""

    op: str
    operands: tuple[int, ...]
    attributes: tuple[Any, ...]
    shape: tuple[int, ...]
    commutes: bool = False


class Terms:
    """All terms by number; the same term never has two."""

    def __init__(self) -> None:
        self.all: list[Term] = []
        self._number: dict[Term, int] = {}

    def __len__(self) -> int:
        return len(self.all)

    def make(
        self,
        op: str,
        operands: tuple[int, ...] = (),
        attributes: tuple[Any, ...] = (),
        shape: tuple[int, ...] = (),
        *,
        commutes: bool = False,
    ) -> int:
        """The number of a term."""
        term = Term(op, tuple(sorted(operands)) if commutes else operands, attributes, shape, commutes)
        found = self._number.setdefault(term, len(self.all))
        if found == len(self.all):
            self.all.append(term)
        return found

    def shape(self, term: int) -> tuple[int, ...]:
        """The shape of a value: of a vector its width alone."""
        return self.all[term].shape

    def width(self, term: int) -> int:
        """Of a vector: how many numbers it has."""
        return self.all[term].shape[-1]

    def bind(self, term: int, bound: dict[int, int], made: Callable[[int, int], None]) -> int:
        """The term with others in the places of those that `bound` names; it grows by what was looked at.

        made: told of every term that is new, with the one it comes from.
        """
        if term not in bound:
            op, operands, attributes, shape, commutes = self.all[term]
            taken = tuple(self.bind(one, bound, made) for one in operands)
            before = len(self.all)
            bound[term] = self.make(op, taken, attributes, shape, commutes=commutes)
            if len(self.all) > before:
                made(bound[term], term)
        return bound[term]

    def show(self, term: int, names: Mapping[int, str]) -> str:
        """A term in words: its op, and the tensors among its operands. names: of slots and inputs."""
        op, operands, attributes, _, _ = self.all[term]
        if term in names:
            return names[term]
        if op == TENSOR:
            return str(attributes[0])
        parts = [
            self.show(one, names) if self._is_tensor(one) else self._name(one, names) for one in operands
        ]
        return f"{op}({', '.join([*parts, *map(str, attributes)])})"

    def _is_tensor(self, term: int) -> bool:
        return not self.all[term].operands

    def _name(self, term: int, names: Mapping[int, str]) -> str:
        """An operand in short: its op and the tensors that it takes."""
        op, operands, _, _, _ = self.all[term]
        tensors = [self.show(one, names) for one in operands if self._is_tensor(one)]
        return f"{op}<{', '.join(tensors)}>" if tensors else op

    def tensor(self, name: str, shape: tuple[int, ...]) -> int:
        """A tensor of the model."""
        return self.make(TENSOR, (), (name,), shape)

    def embed(self, table: int, *, positions: bool = False) -> int:
        """The row of a table at the step's token, or at its position."""
        return self.make("embed", (table,), ("position",) if positions else (), self.shape(table)[1:])

    def norm(self, value: int, gain: int, eps: float, head_dim: int) -> int:
        """RMS norm over all, or over each head of `head_dim` (its width: over all)."""
        return self.make("rms_norm", (value, gain), (eps, head_dim), self.shape(value))

    def norm32(self, value: int, gain: int, eps: float, head_dim: int = 0) -> int:
        """RMS norm over all, or over each head of `head_dim`, in f32; the gain is of a head or of all."""
        over = () if head_dim in (0, self.width(value)) else (head_dim,)
        return self.make("rms_norm32", (value, gain), (eps, *over), self.shape(value))

    def layer_norm32(self, value: int, gain: int, bias: int, eps: float) -> int:
        """Layer norm over all lanes, in f32."""
        return self.make("layer_norm32", (value, gain, bias), (eps,), self.shape(value))

    def rope(self, value: int, table: int, head_dim: int, first: int = 0) -> int:
        """Each head turned by the table's row at the step's position, counted from row `first` on."""
        return self.make("rope", (value, table), (head_dim, *([first] if first else [])), self.shape(value))

    def softcap(self, value: int, cap: float) -> int:
        """Each lane through a soft cap."""
        return self.make("softcap", (value,), (cap,), self.shape(value))

    def rounded(self, value: int, bits: int) -> int:
        """Rounded to fp16 or e4m3."""
        return self.make(f"round{bits}", (value,), (), self.shape(value))

    def prescale(self, value: int, gain: int) -> int:
        """A vector times a gain over its power of two, in fp16."""
        return self.make("prescale", (value, gain), (), self.shape(value))

    def rms_stat(self, value: int, gain: int, eps: float) -> int:
        """1/rms of a vector times the power of two of a gain."""
        return self.make("rms_stat", (value, gain), (eps,), (1,))

    def matmul(
        self, value: int, codes: int, scale: int, statistic: int = -1, starts: tuple[int, ...] = ()
    ) -> int:
        """A vector times a matrix of codes, with a scale per column; statistic: and times that, -1: without.

        starts: first rows of its contract parts and, last, how many rows there are; () for one part.
        """
        normed = (statistic,) if statistic >= 0 else ()
        return self.make(MATMUL, (value, codes, scale, *normed), starts, self.shape(codes)[-1:])

    def head_matmul(self, value: int, codes: int, scale: int) -> int:
        """Each head times its own matrix: those lie one below the other, scales one behind the other.

        Of one head it is a product.
        """
        if self.shape(scale) == self.shape(codes)[-1:]:
            return self.matmul(value, codes, scale)
        return self.make("head_matmul", (value, codes, scale), (), self.shape(scale))

    def bias(self, value: int, vector: int) -> int:
        """A product plus a vector."""
        return self.make(BIAS, (value, vector), (), self.shape(value))

    def attention(
        self,
        queries: int,
        keys: int,
        values: int,
        head_dim: int,
        block: int,
        kv: str,
        form: Scoring = Scoring(),  # noqa: B008 - frozen
    ) -> int:
        """All heads over the cache that the keys and values of this step and all before it make up.

        block: tokens that are summed exactly. form: which tokens are seen, and what becomes of scores.
        """
        *said, sinks = form
        operands = (queries, keys, values, *((sinks,) if sinks >= 0 else ()))
        attributes = (head_dim, block, kv, *(said if any(said) else ()))
        return self.make("attention", operands, attributes, self.shape(queries))

    def latent_attention(
        self, queries: tuple[int, int], turned: int, latent: int, sigma: float, block: int, kv: str
    ) -> int:
        """All heads over latents and turned keys of this step and all before it.

        queries: what meets latents, what meets turned keys. sigma: by what products are multiplied.
        """
        return self.make(
            "latent_attention", (*queries, turned, latent), (sigma, block, kv), self.shape(queries[0])
        )

    def glu(self, gate: int, up: int, activation: str) -> int:
        """The activation of the gate, times up."""
        return self.make("glu", (gate, up), (activation,), self.shape(gate))

    def add(self, one: int, other: int) -> int:
        """The f32 sum of two vectors; it commutes and does not associate."""
        return self.make("add", (one, other), (), self.shape(one), commutes=True)

    def multiply(self, value: int, factor: float) -> int:
        """A vector times a constant; times 1 it is itself."""
        if factor == 1:
            return value
        return self.make("multiply", (value,), (factor,), self.shape(value))

    def multiply_add(self, one: int, other: int, factor: float) -> int:
        """A vector plus a constant times another, rounded once."""
        return self.make("multiply_add", (one, other), (factor,), self.shape(one))

    def multiply_lanes(self, value: int, factors: int) -> int:
        """A vector times a factor for each lane."""
        return self.make("multiply_lanes", (value, factors), (), self.shape(value))

    def conv(self, value: int, taps: tuple[int, ...], biased: bool) -> int:
        """Silu of the convolution of each lane over its values of this step and the last.

        biased: whether the last of the taps is added instead.
        """
        return self.make("conv", (value, *taps), (biased,), self.shape(value))

    def ssm(
        self, value: int, raw: int, both: int, decay: int, through: int, attributes: tuple[Any, ...]
    ) -> int:
        """The state space step over all values of this step and those before.

        attributes: states of a channel, groups of channels, what time steps are clamped to.
        """
        return self.make("ssm", (value, raw, both, decay, through), attributes, self.shape(value))

    def l2_norm(self, value: int, eps: float, head_dim: int) -> int:
        """Each head over its length."""
        return self.make("l2_norm", (value,), (eps, head_dim), self.shape(value))

    def delta(self, value: int, raw: int, both: int, decay: int, attributes: tuple[Any, ...]) -> int:
        """The gated delta rule over all values of this step and those before.

        attributes: lanes of a key, groups of heads that share one.
        """
        return self.make("delta", (value, raw, both, decay), attributes, self.shape(value))

    def gate16(self, value: int, other: int) -> int:
        """A vector times the sigmoid of another, in fp16."""
        return self.make("gate16", (value, other), (), self.shape(value))

    def gate(self, value: int, other: int) -> int:
        """A vector times silu of another."""
        return self.make("gate", (value, other), (), self.shape(value))

    def message(self, index: int, width: int) -> int:
        """What hop number `index` is sent."""
        return self.make("message", (), (index,), (width,))
