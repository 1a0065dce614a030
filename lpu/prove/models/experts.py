"""A decoder of experts (family experts), read from its numbers alone; its terms, for the rules of its rows.

Attention and the frame are those of `llama.py`. An expert's share is made of slots: whatever their order and
number, the terms below name none.
"""

from collections.abc import Mapping
from typing import Any, cast

from lpu.prove.models.llama import LlamaReading
from lpu.prove.models.record import ModelTerms
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Terms
from models.experts import FAMILY as FAMILY
from models.experts import ExpertsConfig

STRIP, MOST_PARTS = 32, 8  # docs/experts.md
LOGITS, ROUTE, GLUS = "logits", "route", "expert_glus"


def read(terms: Terms, numbers: Mapping[str, Any], longest: int, kv: str) -> ModelTerms:
    """The terms of a step. Raises RefusedError for numbers that no such model has."""
    try:
        config = ExpertsConfig.of_fields(numbers)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RefusedError(f"the numbers of the model: {error}") from None
    return ExpertsReading(terms, config, longest, kv).step()


class ExpertsReading(LlamaReading):
    """Reads such a model; no part of it is one that a hop computes."""

    def _feed_forward(self, out: ModelTerms, block: str, x: int) -> int:
        config = cast(ExpertsConfig, self.config)
        a, statistic = self._deferred(x, self._gain(out, block, config.hidden))
        z = self._router_logits(out, block, a, statistic)
        weights = route(self.terms, z, (config.chosen, config.renormalise, 0))
        return self._mixture(out, block, (a, statistic, weights), config.activation)

    def _router_logits(self, out: ModelTerms, block: str, a: int, statistic: int) -> int:
        """The logits of all experts, before a bias."""
        config, terms = cast(ExpertsConfig, self.config), self.terms
        halves = self._tensor(out, f"{block}.router.halves", config.hidden, config.experts)
        powers = self._tensor(out, f"{block}.router.exponent", config.experts)
        return logits(terms, matmul16(terms, a, halves), statistic, powers)

    def _mixture(
        self, out: ModelTerms, block: str, of: tuple[int, int, int], activation: str, *biases: int
    ) -> int:
        """The sum over experts. of: vector, statistic, weights; biases: of gate and up, if there are any."""
        config, terms = cast(ExpertsConfig, self.config), self.terms
        a, statistic, weights = of
        both, width = 2 * config.ffn, config.ffn
        gate_up = (
            self._tensor(out, f"{block}.gate_up.codes", config.experts, config.hidden, both),
            self._tensor(out, f"{block}.gate_up.exponent", both),
        )
        down = (
            self._tensor(out, f"{block}.down.codes", config.experts, width, config.hidden),
            self._tensor(out, f"{block}.down.exponent", config.hidden),
        )
        hidden = glus(terms, (a, *gate_up, statistic, weights, *biases), activation)
        made = terms.matmul(hidden, *down, -1, parts_of(width))
        for term, what in ((weights, "router"), (hidden, "gate and up"), (made, "experts")):
            out.places[term] = f"{block}, {what}"
        return made


def matmul16(terms: Terms, value: int, weights: int) -> int:
    """A vector times fp16 weights."""
    return terms.make("matmul16", (value, weights), (), terms.shape(weights)[1:])


def logits(terms: Terms, sums: int, statistic: int, powers: int) -> int:
    """Sums times a statistic and powers of two."""
    return terms.make(LOGITS, (sums, statistic, powers), (), terms.shape(sums))


def route(terms: Terms, z: int, attributes: tuple[Any, ...], bias: int = -1) -> int:
    """How much each expert counts, shared ones behind those of the router.

    attributes: chosen, renormalise, shared; of sigmoid scores, which have a bias, also groups, keep, scale.
    """
    operands = (z,) if bias < 0 else (z, bias)
    return terms.make(ROUTE, operands, attributes, (terms.width(z) + attributes[2],))


def taken(attributes: tuple[Any, ...]) -> int:
    """Experts that a row takes: those that it chooses, and the shared ones."""
    return attributes[0] + attributes[2]


def glus(terms: Terms, operands: tuple[int, ...], activation: str) -> int:
    """The weighted activations of all experts together.

    operands: vector, gate and up as codes and scales, statistic, weights; the biases of gate and up, if any.
    """
    return terms.make(GLUS, operands, (activation,), (terms.width(operands[1]) // 2,))


def parts_of(width: int) -> tuple[int, ...]:
    """First rows of the contract parts of an expert's down projection, and its rows."""
    unit = STRIP if width % STRIP == 0 else 1
    units, count = width // unit, MOST_PARTS if unit == STRIP else 1
    while count > units:
        count //= 2
    return (*(number * units // count * unit for number in range(count)), width)
