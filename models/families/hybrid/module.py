"""The parts of hybrid decoders in the op vocabulary, and the decoder: the reference, bit by bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float16, Float32, Int32

from models.configs.hybrid import ATTENTION, BOTH, EXPERTS, FFN, MIXER, HybridConfig
from models.contract import ops
from models.contract.parts import down_starts
from models.families.experts import Mixture
from models.families.hybrid.latent_experts import LatentMixture
from models.families.llama import Angles, Attention, FeedForward, LayerKV, Positions
from models.kv import KVCache, KVFormat, kv_shape
from models.parts import Embedding, Linear, Norm, Normed
from models.rope import rope_angles, rope_turns
from models.rope_scaling import Scaling

Residual = Float32[Array, "batch hidden"]
Held = tuple[Any, Any, tuple[Any, ...]]
"""Keys, values and states of a part; None and () for those that it has not."""
States = tuple[Array, ...]
"""Of a mixer: f32 [sequences, kept, channels] each."""


class Conv(nnx.Module):
    """The convolution of each channel over its last inputs."""

    def __init__(self, channels: int, config: HybridConfig) -> None:
        for tap in range(config.taps):
            setattr(self, f"tap{tap}", nnx.Param(jnp.zeros(channels, jnp.float32)))
        if config.conv_biased:
            self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))
        self.config = config

    def __call__(
        self, x: Float32[Array, "batch channels"], state: Array, position: Int32[Array, " batch"]
    ) -> tuple[Float32[Array, "batch channels"], Array]:
        """Its silu, and the inputs that are kept."""
        taps = tuple(getattr(self, f"tap{tap}")[...] for tap in range(self.config.taps))
        return ops.conv(x, state, position, taps, self.bias[...] if self.config.conv_biased else None)


class Mixer(nnx.Module):
    """The state space layer of Mamba-2, its norms and its residual."""

    def __init__(self, config: HybridConfig, *, normed: bool = True) -> None:
        hidden, channels, scaled = config.hidden, config.channels, config.column_scales == "f32"
        if normed:
            self.norm = Norm(hidden, config.eps)
        self.z = Linear(hidden, channels, scaled=scaled)
        self.x = Linear(hidden, channels, scaled=scaled)
        self.bc = Linear(hidden, config.both, scaled=scaled)
        self.dt = Linear(hidden, config.ssm_heads, scaled=scaled, bias=True)
        self.conv_x = Conv(channels, config)
        self.conv_bc = Conv(config.both, config)
        self.step = nnx.Dict(
            {name: nnx.Param(jnp.zeros(channels, jnp.float32)) for name in ("decay", "through")}
        )
        if config.mixer_norm == "gated":
            self.out_norm = Norm(channels, config.eps)
        self.o = Linear(channels, hidden, scaled=scaled)
        self.config = config

    def __call__(
        self, x: Residual, states: States, position: Int32[Array, " batch"]
    ) -> tuple[Residual, States]:
        """One token per row; the states come back as they are after it."""
        a = self.norm.deferred(x)
        out, states = self.mixed(a, states, position)
        return ops.add(x, self.o(out)), states

    def mixed(
        self, a: Normed, states: States, position: Int32[Array, " batch"]
    ) -> tuple[Float16[Array, "batch channels"], States]:
        """What the output matrix takes, of the normed input."""
        config, step = self.config, self.step
        x, held_x = self.conv_x(self.x(a), states[0], position)
        bc, held_bc = self.conv_bc(self.bc(a), states[1], position)
        y, held = ops.ssm(
            x,
            self.dt(a),
            bc,
            step["decay"][...],
            step["through"][...],
            states[2],
            position,
            groups=config.groups,
            low=config.step_low,
            high=config.step_high,
        )
        return self._normed(ops.gate(y, self.z(a))), (held_x, held_bc, held)

    def _normed(self, y: Float32[Array, "batch channels"]) -> Float16[Array, "batch channels"]:
        """The gated results over all channels, over those of each group, or as they are."""
        if self.config.mixer_norm == "none":
            return ops.round16(y)
        if not self.config.norm_groups:
            return self.out_norm(y)
        heads = y.reshape(-1, self.config.groups, self.config.channels // self.config.groups)
        return ops.round16(self.out_norm.in_f32(heads).reshape(y.shape))


class SelectiveMixer(Mixer):
    """The state space layer of Mamba-1: B, C and the time steps are made of what the convolution leaves.

    A factor of 1 lays B and C, and what the time steps are made of, out by themselves.
    """

    def __init__(self, config: HybridConfig, *, normed: bool = True) -> None:
        hidden, channels, scaled = config.hidden, config.channels, config.column_scales == "f32"
        if normed:
            self.norm = Norm(hidden, config.eps)
        self.x = Linear(hidden, channels, scaled=scaled)
        self.z = Linear(hidden, channels, scaled=scaled)
        self.conv_x = Conv(channels, config)
        self.low = Linear(channels, config.rank, scaled=scaled)
        self.bc = Linear(channels, config.both, scaled=scaled)
        self.dt = Linear(config.rank, channels, scaled=scaled, bias=True)
        decays = {"decay": channels * config.states, "through": channels}
        self.step = nnx.Dict(
            {name: nnx.Param(jnp.zeros(width, jnp.float32)) for name, width in decays.items()}
        )
        if config.step_norms:
            self.low_norm = Norm(config.rank, config.eps)
            self.bc_norm = Norm(config.both, config.eps)
        self.o = Linear(channels, hidden, scaled=scaled)
        self.config = config

    def mixed(
        self, a: Normed, states: States, position: Int32[Array, " batch"]
    ) -> tuple[Float16[Array, "batch channels"], States]:
        """What the output matrix takes, of the normed input."""
        config, step = self.config, self.step
        x, held_x = self.conv_x(self.x(a), states[0], position)
        x16 = ops.round16(x)
        low, bc = self.low(x16), ops.multiply(self.bc(x16), factor=1.0)
        if config.step_norms:
            low16 = self.low_norm(low)
            bc = self.bc_norm.in_f32(bc.reshape(-1, 2, config.states)).reshape(bc.shape)
        else:
            low16 = ops.round16(ops.multiply(low, factor=1.0))
        y, held = ops.ssm(
            x,
            self.dt(low16),
            bc,
            step["decay"][...],
            step["through"][...],
            states[1],
            position,
            low=config.step_low,
            high=config.step_high,
        )
        return ops.round16(ops.gate(y, self.z(a))), (held_x, held)


class DeltaMixer(Mixer):
    """The gated delta layer (Gated DeltaNet): values in `x`, queries and keys in `bc`.

    dt: what decays of all heads are made of, then their betas.
    """

    def __init__(self, config: HybridConfig, *, normed: bool = True) -> None:
        hidden, channels, scaled = config.hidden, config.channels, config.column_scales == "f32"
        if normed:
            self.norm = Norm(hidden, config.eps)
        self.z = Linear(hidden, channels, scaled=scaled)
        self.x = Linear(hidden, channels, scaled=scaled)
        self.bc = Linear(hidden, config.both, scaled=scaled)
        self.dt = Linear(hidden, 2 * config.ssm_heads, scaled=scaled, bias=True)
        self.conv_x = Conv(channels, config)
        self.conv_bc = Conv(config.both, config)
        self.step = nnx.Dict({"decay": nnx.Param(jnp.zeros(channels, jnp.float32))})
        self.out_norm = Norm(channels // config.ssm_heads, config.eps)
        self.o = Linear(channels, hidden, scaled=scaled)
        self.config = config

    def mixed(
        self, a: Normed, states: States, position: Int32[Array, " batch"]
    ) -> tuple[Float16[Array, "batch channels"], States]:
        """What the output matrix takes, of the normed input."""
        config = self.config
        v, held_x = self.conv_x(self.x(a), states[0], position)
        both, held_bc = self.conv_bc(self.bc(a), states[1], position)
        qk = ops.l2_norm(both.reshape(-1, 2 * config.groups, config.states)).reshape(both.shape)
        decay = self.step["decay"][...]
        y, held = ops.delta(v, self.dt(a), qk, decay, states[2], position, groups=config.groups)
        heads = y.reshape(-1, config.ssm_heads, config.channels // config.ssm_heads)
        normed = self.out_norm.in_f32(heads).reshape(y.shape)
        return ops.round16(ops.gate(normed, self.z(a))), (held_x, held_bc, held)


def _mixture_of(config: HybridConfig) -> Mixture:
    width, activation = config.expert_ffn, config.expert_activation
    return Mixture(config, config.experts, width, config.routing, activation)


def _mixer_of(config: HybridConfig) -> type[Mixer]:
    if config.rule == "delta":
        return DeltaMixer
    return SelectiveMixer if config.rank else Mixer


class SquaredFeedForward(FeedForward):
    """An FFN without a gate: relu squared of what goes up."""

    def __init__(self, config: HybridConfig) -> None:
        scaled = config.column_scales == "f32"
        self.norm = Norm(config.hidden, config.eps)
        self.up = Linear(config.hidden, config.ffn, scaled=scaled)
        self.down = Linear(config.ffn, config.hidden, scaled=scaled, starts=down_starts(config.ffn))

    def __call__(self, x: Residual) -> Residual:
        """One vector per row."""
        up = self.up(self.norm.deferred(x))
        return ops.add(x, self.down(ops.glu(up, up, activation="relu")))


class GatedAttention(Attention):
    """Attention whose heads are times the sigmoid of gates, made of what queries are made of."""

    def __init__(self, config: HybridConfig, *, context: int) -> None:
        super().__init__(config, context=context)
        scaled = config.column_scales == "f32"
        self.gate = Linear(config.hidden, config.heads * config.head_dim, scaled=scaled)

    def attended(
        self,
        a: Normed | Float16[Array, "batch hidden"],
        angles: Angles | None,
        position: Positions,
        k_cache: LayerKV,
        v_cache: LayerKV,
    ) -> tuple[Float16[Array, "batch lanes"], LayerKV, LayerKV]:
        """What `o` takes, of what products read."""
        out, k_cache, v_cache = super().attended(a, angles, position, k_cache, v_cache)
        return ops.gate16(out, self.gate(a)), k_cache, v_cache


class HybridLayer(nnx.Module):
    """The parts of one layer, in the order of its word."""

    def __init__(self, config: HybridConfig, word: str, *, context: int) -> None:
        self.word = word
        if MIXER in word or BOTH in word:
            self.mixer = _mixer_of(config)(config, normed=MIXER in word)
        if ATTENTION in word or BOTH in word:
            kind = GatedAttention if config.attention_gate else Attention
            self.attention = kind(config, context=context)
        if FFN in word:
            self.ffn = SquaredFeedForward(config) if config.squared else FeedForward(config)
        if EXPERTS in word:
            self.experts = LatentMixture(config) if config.latent else _mixture_of(config)

    def __call__(
        self, part: str, x: Residual, angles: Angles | None, position: Positions, held: Held
    ) -> tuple[Residual, Held]:
        """One of its parts; what it keeps comes back as it is after the token."""
        keys, values, states = held
        if part in (FFN, EXPERTS):
            with jax.named_scope("ffn"):
                return (self.ffn(x) if part == FFN else self.experts(x)), held
        if part == MIXER:
            with jax.named_scope("mixer"):
                x, states = self.mixer(x, states, position)
                return x, (keys, values, states)
        with jax.named_scope("attention"):
            a = self.attention.norm.deferred(x)
            out, keys, values = self.attention.attended(a, angles, position, keys, values)
            attended = self.attention.o(out)
        if part == ATTENTION:
            with jax.named_scope("attention"):
                return ops.add(x, attended), (keys, values, states)
        with jax.named_scope("mixer"):
            out, states = self.mixer.mixed(a, states, position)
            return ops.add(x, ops.add(self.mixer.o(out), attended)), (keys, values, states)


class Hybrid(nnx.Module):
    """A decoder of such layers; it takes one token per row, as `models.decoder.Decoder` does."""

    def __init__(self, config: HybridConfig, *, batch: int, context: int, kv: KVFormat = "fp16") -> None:
        if context > config.longest:
            raise ValueError(f"{config.name}: context {context} is above its longest, {config.longest}.")
        self.config, self.batch, self.context = config, batch, context
        self.kv: KVFormat = kv
        self.embed = Embedding(config.vocab, config.hidden)
        if config.turns:
            self.angles = nnx.Variable(jnp.asarray(self.constants()["angles"]))
        self.layers = nnx.List([HybridLayer(config, word, context=context) for word in config.pattern])
        self.norm = Norm(config.hidden, config.eps)
        self.head = Linear(config.hidden, config.vocab, scaled=config.column_scales == "f32")

    def constants(self) -> dict[str, Int32[np.ndarray, "context 2 pairs"]]:
        """The table of RoPE, where there is attention."""
        return {"angles": rope_angles(self.context, *self._turning())} if self.config.turns else {}

    def plain_constants(self) -> dict[str, Float32[np.ndarray, "context 2 pairs"]]:
        """The same unrounded, for the plain f32 step."""
        return {"angles": rope_turns(self.context, *self._turning())} if self.config.turns else {}

    def _turning(self) -> tuple[int, float, Scaling | None, int | None]:
        config = self.config
        return config.head_dim, config.rope_theta, config.rope_scaling, config.turned_lanes

    def cache_shape(self) -> KVCache:
        """Shapes of K and V of the layers with attention, and of the states of those with a mixer."""
        config = self.config
        kv = kv_shape(config.attentions, self.batch, self.context, config.kv_heads, config.head_dim, self.kv)
        leaves = [jax.ShapeDtypeStruct((self.batch, *shape), jnp.float32) for shape in config.kept]
        return kv._replace(state=tuple(leaves * config.mixers))

    def __call__(
        self, tokens: Int32[Array, " batch"], position: Int32[Array, " batch"], cache: KVCache
    ) -> tuple[Float32[Array, "batch vocab"], Int32[Array, " batch"], KVCache]:
        """Logits and the most likely next token, and what is kept after these tokens."""
        keys: list[Array] = []
        values: list[Array] = []
        states: list[Array] = []
        angles = self.angles[...] if self.config.turns else None
        with jax.named_scope("embed"):
            x = self.embed(tokens)
        for i, layer in enumerate(self.layers):
            for part in layer.word:
                held = _held(part, cache, len(keys), len(states), len(self.config.kept))
                with jax.named_scope(f"layers.{i}"):
                    x, (k, v, kept) = layer(part, x, angles, position, held)
                if part in (ATTENTION, BOTH):
                    keys.append(k)
                    values.append(v)
                states += kept
        with jax.named_scope("head"):
            logits = self.head(self.norm.deferred(x))
            token = ops.argmax(logits)
        return logits, token, KVCache(tuple(keys), tuple(values), tuple(states))


def _held(part: str, cache: KVCache, attended: int, kept: int, count: int) -> Held:
    """What a part reads of the cache, after this many layers with attention and states; it has `count`."""
    attends, mixes = part in (ATTENTION, BOTH), part in (MIXER, BOTH)
    keys, values = (cache.k[attended], cache.v[attended]) if attends else (None, None)
    return keys, values, cache.state[kept : kept + count] if mixes else ()
