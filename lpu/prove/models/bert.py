"""An encoder (family bert), read from its numbers alone: docs/proof.md, not the module.

Token, first type, position, norm; per layer attention to the whole sequence and an FFN, each with biases, a
residual sum and a norm after it; a number for each label. A term is a row's value as all rows have it: what
attention sees of the others is said by its form.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lpu.prove.models.llama import STRIP, contract_parts
from lpu.prove.models.record import ModelTerms
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Scoring, Terms
from models.configs.encoder import FAMILY as FAMILY
from models.configs.encoder import EncoderConfig


def read(terms: Terms, numbers: Mapping[str, Any], longest: int, kv: str) -> ModelTerms:
    """The terms of a step. Raises RefusedError for numbers that no such model has."""
    try:
        config = EncoderConfig.of_fields(numbers)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RefusedError(f"the numbers of the model: {error}") from None
    if not isinstance(config, EncoderConfig):
        raise RefusedError("the numbers of the model are those of a decoder")
    return _Reading(terms, config, kv, ModelTerms()).step()


@dataclass(slots=True)
class _Reading:
    terms: Terms
    config: EncoderConfig
    kv: str
    out: ModelTerms

    def step(self) -> ModelTerms:
        """Token to the numbers of labels."""
        config, terms, out = self.config, self.terms, self.out
        x = terms.embed(self._tensor("embed.table", config.vocab, config.hidden))
        x = terms.bias(x, self._tensor("types", config.hidden))
        places = self._tensor("positions.table", config.max_context, config.hidden)
        x = self._norm("norm", terms.add(x, terms.embed(places, positions=True)), "embedding")
        for layer in range(config.layers):
            x = self._attention(f"layers.{layer}.attention", x)
            x = self._ffn(f"layers.{layer}.ffn", x)
        out.logits = self._linear("head", terms.rounded(x, 16), config.labels)
        out.places[out.logits] = "logits"
        return out

    def _tensor(self, name: str, *shape: int) -> int:
        self.out.tensors[name] = self.terms.tensor(name, shape)
        return self.out.tensors[name]

    def _norm(self, name: str, x: int, place: str) -> int:
        """A norm of the residual sum, from which the model goes on."""
        self.out.places[x] = f"{place}, before its norm"
        gain, bias = (self._tensor(f"{name}.{one}", self.config.hidden) for one in ("gain", "bias"))
        made = self.terms.layer_norm32(x, gain, bias, self.config.eps)
        self.out.places[made] = place
        return made

    def _linear(self, name: str, value: int, columns: int, unit: int = 0) -> int:
        """A product and its bias; unit: rows that stay in one contract part, 0: there are no parts."""
        terms, width = self.terms, self.terms.width(value)
        codes = self._tensor(f"{name}.codes", width, columns)
        scale = "scale" if self.config.column_scales == "f32" else "exponent"
        starts = contract_parts(width, unit) if unit else ()
        made = terms.matmul(value, codes, self._tensor(f"{name}.{scale}", columns), -1, starts)
        self.out.places[made] = name
        made = terms.bias(made, self._tensor(f"{name}.bias", columns))
        self.out.places[made] = name
        return made

    def _attention(self, block: str, x: int) -> int:
        config, terms, out = self.config, self.terms, self.out
        a = terms.rounded(x, 16)
        q, k, v = (
            terms.rounded(self._linear(f"{block}.{one}", a, config.hidden), 16) for one in ("q", "k", "v")
        )
        out.keys.append(k)
        out.values.append(v)
        form = Scoring(whole=True)
        heads = terms.attention(q, k, v, config.head_dim, config.attention_block, self.kv, form)
        for value, what in ((q, "queries"), (k, "keys"), (v, "values"), (heads, "heads")):
            out.places[value] = f"{block}, {what}"
        made = self._linear(f"{block}.o", heads, config.hidden, config.head_dim)
        return self._norm(f"{block}.norm", terms.add(x, made), block)

    def _ffn(self, block: str, x: int) -> int:
        config, terms = self.config, self.terms
        up = self._linear(f"{block}.up", terms.rounded(x, 16), config.ffn)
        unit = STRIP if config.ffn % STRIP == 0 else 1
        down = self._linear(f"{block}.down", terms.glu(up, up, "gelu_erf_alone"), config.hidden, unit)
        return self._norm(f"{block}.norm", terms.add(x, down), block)
