"""A decoder of experts (family experts), read from its numbers alone; its terms, for the rules of its rows.

Attention and the frame are those of `llama.py`. An expert's share is made of slots: whatever their order and
number, the terms below name none.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from lpu.prove.models.llama import LlamaReading
from lpu.prove.models.record import ModelTerms
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Terms
from models.configs.experts import FAMILY as FAMILY
from models.configs.experts import ExpertsConfig
from models.routing import Routing

STRIP, MOST_PARTS = 32, 8  # docs/experts.md
UNGATED = "relu2"  # the activation of experts of two matrices
LOGITS, ROUTE, GLUS = "logits", "route", "expert_glus"
UNIT = "unit"  # in place of a statistic, of a vector that needs none
GATED = "gated"  # behind the attributes of a route whose last logit is the gate of its shared expert


def read(terms: Terms, numbers: Mapping[str, Any], longest: int, kv: str) -> ModelTerms:
    """The terms of a step. Raises RefusedError for numbers that no such model has."""
    try:
        config = ExpertsConfig.of_fields(numbers)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RefusedError(f"the numbers of the model: {error}") from None
    return _ExpertsReading(terms, config, longest, kv).step()


class _ExpertsReading(LlamaReading):
    """Reads such a model."""

    def _answer(self, out: ModelTerms, block: str, value: int, statistic: int) -> int:
        config = cast(ExpertsConfig, self.config)
        sizes = Sizes(config.hidden, config.experts, config.ffn, config.activation)
        chosen = config.chosen, config.renormalise, 0
        return mixture(self.terms, out, block, (value, statistic), sizes, chosen)


class Sizes(NamedTuple):
    """Of a layer's experts: lanes of their input, how many a router has, lanes of each, its activation."""

    hidden: int
    experts: int
    width: int
    activation: str


def mixture(
    terms: Terms,
    out: ModelTerms,
    block: str,
    a: tuple[int, int],
    sizes: Sizes,
    chosen: tuple[Any, ...],
    latent: int = -1,
) -> int:
    """Experts and their router. a: vector and statistic, -1 for none; chosen: attributes of the route.

    latent: the vector that experts take instead, of which theirs are as many lanes.

    A router whose attributes name groups goes by sigmoid scores and has a bias.
    """
    (vector, statistic), (hidden, experts, width, activation) = a, sizes
    columns, scored = experts + gated(chosen), len(chosen) > 3 and not gated(chosen)

    def tensor(name: str, *shape: int) -> int:
        out.tensors[f"{block}.{name}"] = made = terms.tensor(f"{block}.{name}", shape)
        return made

    halves, powers = tensor("router.halves", hidden, columns), tensor("router.exponent", columns)
    bias = tensor("router.bias", experts) if scored else -1
    weights = route(terms, logits(terms, matmul16(terms, vector, halves), statistic, powers), chosen, bias)
    every = experts + shared(chosen)
    inside = hidden if latent < 0 else terms.width(latent)
    name, wide = ("up", width) if activation == UNGATED else ("gate_up", 2 * width)
    gate_up = tensor(f"{name}.codes", every, inside, wide), tensor(f"{name}.exponent", wide)
    down = tensor("down.codes", every, width, inside), tensor("down.exponent", inside)
    taken = vector if latent < 0 else latent
    inner = glus(terms, (taken, *gate_up, statistic_of(terms, statistic), weights), activation)
    made = terms.matmul(inner, *down, -1, parts_of(width))
    for term, what in ((weights, "router"), (inner, "gate and up"), (made, "experts")):
        out.places[term] = f"{block}, {what}"
    return made


def chosen_of(routing: Routing) -> tuple[Any, ...]:
    """The attributes of a route: behind what all have groups and a scale of sigmoid scores, or GATED."""
    chosen = (routing.chosen, routing.renormalise, routing.shared)
    if routing.gated:
        return (*chosen, GATED)
    return chosen if routing.score == "softmax" else (*chosen, routing.groups, routing.keep, routing.scale)


def matmul16(terms: Terms, value: int, weights: int) -> int:
    """A vector times fp16 weights."""
    return terms.make("matmul16", (value, weights), (), terms.shape(weights)[1:])


def logits(terms: Terms, sums: int, statistic: int, powers: int) -> int:
    """Sums times a statistic (-1: of a vector that was normalised before) and powers of two."""
    return terms.make(LOGITS, (sums, statistic_of(terms, statistic), powers), (), terms.shape(sums))


def statistic_of(terms: Terms, statistic: int) -> int:
    """The term of a statistic; one of its own where there is none."""
    return statistic if statistic >= 0 else terms.make(UNIT, (), (), (1,))


def route(terms: Terms, z: int, attributes: tuple[Any, ...], bias: int = -1) -> int:
    """How much each expert counts, shared ones behind those of the router.

    attributes: chosen, renormalise, shared; of sigmoid scores, which have a bias, also groups, keep, scale;
    GATED where the last of z is no expert's.
    """
    operands, every = ((z,) if bias < 0 else (z, bias)), shared(attributes) - gated(attributes)
    return terms.make(ROUTE, operands, attributes, (terms.width(z) + every,))


def taken(attributes: tuple[Any, ...]) -> int:
    """Experts that a row takes: those that it chooses, and the shared ones."""
    return attributes[0] + shared(attributes)


def gated(attributes: tuple[Any, ...]) -> bool:
    """Whether the last logit of a route is the gate of its shared expert."""
    return attributes[3:] == (GATED,)


def shared(attributes: tuple[Any, ...]) -> int:
    """Experts that every row takes, the last of all."""
    return attributes[2]


def glus(terms: Terms, operands: tuple[int, ...], activation: str) -> int:
    """The weighted activations of all experts together.

    operands: vector, gate and up (or up alone) as codes and scales, statistic, weights; their biases, if any.
    """
    width = terms.width(operands[1]) // (1 if activation == UNGATED else 2)
    return terms.make(GLUS, operands, (activation,), (width,))


def parts_of(width: int) -> tuple[int, ...]:
    """First rows of the contract parts of an expert's down projection, and its rows."""
    unit = STRIP if width % STRIP == 0 else 1
    units, count = width // unit, MOST_PARTS if unit == STRIP else 1
    while count > units:
        count //= 2
    return (*(number * units // count * unit for number in range(count)), width)
