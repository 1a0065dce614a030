"""Rarer ops in a module of the user's own: routers, experts, layer norms, factors of lanes."""

from collections.abc import Callable
from typing import Any

from lpu.prove.models import experts
from lpu.prove.refused import need

Walk = Any  # of `lpu.prove.models.own`, which takes these rules
Rule = Callable[[Walk, list[Any], dict[str, Any]], list[Any]]


def _matmul16(walk: Walk, items: list[Any], attributes: dict[str, Any]) -> list[Any]:
    x, weights = walk.value(items[0], "a product's input"), walk.tensor(items[1], "a router")
    term = experts.matmul16(walk.terms, x.term, weights)
    return walk.of(term, x, (*x.shape[:-1], walk.terms.width(term)))


def _route(walk: Walk, items: list[Any], attributes: dict[str, Any]) -> list[Any]:
    (sums, statistic), (scales, *biases) = _normed(walk, items, attributes)
    z = experts.logits(walk.terms, sums.term, statistic, walk.tensor(scales, "scales of a router"))
    how = experts.chosen_of(attributes["routing"])
    score = attributes["routing"].score
    bias = walk.tensor(biases[0], "a bias of a router") if biases else -1
    if bias >= 0 and score == "softmax":
        z, bias = walk.terms.bias(z, bias), -1
    term = experts.route(walk.terms, z, how, bias)
    return walk.of(term, sums, (*sums.shape[:-1], walk.terms.width(term)))


def _experts(walk: Walk, items: list[Any], attributes: dict[str, Any]) -> list[Any]:
    (x, statistic), (chosen, *held) = _normed(walk, items, attributes)
    weights = walk.value(chosen, "the weights of a router")
    codes, scale, down, down_scale, *biases = (walk.tensor(one, "the weights of experts") for one in held)
    made = walk.terms.all[weights.term]
    need(made.op == experts.ROUTE, "the weights of experts are no choice of a router")
    need(
        experts.taken(made.attributes) == attributes["chosen"], "the router chooses another number of experts"
    )
    statistic = experts.statistic_of(walk.terms, statistic)
    operands = (x.term, codes, scale, statistic, weights.term, *biases)
    hidden = experts.glus(walk.terms, operands, attributes["activation"])
    term = walk.terms.matmul(hidden, down, down_scale, -1, tuple(attributes["starts"]))
    return walk.of(term, x, (*x.shape[:-1], walk.terms.width(term)))


def _normed(walk: Walk, items: list[Any], attributes: dict[str, Any]) -> tuple[tuple[Any, int], list[Any]]:
    """The first operand with the term of its statistic, -1 for none, and the operands behind them."""
    if not attributes.get("normed", True):
        return (walk.value(items[0], "a product's input"), -1), items[1:]
    x, statistic = walk.vectors(items[:2])
    return (x, statistic.term), items[2:]


def _multiply_lanes(walk: Walk, items: list[Any], attributes: dict[str, Any]) -> list[Any]:
    x = walk.value(items[0], "what factors multiply")
    return walk.of(walk.terms.multiply_lanes(x.term, walk.tensor(items[1], "the factors")), x)


def _layer_norm32(walk: Walk, items: list[Any], attributes: dict[str, Any]) -> list[Any]:
    x, gain, bias = walk.value(items[0], "a norm's input"), *(walk.tensor(one, "a gain") for one in items[1:])
    return walk.of(walk.terms.layer_norm32(x.term, gain, bias, attributes["eps"]), x)


RULES: dict[str, Rule] = {
    "lpu_multiply_lanes": _multiply_lanes,
    "lpu_matmul16": _matmul16,
    "lpu_route": _route,
    "lpu_experts": _experts,
    "lpu_layer_norm32": _layer_norm32,
}
