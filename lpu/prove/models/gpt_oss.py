"""A decoder of the kind of gpt-oss (family gpt_oss), read from its numbers alone.

Attention and the frame are those of `llama.py`, experts those of `experts.py`. The biases of the down
projections are a product of what each expert counts, rounded to fp16, and join the residual first.
"""

from collections.abc import Mapping
from typing import Any, cast

from lpu.prove.models.experts import ExpertsReading, matmul16, route
from lpu.prove.models.record import ModelTerms
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Terms
from models.gpt_oss import FAMILY as FAMILY
from models.gpt_oss import GptOssConfig

CLIPPED = "swiglu_oai"  # facts/contract2.md section 7, SWIGLU_OAI


def read(terms: Terms, numbers: Mapping[str, Any], longest: int, kv: str) -> ModelTerms:
    """The terms of a step. Raises RefusedError for numbers that no such model has."""
    try:
        config = GptOssConfig.of_fields(numbers)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RefusedError(f"the numbers of the model: {error}") from None
    return _GptOssReading(terms, config, longest, kv).step()


class _GptOssReading(ExpertsReading):
    """Reads such a model; no part of it is one that a hop computes."""

    def _after_attention(self, out: ModelTerms, block: str, x: int) -> int:
        config, terms = cast(GptOssConfig, self.config), self.terms
        a, statistic = self._deferred(x, self._gain(out, block, config.hidden))
        z = self._router_logits(out, block, a, statistic)
        z = terms.bias(z, self._tensor(out, f"{block}.router.bias", config.experts))
        weights = route(terms, z, (config.chosen, True, 0))
        rows = self._tensor(out, f"{block}.down.bias", config.experts, config.hidden)
        added = matmul16(terms, terms.rounded(weights, 16), rows)
        biases = self._tensor(out, f"{block}.gate_up.bias", config.experts * 2 * config.ffn)
        made = self._mixture(out, block, (a, statistic, weights), CLIPPED, biases)
        out.places[added] = f"{block}, biases of down"
        return terms.add(terms.add(x, added), made)
