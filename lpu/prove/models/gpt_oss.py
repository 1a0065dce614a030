"""A decoder of the kind of gpt-oss (family gpt_oss), read from its numbers alone.

Attention and the frame are those of `llama.py`, experts those of `experts.py`. The biases of the down
projections are a product of what each expert counts, rounded to fp16, and join the residual first.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from lpu.prove.models.experts import glus, logits, matmul16, parts_of, route, statistic_of
from lpu.prove.models.llama import LlamaReading
from lpu.prove.models.record import ModelTerms
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Terms
from models.configs.gpt_oss import FAMILY as FAMILY
from models.configs.gpt_oss import GptOssConfig

CLIPPED = "swiglu_oai"  # facts/contract2.md section 7, SWIGLU_OAI


def read(terms: Terms, numbers: Mapping[str, Any], longest: int, kv: str) -> ModelTerms:
    """The terms of a step. Raises RefusedError for numbers that no such model has."""
    try:
        config = GptOssConfig.of_fields(numbers)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RefusedError(f"the numbers of the model: {error}") from None
    return _GptOssReading(terms, config, longest, kv).step()


class _GptOssReading(LlamaReading):
    """Reads such a model."""

    def _after_attention(self, out: ModelTerms, block: str, x: int) -> int:
        if self.config.ffn_down is not None:
            return super()._after_attention(out, block, x)
        given = self._deferred(x, self._gain(out, block, self.config.hidden))
        added, made = self._experts(out, block, *given)
        return self.terms.add(self.terms.add(x, added), made)

    def _answer(self, out: ModelTerms, block: str, value: int, statistic: int) -> int:
        """One value comes back from another machine."""
        return self.terms.add(*self._experts(out, block, value, statistic))

    def _experts(self, out: ModelTerms, block: str, a: int, statistic: int) -> tuple[int, int]:
        """The biases of the down projections, and what experts give without them."""
        config, terms = cast(GptOssConfig, self.config), self.terms
        experts, hidden, width = config.experts, config.hidden, config.ffn
        tensor = partial(self._tensor, out)
        sums = matmul16(terms, a, tensor(f"{block}.router.halves", hidden, experts))
        z = logits(terms, sums, statistic, tensor(f"{block}.router.exponent", experts))
        weights = route(
            terms, terms.bias(z, tensor(f"{block}.router.bias", experts)), (config.chosen, True, 0)
        )
        rows = tensor(f"{block}.down.bias", experts, hidden)
        added = matmul16(terms, terms.rounded(weights, 16), rows)
        codes = tensor(f"{block}.gate_up.codes", experts, hidden, 2 * width)
        powers = tensor(f"{block}.gate_up.exponent", 2 * width)
        biases = tensor(f"{block}.gate_up.bias", experts * 2 * width)
        statistic = statistic_of(terms, statistic)
        inner = glus(terms, (a, codes, powers, statistic, weights, biases), CLIPPED)
        down = tensor(f"{block}.down.codes", experts, width, hidden), tensor(f"{block}.down.exponent", hidden)
        made = terms.matmul(inner, *down, -1, parts_of(width))
        named = {"router": weights, "gate and up": inner, "experts": made, "biases of down": added}
        out.places |= {term: f"{block}, {what}" for what, term in named.items()}
        return added, made
