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
    """Reads such a model; no part of it is one that a hop computes."""

    def _feed_forward(self, out: ModelTerms, block: str, x: int) -> int:
        config = cast(ScoredConfig, self.config)
        given = self._deferred(x, self._gain(out, block, config.hidden))
        if int(block.split(".")[1]) < config.dense:
            return self._ffn(out, block, *given)
        sizes = Sizes(config.hidden, config.experts, config.expert_ffn, config.activation)
        return mixture(self.terms, out, block, given, sizes, chosen_of(config.routing))
