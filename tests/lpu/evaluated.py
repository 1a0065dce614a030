"""Terms as arrays, by the contract functions on real weights: what a proof says, computed."""

from typing import Any

import jax.numpy as jnp
from beside import Arrays

from lpu.prove.known import Known
from lpu.prove.models import experts
from lpu.prove.models.record import ModelTerms
from lpu.prove.terms import Scoring
from models.contract import ops
from models.contract.experts.slots import table, weighted_glu
from models.routing import Routing


class Evaluated:
    """Terms as arrays [rows, width]. step: tokens and positions [rows], the cache before the step."""

    def __init__(self, known: Known, model: ModelTerms, weights: Arrays, step: tuple[Any, ...]) -> None:
        self.known, self.model, self.weights = known, model, weights
        self.tokens, self.positions, self.cache = step
        self.values: dict[int, Any] = {}

    def value(self, term: int) -> Any:
        """The array of a term."""
        if term not in self.values:
            op, operands, attributes, shape, _ = self.known.terms.all[term]
            if op == "tensor":
                self.values[term] = jnp.asarray(self.weights[attributes[0]])
            elif op in _BY_TERM:
                self.values[term] = _BY_TERM[op](self, term, operands, attributes)
            else:
                found = getattr(self, f"_{op}")(*map(self.value, operands), *attributes)
                self.values[term] = found.reshape(len(self.tokens), -1)
            assert self.values[term].shape[-1] == shape[-1]
        return self.values[term]

    def _heads(self, term: int, head_dim: int) -> Any:
        value = self.value(term)
        return value.reshape(len(value), -1, head_dim)

    def _embed(self, table: Any) -> Any:
        return ops.embed(table, self.tokens)

    def _rms_norm(self, x: Any, gain: Any, eps: float, head_dim: int) -> Any:
        return ops.rms_norm(x.reshape(len(x), -1, head_dim), gain, eps=eps)

    def _rms_norm32(self, x: Any, gain: Any, eps: float) -> Any:
        return ops.rms_norm32(x, gain, eps=eps)

    def _rope(self, x: Any, table: Any, head_dim: int, first: int = 0) -> Any:
        return ops.rope(x.reshape(len(x), -1, head_dim), table, self.positions, first=first)

    def _round16(self, x: Any) -> Any:
        return ops.round16(x)

    def _softcap(self, x: Any, cap: float) -> Any:
        return ops.softcap(x, cap=cap)

    def _prescale(self, x: Any, gain: Any) -> Any:
        return ops.prescale(x, gain)

    def _rms_stat(self, x: Any, gain: Any, eps: float) -> Any:
        return ops.rms_stat(x, gain, eps=eps)

    def _bias(self, x: Any, vector: Any) -> Any:
        return ops.bias(x, vector)

    def _add(self, x: Any, y: Any) -> Any:
        return ops.add(x, y)

    def _multiply(self, x: Any, factor: float) -> Any:
        return ops.multiply(x, factor=factor)

    def _multiply_add(self, x: Any, y: Any, factor: float) -> Any:
        return ops.multiply_add(x, y, factor=factor)

    def _multiply_lanes(self, x: Any, factors: Any) -> Any:
        return ops.multiply_lanes(x, factors)

    def _glu(self, gate: Any, up: Any, activation: Any) -> Any:
        return ops.glu(gate, up, activation=activation)

    def _gate(self, x: Any, z: Any) -> Any:
        return ops.gate(x, z)

    def _head_matmul(self, x: Any, codes: Any, scale: Any) -> Any:
        heads = len(scale) // codes.shape[1]
        return ops.head_matmul(x.reshape(len(x), heads, -1), codes, scale)

    def _matmul16(self, x: Any, weights: Any) -> Any:
        return ops.matmul16(x, weights)

    def _expert_product(self, x: Any, codes: Any, scale: Any, statistic: Any, *others: Any) -> Any:
        *route, slot, slots, first, some = others
        expert = table(route[0][:, first : first + some], slots).ids[slot] if route else slot
        return ops.matmul(x, codes[first + expert], scale, statistic, starts=())

    def _expert_glu(self, x: Any, codes: Any, scale: Any, statistic: Any, *others: Any) -> Any:
        route, activation, slot, slots, first, some = others
        found = table(route[:, first : first + some], slots)
        both = ops.matmul(x, codes[first + found.ids[slot]], scale, statistic, starts=())
        gate, up = jnp.split(both, 2, axis=1)
        return weighted_glu(gate, up, found.weights[:, slot : slot + 1], activation)

    def of_matmul(self, term: int, operands: tuple[int, ...], starts: tuple[Any, ...]) -> Any:
        """A product; over the weighted activations of all experts the sum over them."""
        made = self.known.terms.all[operands[0]]
        if made.op == experts.GLUS:
            route = self.known.terms.all[made.operands[4]]
            x, up, up_scale, statistic, weights = map(self.value, made.operands)
            down = (self.value(operands[1]), self.value(operands[2]))
            taken, activation = experts.taken(route.attributes), made.attributes[0]
            return ops.experts(
                x,
                statistic,
                weights,
                (up, up_scale),
                down,
                chosen=taken,
                activation=activation,
                starts=starts,
            )
        x, codes, scale, *normed = map(self.value, operands)
        product = ops.matmul if scale.dtype == jnp.int32 else ops.matmul_scaled
        return product(x, codes, scale, *normed, starts=starts)

    def of_route(self, term: int, operands: tuple[int, ...], attributes: tuple[Any, ...]) -> Any:
        """What each expert counts."""
        sums = map(self.value, self.known.terms.all[operands[0]].operands)
        scored = ("sigmoid", *attributes[3:]) if len(operands) > 1 else ()
        routing = Routing(*attributes[:3], *scored)._replace(gated=experts.gated(attributes))
        return ops.route(*sums, *map(self.value, operands[1:]), routing=routing)

    def of_attention(self, term: int, operands: tuple[int, ...], attributes: tuple[Any, ...]) -> Any:
        """All heads over the cache of their layer."""
        layer = self.model.keys.index(operands[1])
        head_dim, block, _, *said = attributes
        q, k, v = (self._heads(one, head_dim) for one in operands[:3])
        sink = [self.value(one) for one in operands[3:]]
        names = Scoring(*said)._asdict()
        del names["sinks"]
        held = self.cache.k[layer], self.cache.v[layer]
        return ops.attention(q, k, v, *held, self.positions, *sink, block=block, **names)[0]

    def of_latents(self, term: int, operands: tuple[int, ...], attributes: tuple[Any, ...]) -> Any:
        """All heads over the latents of their layer."""
        layer = self.model.keys.index(operands[2])
        sigma, block, _ = attributes
        turned, latent = (self.known.terms.width(one) for one in operands[2:])
        every = zip(operands, (latent, turned, turned, latent), strict=True)
        given: tuple[Any, ...] = tuple([self._heads(one, lanes) for one, lanes in every])
        q_latent, q_turned, k_turned, kept = given
        held = self.cache.k[layer], self.cache.v[layer]
        made = ops.latent_attention(
            q_latent, q_turned, k_turned, kept, *held, self.positions, sigma=sigma, block=block
        )[0]
        return made.reshape(len(self.tokens), -1)

    def of_conv(self, term: int, operands: tuple[int, ...], attributes: tuple[Any, ...]) -> Any:
        """A convolution over what its state keeps."""
        x, *taps = map(self.value, operands)
        bias = taps.pop() if attributes[0] else None
        return ops.conv(x, self._state(term), self.positions, tuple(taps), bias)[0]

    def of_ssm(self, term: int, operands: tuple[int, ...], attributes: tuple[Any, ...]) -> Any:
        """A state space step over its states."""
        _, groups, low, high = attributes
        x, raw, bc, decay, d = (self.value(one) for one in operands)
        kept = self._state(term)
        return ops.ssm(x, raw, bc, decay, d, kept, self.positions, groups=groups, low=low, high=high)[0]

    def _state(self, term: int) -> Any:
        return self.cache.state[self.model.states.index(term)]


_BY_TERM: dict[str, Any] = {
    "matmul": Evaluated.of_matmul,
    experts.ROUTE: Evaluated.of_route,
    "attention": Evaluated.of_attention,
    "latent_attention": Evaluated.of_latents,
    "conv": Evaluated.of_conv,
    "ssm": Evaluated.of_ssm,
}
