"""The decoder with latent attention (family deepseek), read from its numbers alone: docs/proof.md.

Per layer latent attention in its absorbed form and a gated FFN, each with its norm and residual. A model
defined with keys and values expanded rounds otherwise: it has other terms, and is another model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from lpu.prove.models import experts
from lpu.prove.models.record import HopPart, ModelTerms
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Terms
from models.configs.latent import LatentConfig, LatentExpertsConfig

FAMILY, EXPERTS_FAMILY = "deepseek", "deepseek_experts"
STRIP, MOST_PARTS, LEAST_ROWS = 32, 8, 256  # docs/facts/contract2.md section 2, decision 0014


def read(terms: Terms, numbers: Mapping[str, Any], longest: int, kv: str) -> ModelTerms:
    """The terms of a step. Raises RefusedError for numbers that no such model has."""
    try:
        kind = LatentExpertsConfig if numbers.get("family") == EXPERTS_FAMILY else LatentConfig
        config = kind.of_fields(numbers)
        assert isinstance(config, LatentConfig)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RefusedError(f"the numbers of the model: {error}") from None
    if longest > config.longest:
        raise RefusedError(f"its indexer keeps {config.index_keeps} of {longest} tokens, the terms see all")
    return _Reading(terms, config, longest, kv).step()


@dataclass(slots=True)
class _Reading:
    terms: Terms
    config: LatentConfig
    longest: int
    kv: str

    def step(self) -> ModelTerms:
        """Token to logits."""
        config, terms, out = self.config, self.terms, ModelTerms()
        angles = self._tensor(out, "angles", self.longest, 2, config.rope // 2)
        x = terms.embed(self._tensor(out, "embed.table", config.vocab, config.hidden))
        out.places[x] = "embedding"
        for layer in range(config.layers):
            x = self._attention(out, f"layers.{layer}.attention", x, angles)
            x = self._feed_forward(out, f"layers.{layer}.ffn", layer, x)
        last = self._deferred(out, "norm", x)
        out.logits = self._matrix(out, "head", last, config.vocab)
        out.places[out.logits] = "logits"
        return out

    def _tensor(self, out: ModelTerms, name: str, *shape: int) -> int:
        out.tensors[name] = self.terms.tensor(name, shape)
        return out.tensors[name]

    def _deferred(self, out: ModelTerms, name: str, x: int) -> tuple[int, int]:
        """What products take of a norm that they finish: the scaled vector, and the statistic."""
        gain = self._tensor(out, f"{name}.gain", self.config.hidden)
        return self.terms.prescale(x, gain), self.terms.rms_stat(x, gain, self.config.eps)

    def _normed(self, out: ModelTerms, name: str, x: int) -> int:
        """A latent after its own norm."""
        width = self.terms.width(x)
        return self.terms.norm(x, self._tensor(out, f"{name}.gain", width), self.config.latent_eps, width)

    def _scale(self, out: ModelTerms, name: str, columns: int) -> int:
        kind = "scale" if self.config.column_scales == "f32" else "exponent"
        return self._tensor(out, f"{name}.{kind}", columns)

    def _matrix(
        self, out: ModelTerms, name: str, given: tuple[int, int], columns: int, starts: tuple[int, ...] = ()
    ) -> int:
        """A product with a scale per column. given: the vector, and a statistic or -1."""
        value, statistic = given
        codes = self._tensor(out, f"{name}.codes", self.terms.width(value), columns)
        made = self.terms.matmul(value, codes, self._scale(out, name, columns), statistic, starts)
        out.places[made] = name
        return made

    def _by_head(self, out: ModelTerms, name: str, value: int, columns: int) -> int:
        """A product of each head with a matrix of its own, rounded."""
        heads = self.config.heads
        codes = self._tensor(out, f"{name}.codes", self.terms.width(value), columns)
        made = self.terms.head_matmul(value, codes, self._scale(out, name, heads * columns))
        out.places[made] = name
        return self.terms.rounded(made, 16)

    def _attention(self, out: ModelTerms, block: str, x: int, angles: int) -> int:
        config, terms = self.config, self.terms
        given = self._deferred(out, f"{block}.norm", x)
        q = given
        if config.q_lora is not None:
            q = (
                self._normed(out, f"{block}.q_norm", self._matrix(out, f"{block}.q_a", given, config.q_lora)),
                -1,
            )
        nope = terms.rounded(self._matrix(out, f"{block}.q_nope", q, config.heads * config.nope), 16)
        turned = self._matrix(out, f"{block}.q_rope", q, config.heads * config.rope)
        latent = self._normed(
            out, f"{block}.kv_norm", self._matrix(out, f"{block}.kv_a", given, config.kv_lora)
        )
        key = self._matrix(out, f"{block}.k_rope", given, config.rope)
        turned, key = (terms.rope(value, angles, config.rope) for value in (turned, key))
        queries = self._by_head(out, f"{block}.absorb", nope, config.kv_lora), turned
        out.keys.append(key)
        out.values.append(latent)
        mixed = terms.latent_attention(queries, key, latent, config.sigma, config.attention_block, self.kv)
        heads = self._by_head(out, f"{block}.expand", mixed, config.value)
        names = (*zip(queries, ("queries of latents", "turned queries"), strict=True), (key, "turned keys"))
        for value, what in (*names, (latent, "latents"), (mixed, "mixed latents"), (heads, "heads")):
            out.places[value] = f"{block}, {what}"
        starts = _parts(terms.width(heads), config.value)
        x = terms.add(x, self._matrix(out, f"{block}.o", (heads, -1), config.hidden, starts))
        out.places[x] = block
        return x

    def _feed_forward(self, out: ModelTerms, block: str, layer: int, x: int) -> int:
        """A dense FFN or experts, which a hop may compute, and the residual sum."""
        config, terms = self.config, self.terms
        sparse = isinstance(config, LatentExpertsConfig) and layer >= config.dense
        make = partial(self._experts if sparse else self._ffn, out, block)

        def answer(value: int, statistic: int = -1) -> int:
            made = make((value, statistic))
            return terms.rounded(made, 16) if config.ffn_up == "fp16" else made

        eight = config.ffn_down == "fp8"
        out.parts[block] = HopPart(
            width=config.hidden,
            down=("fp8", "fp16") if eight else ("fp16",),
            up="fp16" if config.ffn_up == "fp16" else "f32",
            answer=answer,
        )
        if config.ffn_down is None:
            given = self._deferred(out, f"{block}.norm", x)
        else:
            gain = self._tensor(out, f"{block}.norm.gain", config.hidden)
            normed = terms.norm(x, gain, config.eps, config.hidden)
            given = (terms.rounded(normed, 8) if eight else normed), -1
        x = terms.add(x, answer(*given))
        out.places[x] = block
        return x

    def _ffn(self, out: ModelTerms, block: str, given: tuple[int, int]) -> int:
        """Gate and up of the normed vector, then down."""
        config = self.config
        gate, up = (self._matrix(out, f"{block}.{name}", given, config.ffn) for name in ("gate", "up"))
        inner = self.terms.glu(gate, up, config.activation)
        starts = _parts(config.ffn, STRIP if config.ffn % STRIP == 0 else 1)
        return self._matrix(out, f"{block}.down", (inner, -1), config.hidden, starts)

    def _experts(self, out: ModelTerms, block: str, given: tuple[int, int]) -> int:
        """Experts that a router chooses by sigmoid scores and a bias, and shared ones behind them."""
        config = cast(LatentExpertsConfig, self.config)
        sizes = experts.Sizes(config.hidden, config.experts, config.expert_ffn, config.activation)
        return experts.mixture(self.terms, out, block, given, sizes, experts.chosen_of(config.routing))


def _parts(depth: int, unit: int) -> tuple[int, ...]:
    """First rows of the contract parts of `depth` rows, and `depth` (docs/facts/contract2.md section 2)."""
    units, count = depth // unit, MOST_PARTS
    while count > 1 and (count > units or depth < count * LEAST_ROWS):
        count //= 2
    return (*(number * units // count * unit for number in range(count)), depth) if count > 1 else ()
