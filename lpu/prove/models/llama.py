"""The dense decoder (family llama), read from its numbers alone: docs/proof.md, not the module.

Embedding; per layer attention and a gated FFN, each with its norm and residual; norm and head.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lpu.prove.models.record import HopPart, ModelTerms
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Scoring, Terms
from models.config import TransformerConfig

FAMILY = "llama"
ALIKE = ("gemma", "olmo", "smollm", "granite", "exaone")  # the same layers by other numbers
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
        angles = self._tensor(out, "angles", self._tables() * self.longest, 2, self._table_pairs())
        x = terms.embed(self._tensor(out, "embed.table", config.vocab, config.hidden))
        out.places[x] = "embedding"
        x = x if config.embedding_scale is None else terms.multiply(x, config.embedding_scale)
        for layer in range(config.layers):
            x = self._attention(out, f"layers.{layer}.attention", x, angles, config.kind_of(layer))
            ffn = f"layers.{layer}.ffn"
            x = self._after_attention(out, ffn, x)
            out.places[x] = ffn
        last, statistic = self._deferred(x, self._tensor(out, "norm.gain", config.hidden))
        logits = self._linear(out, "head", last, statistic, config.vocab, biased=False)
        logits = logits if config.logits_scale is None else terms.multiply(logits, config.logits_scale)
        out.logits = logits if config.logit_cap is None else terms.softcap(logits, config.logit_cap)
        out.places[out.logits] = "logits"
        return out

    def _tables(self) -> int:
        """Tables of RoPE: the second is that of layers with a window."""
        return 1 if self.config.window_theta is None else 2

    def _table_pairs(self) -> int:
        """Pairs of lanes of a position of RoPE's table."""
        return self.config.head_dim // 2

    def _residual(self, out: ModelTerms, block: str, x: int, y: int) -> int:
        """The sum of the residual and what a block gives, normed first or times a factor where it is."""
        config, terms = self.config, self.terms
        if config.norms != "pre":
            y = terms.norm32(y, self._tensor(out, f"{block}.post.gain", config.hidden), config.eps)
        if config.residual_scale is None:
            return terms.add(x, y)
        return terms.multiply_add(x, y, float(np.float32(config.residual_scale)))

    def _after_attention(self, out: ModelTerms, block: str, x: int) -> int:
        """The residual as a layer leaves it."""
        return self._residual(out, block, x, self._feed_forward(out, block, x))

    def _feed_forward(self, out: ModelTerms, block: str, x: int) -> int:
        """What a layer adds to the residual after attention, which is a part that a hop may compute."""
        config, ffn = self.config, partial(self._ffn, out, block)
        sent, statistic = self._sent(out, block, x)
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
        starts = (
            contract_parts(self.terms.width(value), self._unit(matrix)) if matrix in ("o", "down") else ()
        )
        biased = matrix in self.config.biased
        return self._linear(out, name, value, statistic, columns, biased=biased, starts=starts)

    def _unit(self, matrix: str) -> int:
        """Rows that stay in one contract part: of o a head, of down a strip that divides them."""
        if matrix == "o":
            return self.config.head_dim
        return STRIP if self.config.ffn % STRIP == 0 else 1

    def _scoring(self, out: ModelTerms, block: str, kind: str) -> Scoring:
        """What a layer of that kind sees, where that is less than all, and what becomes of its scores."""
        config = self.config
        window = config.window if kind == "window" else None
        span = config.span if kind == "span" else None
        return Scoring(
            window=window if window is not None and window < self.longest else 0,
            span=span if span is not None and span < self.longest else 0,
            scale=config.attention_scale or 0.0,
            cap=config.attention_cap or 0.0,
            sinks=self._tensor(out, f"{block}.sinks", config.heads) if config.sinks else -1,
        )

    def _block(self, form: Scoring) -> int:
        """Tokens of a block: of less than that, the next power of two."""
        seen, whole = form.window or form.span, self.config.attention_block
        return min(whole, 1 << (seen - 1).bit_length()) if seen else whole

    def _attention(self, out: ModelTerms, block: str, x: int, angles: int, kind: str) -> int:
        if self.config.norms == "post":
            a, statistic = self.terms.rounded(x, 16), -1
        else:
            a, statistic = self._deferred(x, self._gain(out, block, self.config.hidden))
        angles = -1 if kind == "nope" else angles
        x = self._residual(out, block, x, self._attended(out, block, a, statistic, angles, kind))
        out.places[x] = block
        return x

    def _attended(
        self, out: ModelTerms, block: str, a: int, statistic: int, angles: int, kind: str = "full"
    ) -> int:
        """The result of the heads of a normed input; angles: -1 where nothing is turned."""
        config, terms = self.config, self.terms
        q = self._matrix(out, block, "q", a, statistic)
        k, v = self._keys_and_values(out, block, a, statistic, kind)
        if config.qk_norm:
            q, k = (
                terms.norm(
                    value,
                    self._tensor(out, f"{block}.{which}_norm.gain", width),
                    config.eps,
                    width,
                )
                for which, value in (("q", q), ("k", k))
                for width in (terms.width(value) if config.whole_qk_norm else config.head_dim,)
            )
        first = self.longest if kind == "window" and config.window_theta is not None else 0
        if angles >= 0:
            q, k = (terms.rope(value, angles, config.head_dim, first) for value in (q, k))
        elif not config.qk_norm:
            q, k = self._unturned(out, q, k)
        v = self._kept_values(out, block, v)
        out.keys.append(k)
        out.values.append(v)
        form = self._scoring(out, block, kind)
        heads = terms.attention(q, k, v, config.head_dim, self._block(form), self.kv, form)
        for value, what in ((q, "queries"), (k, "keys"), (v, "values"), (heads, "heads")):
            out.places[value] = f"{block}, {what}"
        return self._matrix(out, block, "o", self._opened(out, block, a, statistic, heads))

    def _unturned(self, out: ModelTerms, q: int, k: int) -> tuple[int, int]:
        """Queries and keys of a layer without RoPE."""
        return self.terms.rounded(q, 16), self.terms.rounded(k, 16)

    def _keys_and_values(
        self, out: ModelTerms, block: str, a: int, statistic: int, kind: str
    ) -> tuple[int, int]:
        """The products of keys and of values."""
        k, v = (self._matrix(out, block, matrix, a, statistic) for matrix in "kv")
        return k, v

    def _kept_values(self, out: ModelTerms, block: str, v: int) -> int:
        """Values as the cache takes them."""
        return self.terms.rounded(v, 16)

    def _opened(self, out: ModelTerms, block: str, a: int, statistic: int, heads: int) -> int:
        """What the output matrix takes of the heads."""
        return heads

    def _sent(self, out: ModelTerms, block: str, x: int) -> tuple[int, int]:
        """The FFN's input as it is where the FFN runs, and the statistic that is left to apply."""
        if self.config.norms == "post":
            normed = self.terms.rounded(x, 16)
        else:
            gain = self._gain(out, block, self.config.hidden)
            if self.config.ffn_down is None:
                return self._deferred(x, gain)
            normed = self.terms.norm(x, gain, self.config.eps, self.config.hidden)
        return (self.terms.rounded(normed, 8) if self.config.ffn_down == "fp8" else normed), -1

    def _ffn(self, out: ModelTerms, block: str, value: int, statistic: int = -1) -> int:
        """What comes of the normed vector; rounded where it comes back in fp16."""
        made = self._answer(out, block, value, statistic)
        return self.terms.rounded(made, 16) if self.config.ffn_up == "fp16" else made

    def _answer(self, out: ModelTerms, block: str, value: int, statistic: int) -> int:
        """Gate and up of the normed vector, then down."""
        gate, up = (self._matrix(out, block, matrix, value, statistic) for matrix in ("gate", "up"))
        return self._matrix(out, block, "down", self.terms.glu(gate, up, self.config.activation))


def contract_parts(depth: int, unit: int) -> tuple[int, ...]:
    """First rows of the contract parts of `depth` rows, and `depth` (docs/facts/contract2.md section 2)."""
    units, count = depth // unit, MOST_PARTS
    while count > 1 and (count > units or depth < count * LEAST_ROWS):
        count //= 2
    return (*(number * units // count * unit for number in range(count)), depth) if count > 1 else ()
