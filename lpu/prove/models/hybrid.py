"""Hybrid decoders (family hybrid), read from their numbers alone: docs/proof.md, not the module.

Embedding; the parts of each layer in the order of its word, each with its norm and residual; norm and head.
"""

from collections.abc import Mapping
from typing import Any, cast

from lpu.prove.models.experts import Sizes, chosen_of, mixture
from lpu.prove.models.llama import STRIP, LlamaReading, contract_parts
from lpu.prove.models.record import ModelTerms
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Terms
from models.configs.hybrid import BOTH, EXPERTS, FFN, MIXER, HybridConfig


def read(terms: Terms, numbers: Mapping[str, Any], longest: int, kv: str) -> ModelTerms:
    """The terms of a step. Raises RefusedError for numbers that no such model has."""
    try:
        config = HybridConfig.of_fields(numbers)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RefusedError(f"the numbers of the model: {error}") from None
    return _HybridReading(terms, config, longest, kv).step()


class _HybridReading(LlamaReading):
    @property
    def _numbers(self) -> HybridConfig:
        return cast(HybridConfig, self.config)

    def step(self) -> ModelTerms:
        """Token to logits."""
        config, terms, out = self._numbers, self.terms, ModelTerms()
        angles = -1
        if config.turns:
            angles = self._tensor(out, "angles", self.longest, 2, config.head_dim // 2)
        x = terms.embed(self._tensor(out, "embed.table", config.vocab, config.hidden))
        out.places[x] = "embedding"
        for layer, word in enumerate(config.pattern):
            for part in word:
                x = self._part(out, f"layers.{layer}", part, x, angles)
        last, statistic = self._deferred(x, self._tensor(out, "norm.gain", config.hidden))
        out.logits = self._linear(out, "head", last, statistic, config.vocab, biased=False)
        out.places[out.logits] = "logits"
        return out

    def _part(self, out: ModelTerms, layer: str, part: str, x: int, angles: int) -> int:
        """One part of a layer: its sum with the residual."""
        terms, named = self.terms, {MIXER: "mixer", FFN: "ffn", EXPERTS: "experts"}
        block = f"{layer}.{named.get(part, 'attention')}"
        a = self._deferred(x, self._gain(out, block, self._numbers.hidden))
        if part == MIXER:
            made = self._mixed(out, block, *a)
        elif part == FFN:
            made = self._ffn(out, block, *a)
        elif part == EXPERTS:
            made = self._experts(out, block, a)
        else:
            made = self._attended(out, block, *a, angles)
        if part == BOTH:
            made = terms.add(self._mixed(out, f"{layer}.mixer", *a), made)
        made = terms.add(x, made)
        out.places[made] = block
        return made

    def _experts(self, out: ModelTerms, block: str, a: tuple[int, int]) -> int:
        """Experts of the input; or of latents of it, which wait for the statistic too, and an FFN beside."""
        config, terms = self._numbers, self.terms
        sizes = Sizes(config.hidden, config.experts, config.expert_ffn, config.expert_activation)
        chosen = chosen_of(config.routing)
        if not config.latent:
            return mixture(terms, out, block, a, sizes, chosen)

        def product(
            name: str, value: int, columns: int, statistic: int = -1, starts: tuple[int, ...] = ()
        ) -> int:
            return self._linear(
                out, f"{block}.{name}", value, statistic, columns, biased=False, starts=starts
            )

        latent = terms.rounded(product("into", a[0], config.latent), 16)
        made = mixture(terms, out, block, a, sizes, chosen, latent)
        made = product("out", terms.rounded(made, 16), config.hidden)
        up = product("shared_up", a[0], config.shared_ffn, a[1])
        starts = contract_parts(config.shared_ffn, STRIP if config.shared_ffn % STRIP == 0 else 1)
        down = product("shared_down", terms.glu(up, up, "relu"), config.hidden, -1, starts)
        return terms.add(down, made)

    def _ffn(self, out: ModelTerms, block: str, value: int, statistic: int = -1) -> int:
        """Where FFNs have no gate: what goes up times its relu, then down."""
        if not self._numbers.squared:
            return super()._ffn(out, block, value, statistic)
        up = self._matrix(out, block, "up", value, statistic)
        return self._matrix(out, block, "down", self.terms.glu(up, up, "relu"))

    def _opened(self, out: ModelTerms, block: str, a: int, statistic: int, heads: int) -> int:
        """The heads times the sigmoid of their gates, where they have some."""
        if not self._numbers.attention_gate:
            return heads
        gates = self._linear(out, f"{block}.gate", a, statistic, self.terms.width(heads), biased=False)
        return self.terms.gate16(heads, gates)

    def _mixed(self, out: ModelTerms, block: str, a: int, statistic: int) -> int:
        config = self._numbers
        mixer = self._delta if config.rule == "delta" else self._selective if config.rank else self._mixer
        return mixer(out, block, a, statistic)

    def _delta(self, out: ModelTerms, block: str, a: int, statistic: int) -> int:
        """The gated delta rule: heads of values have decays and betas, groups of those a query and a key."""
        config, terms = self._numbers, self.terms

        def product(name: str, columns: int, biased: bool = False) -> int:
            return self._linear(out, f"{block}.{name}", a, statistic, columns, biased=biased)

        values = self._conv(out, f"{block}.conv_x", product("x", config.channels))
        both = self._conv(out, f"{block}.conv_bc", product("bc", config.both))
        lengths = terms.l2_norm(both, 1e-6, config.states)
        decay = self._tensor(out, f"{block}.step.decay", config.channels)
        numbers = product("dt", 2 * config.ssm_heads, biased=True)
        y = terms.delta(values, numbers, lengths, decay, (config.states, config.groups))
        out.states += [values, both, y]
        lanes = config.channels // config.ssm_heads
        y = terms.norm32(y, self._tensor(out, f"{block}.out_norm.gain", lanes), config.eps, lanes)
        y = terms.rounded(terms.gate(y, product("z", config.channels)), 16)
        for value, what in ((values, "values"), (both, "queries and keys"), (y, "results")):
            out.places[value] = f"{block}, {what}"
        return self._linear(out, f"{block}.o", y, -1, config.hidden, biased=False)

    def _selective(self, out: ModelTerms, block: str, a: int, statistic: int) -> int:
        """Mamba-1: each channel with its own time step, and its own decay for each state."""
        config, terms = self._numbers, self.terms

        def product(name: str, value: int, columns: int, statistic: int = -1, biased: bool = False) -> int:
            return self._linear(out, f"{block}.{name}", value, statistic, columns, biased=biased)

        channels = self._conv(out, f"{block}.conv_x", product("x", a, config.channels, statistic))
        rounded = terms.rounded(channels, 16)
        low, both = product("low", rounded, config.rank), product("bc", rounded, config.both)
        if config.step_norms:
            gain = self._tensor(out, f"{block}.low_norm.gain", config.rank)
            low = terms.norm(low, gain, config.eps, config.rank)
            gain = self._tensor(out, f"{block}.bc_norm.gain", config.both)
            both = terms.norm32(both, gain, config.eps, config.states)
        else:
            low = terms.rounded(low, 16)
        raw = product("dt", low, config.channels, biased=True)
        decay = self._tensor(out, f"{block}.step.decay", config.channels * config.states)
        through = self._tensor(out, f"{block}.step.through", config.channels)
        attributes = (config.states, config.groups, config.step_low, config.step_high)
        y = terms.ssm(channels, raw, both, decay, through, attributes)
        out.states += [channels, y]
        out.places[channels], out.places[y] = f"{block}, channels", f"{block}, results"
        gated = terms.rounded(terms.gate(y, product("z", a, config.channels, statistic)), 16)
        return product("o", gated, config.hidden)

    def _mixer(self, out: ModelTerms, block: str, a: int, statistic: int) -> int:
        config, terms = self._numbers, self.terms

        def product(name: str, columns: int) -> int:
            return self._linear(out, f"{block}.{name}", a, statistic, columns, biased=name == "dt")

        channels = self._conv(out, f"{block}.conv_x", product("x", config.channels))
        both = self._conv(out, f"{block}.conv_bc", product("bc", config.both))
        decay, through = (
            self._tensor(out, f"{block}.step.{name}", config.channels) for name in ("decay", "through")
        )
        attributes = (config.states, config.groups, config.step_low, config.step_high)
        y = terms.ssm(channels, product("dt", config.ssm_heads), both, decay, through, attributes)
        out.states += [channels, both, y]
        y = terms.gate(y, product("z", config.channels))
        for value, what in ((channels, "channels"), (both, "B and C"), (y, "results")):
            out.places[value] = f"{block}, {what}"
        if config.mixer_norm == "gated":
            gain = self._tensor(out, f"{block}.out_norm.gain", config.channels)
            if config.norm_groups:
                lanes = config.channels // config.groups
                y = terms.rounded(terms.norm32(y, gain, config.eps, lanes), 16)
            else:
                y = terms.norm(y, gain, config.eps, config.channels)
        else:
            y = terms.rounded(y, 16)
        return self._linear(out, f"{block}.o", y, -1, config.hidden, biased=False)

    def _conv(self, out: ModelTerms, name: str, value: int) -> int:
        width = self.terms.width(value)
        taps = [self._tensor(out, f"{name}.tap{tap}", width) for tap in range(self._numbers.taps)]
        if self._numbers.conv_biased:
            taps.append(self._tensor(out, f"{name}.bias", width))
        return self.terms.conv(value, tuple(taps), self._numbers.conv_biased)
