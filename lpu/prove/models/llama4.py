"""Llama 4 (family llama4), read from its numbers alone: layers without RoPE, experts with a weighed input.

The frame is that of `llama.py`, experts are those of `experts.py`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from lpu.prove.models.experts import Sizes, chosen_of, mixture
from lpu.prove.models.llama import LlamaReading
from lpu.prove.models.record import ModelTerms
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Terms
from models.configs.llama4 import FAMILY as FAMILY
from models.configs.llama4 import Llama4Config

DENSE, WEIGHED = " dense", "silu_weighed"


def read(terms: Terms, numbers: Mapping[str, Any], longest: int, kv: str) -> ModelTerms:
    """The terms of a step. Raises RefusedError for numbers that no such model has."""
    try:
        config = Llama4Config.of_fields(numbers)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RefusedError(f"the numbers of the model: {error}") from None
    return _Llama4Reading(terms, config, longest, kv).step()


class _Llama4Reading(LlamaReading):
    """Reads such a model."""

    def _tables(self) -> int:
        return 1 if cast(Llama4Config, self.config).floor is None else 2

    def _attention(self, out: ModelTerms, block: str, x: int, angles: int, kind: str) -> int:
        """Of its kind: those without RoPE have no norms of q and k."""
        kind = kind.removesuffix(DENSE)
        own = replace(self.config, qk_norm=self.config.qk_norm and kind != "nope")
        return LlamaReading._attention(
            _Llama4Reading(self.terms, own, self.longest, self.kv), out, block, x, angles, kind
        )

    def _unturned(self, out: ModelTerms, q: int, k: int) -> tuple[int, int]:
        """Queries times a factor of their position, which the second table has as cosines."""
        config, terms = cast(Llama4Config, self.config), self.terms
        if config.floor is None:
            return super()._unturned(out, q, k)
        return terms.rope(q, out.tensors["angles"], config.head_dim, self.longest), terms.rounded(k, 16)

    def _answer(self, out: ModelTerms, block: str, value: int, statistic: int) -> int:
        config, given = cast(Llama4Config, self.config), (value, statistic)
        if (int(block.split(".")[1]) + 1) % config.step:
            return super()._answer(out, block, *given)
        sizes = Sizes(config.hidden, config.experts, config.expert_ffn, WEIGHED)
        return mixture(self.terms, out, block, given, sizes, chosen_of(config.routing))
