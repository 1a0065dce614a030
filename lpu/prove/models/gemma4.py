"""Gemma 4 (family gemma4), read from its numbers alone: two geometries of heads, experts beside an FFN.

The frame is that of `llama.py`, experts are those of `experts.py`.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from lpu.prove.models.experts import glus, logits, matmul16, parts_of, route
from lpu.prove.models.llama import LlamaReading
from lpu.prove.models.record import ModelTerms
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Terms
from models.config import TransformerConfig
from models.configs.gemma4 import FAMILY as FAMILY
from models.configs.gemma4 import Gemma4Config


def read(terms: Terms, numbers: Mapping[str, Any], longest: int, kv: str) -> ModelTerms:
    """The terms of a step. Raises RefusedError for numbers that no such model has."""
    try:
        config = Gemma4Config.of_fields(numbers)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RefusedError(f"the numbers of the model: {error}") from None
    return _Gemma4Reading(terms, config, longest, kv).step()


class _Gemma4Reading(LlamaReading):
    """Reads such a model."""

    def _table_pairs(self) -> int:
        config = cast(Gemma4Config, self.config)
        return max(config.head_dim, config.global_turned) // 2

    def _attention(self, out: ModelTerms, block: str, x: int, angles: int, kind: str) -> int:
        """With the heads of the layer's kind."""
        config = cast(Gemma4Config, self.config)
        if kind == "window":
            return super()._attention(out, block, x, angles, kind)
        wide: TransformerConfig = replace(
            config, head_dim=config.global_head_dim, kv_heads=config.global_kv_heads
        )
        of_all = _Gemma4Reading(self.terms, wide, self.longest, self.kv)
        return LlamaReading._attention(of_all, out, block, x, angles, kind)

    def _keys_and_values(
        self, out: ModelTerms, block: str, a: int, statistic: int, kind: str
    ) -> tuple[int, int]:
        """Values are what keys are made of, where the two are shared."""
        config = cast(Gemma4Config, self.config)
        if kind == "window" or not config.shared_values:
            return super()._keys_and_values(out, block, a, statistic, kind)
        k = self._matrix(out, block, "k", a, statistic)
        return k, k

    def _kept_values(self, out: ModelTerms, block: str, v: int) -> int:
        """Values normed by a gain that is 1 in every lane."""
        lanes = self.config.head_dim
        return self.terms.norm(v, self._tensor(out, f"{block}.v_norm.gain", lanes), self.config.eps, lanes)

    def _after_attention(self, out: ModelTerms, block: str, x: int) -> int:
        config, terms = cast(Gemma4Config, self.config), self.terms
        y = self._feed_forward(out, block, x)
        if config.experts:
            y = terms.add(self._normed(out, f"{block}.dense_post", y), self._beside(out, block, x))
        kept = terms.multiply_lanes(x, self._tensor(out, f"{block}.kept.gain", config.hidden))
        return terms.add(kept, self._normed(out, f"{block}.post", y))

    def _normed(self, out: ModelTerms, name: str, y: int) -> int:
        gain = self._tensor(out, f"{name}.gain", self.config.hidden)
        return self.terms.norm32(y, gain, self.config.eps)

    def _beside(self, out: ModelTerms, block: str, x: int) -> int:
        """What the experts give, normed."""
        config, terms, own = cast(Gemma4Config, self.config), self.terms, f"{block}.experts"
        experts, hidden, width = config.experts, config.hidden, config.expert_ffn
        tensor = partial(self._tensor, out)
        routed, by = self._deferred(x, tensor(f"{own}.router_norm.gain", hidden))
        sums = matmul16(terms, routed, tensor(f"{own}.router.halves", hidden, experts))
        z = logits(terms, sums, by, tensor(f"{own}.router.exponent", experts))
        weights = route(terms, z, (config.chosen, True, 0))
        a, statistic = self._deferred(x, tensor(f"{own}.norm.gain", hidden))
        up = tensor(f"{own}.gate_up.codes", experts, hidden, 2 * width)
        powers = tensor(f"{own}.gate_up.exponent", 2 * width)
        inner = glus(terms, (a, up, powers, statistic, weights), config.activation)
        down = tensor(f"{own}.down.codes", experts, width, hidden), tensor(f"{own}.down.exponent", hidden)
        made = terms.matmul(inner, *down, -1, parts_of(width))
        named = {"router": weights, "gate and up": inner, "experts": made}
        out.places |= {term: f"{own}, {what}" for what, term in named.items()}
        return self._normed(out, f"{own}.post", made)
