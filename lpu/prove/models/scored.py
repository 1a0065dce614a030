"""A decoder of experts that sigmoid scores choose (family scored), read from its numbers alone.

Attention and the frame are those of `llama.py`; a layer's FFN is dense, or the mixture of `experts.py`.
"""

from collections.abc import Mapping
from typing import Any, cast

from lpu.prove.models.experts import Sizes, chosen_of, mixture
from lpu.prove.models.llama import LlamaReading
from lpu.prove.models.record import ModelTerms
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Terms
from models.configs.scored import FAMILY as FAMILY
from models.configs.scored import ScoredConfig


def read(terms: Terms, numbers: Mapping[str, Any], longest: int, kv: str) -> ModelTerms:
    """The terms of a step. Raises RefusedError for numbers that no such model has."""
    try:
        config = ScoredConfig.of_fields(numbers)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RefusedError(f"the numbers of the model: {error}") from None
    return _ScoredReading(terms, config, longest, kv).step()


class _ScoredReading(LlamaReading):
    """Reads such a model."""

    def _answer(self, out: ModelTerms, block: str, value: int, statistic: int) -> int:
        config, given = cast(ScoredConfig, self.config), (value, statistic)
        if int(block.split(".")[1]) < config.dense:
            return super()._answer(out, block, *given)
        sizes = Sizes(config.hidden, config.experts, config.expert_ffn, config.activation)
        return mixture(self.terms, out, block, given, sizes, chosen_of(config.routing))
