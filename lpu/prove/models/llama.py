"""The dense decoder (family llama), read from its numbers alone: docs/proof.md, not the module.

Embedding; per layer attention and a gated FFN, each with its norm and residual; norm and head.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lpu.prove.models.record import HopPart, ModelTerms
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Terms
from models.config import TransformerConfig

FAMILY = "llama"
STRIP, MOST_PARTS, LEAST_ROWS = 32, 8, 256  # docs/facts/contract2.md section 2, decision 0014


def read(terms: Terms, numbers: Mapping[str, Any], longest: int, kv: str) -> ModelTerms:
    """The terms of a step. Raises RefusedError for numbers that no such model has."""
    try:
        config = TransformerConfig.of_fields(numbers)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RefusedError(f"the numbers of the model: {error}") from None
    return LlamaReading(terms, config, longest, kv).step()


@dataclass(slots=True)
class LlamaReading:
    """The terms of a dense decoder; other families read their like parts by it."""

    terms: Terms
    config: TransformerConfig
    longest: int
    kv: str

    def step(self) -> ModelTerms:
        """Token to logits."""
        config, terms, out = self.config, self.terms, ModelTerms()
        angles = self._tensor(out, "angles", self.longest, 2, config.head_dim // 2)
        x = terms.embed(self._tensor(out, "embed.table", config.vocab, config.hidden))
        out.places[x] = "embedding"
        for layer in range(config.layers):
            x = self._attention(out, f"layers.{layer}.attention", x, angles)
            x = terms.add(x, self._feed_forward(out, f"layers.{layer}.ffn", x))
            out.places[x] = f"layers.{layer}.ffn"
        last, statistic = self._deferred(x, self._tensor(out, "norm.gain", config.hidden))
        out.logits = self._linear(out, "head", last, statistic, config.vocab, biased=False)
        out.places[out.logits] = "logits"
        return out

    def _feed_forward(self, out: ModelTerms, block: str, x: int) -> int:
        """What a layer adds to the residual after attention, which is a part that a hop may compute."""
        config, ffn = self.config, partial(self._ffn, out, block)
        sent, statistic = self._sent(x, self._gain(out, block, config.hidden))
        out.parts[block] = HopPart(
            width=config.hidden,
            down=("fp8", "fp16") if config.ffn_down == "fp8" else ("fp16",),
            up="fp16" if config.ffn_up == "fp16" else "f32",
            answer=ffn,
        )
        return ffn(sent, statistic)

    def _tensor(self, out: ModelTerms, name: str, *shape: int) -> int:
        out.tensors[name] = self.terms.tensor(name, shape)
        return out.tensors[name]

    def _gain(self, out: ModelTerms, block: str, width: int) -> int:
        return self._tensor(out, f"{block}.norm.gain", width)

    def _deferred(self, x: int, gain: int) -> tuple[int, int]:
        """What products take of a norm that they finish: the scaled vector, and the statistic."""
        return self.terms.prescale(x, gain), self.terms.rms_stat(x, gain, self.config.eps)

    def _linear(
        self,
        out: ModelTerms,
        name: str,
        value: int,
        statistic: int,
        columns: int,
        *,
        biased: bool,
        starts: tuple[int, ...] = (),
    ) -> int:
        """A product with a scale per column, and a bias where the model has one; statistic: -1 for none."""
        codes = self._tensor(out, f"{name}.codes", self.terms.width(value), columns)
        scale = "scale" if self.config.column_scales == "f32" else "exponent"
        made = self.terms.matmul(
            value, codes, self._tensor(out, f"{name}.{scale}", columns), statistic, starts
        )
        out.places[made] = name
        if biased:
            made = self.terms.bias(made, self._tensor(out, f"{name}.bias", columns))
            out.places[made] = name
        return made

    def _matrix(self, out: ModelTerms, block: str, matrix: str, value: int, statistic: int = -1) -> int:
        name, columns = f"{block}.{matrix}", self.config.width_of(matrix)
        starts = _parts(self.terms.width(value), self._unit(matrix)) if matrix in ("o", "down") else ()
        biased = matrix in self.config.biased
        return self._linear(out, name, value, statistic, columns, biased=biased, starts=starts)

    def _unit(self, matrix: str) -> int:
        """Rows that stay in one contract part: of o a head, of down a strip that divides them."""
        if matrix == "o":
            return self.config.head_dim
        return STRIP if self.config.ffn % STRIP == 0 else 1

    def _attention(self, out: ModelTerms, block: str, x: int, angles: int) -> int:
        a, statistic = self._deferred(x, self._gain(out, block, self.config.hidden))
        x = self.terms.add(x, self._attended(out, block, a, statistic, angles))
        out.places[x] = block
        return x

    def _attended(self, out: ModelTerms, block: str, a: int, statistic: int, angles: int) -> int:
        """The result of the heads of a normed input; angles: -1 where nothing is turned."""
        config, terms = self.config, self.terms
        q, k, v = (self._matrix(out, block, matrix, a, statistic) for matrix in "qkv")
        if config.qk_norm:
            q, k = (
                terms.norm(
                    value,
                    self._tensor(out, f"{block}.{which}_norm.gain", config.head_dim),
                    config.eps,
                    config.head_dim,
                )
                for which, value in (("q", q), ("k", k))
            )
        q, k = (
            terms.rounded(value, 16) if angles < 0 else terms.rope(value, angles, config.head_dim)
            for value in (q, k)
        )
        v = terms.rounded(v, 16)
        out.keys.append(k)
        out.values.append(v)
        heads = terms.attention(q, k, v, config.head_dim, config.attention_block, self.kv)
        for value, what in ((q, "queries"), (k, "keys"), (v, "values"), (heads, "heads")):
            out.places[value] = f"{block}, {what}"
        return self._matrix(out, block, "o", heads)

    def _sent(self, x: int, gain: int) -> tuple[int, int]:
        """The FFN's input as it is where the FFN runs, and the statistic that is left to apply."""
        if self.config.ffn_down is None:
            return self._deferred(x, gain)
        normed = self.terms.norm(x, gain, self.config.eps, self.config.hidden)
        return (self.terms.rounded(normed, 8) if self.config.ffn_down == "fp8" else normed), -1

    def _ffn(self, out: ModelTerms, block: str, value: int, statistic: int = -1) -> int:
        """Gate and up of the normed vector, then down; rounded where the result comes back in fp16."""
        gate, up = (self._matrix(out, block, matrix, value, statistic) for matrix in ("gate", "up"))
        down = self._matrix(out, block, "down", self.terms.glu(gate, up, self.config.activation))
        return self.terms.rounded(down, 16) if self.config.ffn_up == "fp16" else down


def _parts(depth: int, unit: int) -> tuple[int, ...]:
    """First rows of the contract parts of `depth` rows, and `depth` (docs/facts/contract2.md section 2)."""
    units, count = depth // unit, MOST_PARTS
    while count > 1 and (count > units or depth < count * LEAST_ROWS):
        count //= 2
    return (*(number * units // count * unit for number in range(count)), depth) if count > 1 else ()
