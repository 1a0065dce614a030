"""The operators of hybrid decoders' layers on GPUs: mixers with a state, attention, FFNs and experts.

Channels of a mixer are split over the GPUs by heads; B and C, or queries and keys, with their groups, or
copied where there are fewer of these. All of it assumed, as no table here has times of such kernels: a
token's step reads and writes f32 states at the rate of elementwise kernels; a prompt goes through chunks of
256 tokens by products (for each token and channel half a chunk of sums and two passes over the states), or in
Mamba-1, which has no such form, through one kernel that is bound by the bytes of its inputs.
"""

from collections import Counter
from math import ceil
from typing import cast

from compiler.errors import OptionError
from lpu.gpu.breakdown import Breakdown, OpTime
from lpu.gpu.families.llama import LlamaLaunches
from lpu.gpu.launches import Launches, Mixed
from lpu.gpu.operators import ACTIVATION_BYTES, KV_BYTES, WEIGHT_BYTES, KvFormat
from models.config import MATRICES_PER_FFN, TransformerConfig
from models.configs.hybrid import ATTENTION, BOTH, EXPERTS, FFN, MIXER, HybridConfig

CHUNK = 256
"""Tokens of a chunk. Source: chunk_size of Mamba-2's, Bamba's and Granite's configs."""
_F32 = 2  # 16-bit numbers


class HybridLaunches(LlamaLaunches):
    """kind: the word of a layer, a letter for each part; `attention`: what depends on sequences."""

    def kinds(self, config: TransformerConfig) -> dict[str, int]:
        """How many layers there are of each word."""
        return dict(Counter(cast(HybridConfig, config).pattern))

    def divides(self, config: TransformerConfig, gpus: int) -> bool:
        """Whether heads of attention and of mixers do, where a model has them."""
        own = cast(HybridConfig, config)
        attends = not own.attentions or LlamaLaunches.divides(self, config, gpus)
        return attends and (not own.mixers or own.ssm_heads % gpus == 0)

    def decode(
        self, on: Launches, config: TransformerConfig, kind: str, batch: int, kv_len: int, kv: KvFormat
    ) -> OpTime:
        """Attention over the keys, and the step of the states of each sequence."""
        ops = [LlamaLaunches.decode(self, on, config, kind, batch, kv_len, kv)] if _attends(kind) else []
        return _joined(ops + ([_step(on, cast(HybridConfig, config), batch)] if _mixes(kind) else []))

    def verify(
        self,
        on: Launches,
        config: TransformerConfig,
        kind: str,
        batch: int,
        rows: int,
        kv_len: int,
        kv: KvFormat,
    ) -> OpTime:
        """Rows of a sequence go through its states one after another, which are read once.

        Those behind each row are written, so that rejected drafts can be taken back.
        """
        about = on, config, kind, batch, rows, kv_len, kv
        ops = [LlamaLaunches.verify(self, *about)] if _attends(kind) else []
        return _joined(ops + ([_step(on, cast(HybridConfig, config), batch, rows)] if _mixes(kind) else []))

    def prefill(
        self,
        on: Launches,
        config: TransformerConfig,
        kind: str,
        batch: int,
        tokens: int,
        prefix: int,
        kv: KvFormat,
    ) -> OpTime:
        """Causal attention, and chunks of the prompt through the states."""
        about = on, config, kind, batch, tokens, prefix, kv
        ops = [LlamaLaunches.prefill(self, *about)] if _attends(kind) else []
        return _joined(
            ops + ([_chunks(on, cast(HybridConfig, config), batch, tokens)] if _mixes(kind) else [])
        )

    def attention_half(
        self, on: Launches, config: TransformerConfig, kind: str, rows: int, attention: OpTime
    ) -> Breakdown:
        """Mixers and attention of a layer, each with its norm and its sum over the GPUs."""
        own, out = cast(HybridConfig, config), on.breakdown()
        for what in (_mixer, _attention):
            if (_mixes if what is _mixer else _attends)(kind):
                norm = on.elementwise("norm", 4 * rows * own.hidden)  # adds the residual of the part before
                reduced = on.all_reduce("o_all_reduce", rows * own.hidden * ACTIVATION_BYTES)
                out = out.then(on.breakdown(norm, *what(on, own, rows), *reduced))
        return out.then(on.breakdown(attention)) if attention.launches else out

    def ffn_half(self, on: Launches, config: TransformerConfig, kind: str, rows: int) -> Breakdown:
        """FFNs and experts of a layer; nothing where it has neither."""
        own, out = cast(HybridConfig, config), on.breakdown()
        norm = on.elementwise("ffn_norm", 4 * rows * own.hidden)
        reduced = on.all_reduce("ffn_all_reduce", rows * own.hidden * ACTIVATION_BYTES)
        if FFN in kind:
            out = out.then(on.breakdown(norm, *_dense(on, own, rows, own.ffn), *reduced))
        if EXPERTS in kind:
            mixture = cast(Mixed, self.mixture(config, kind))
            latent = (own.hidden, own.latent), (own.latent, own.hidden)
            ways = [on.product("latent", rows, n, k) for k, n in latent] if own.latent else []
            shared = own.shared_ffn or own.shared * own.expert_ffn
            out = out.then(on.breakdown(norm, *ways))
            out = out.then(on.experts(mixture, own.latent or own.hidden, rows))
            out = out.then(on.breakdown(*(_dense(on, own, rows, shared) if shared else ()), *reduced))
        return out

    def mixture(self, config: TransformerConfig, kind: str) -> Mixed | None:
        """The experts of layers that have them."""
        own = cast(HybridConfig, config)
        return Mixed(own.experts, own.chosen, own.expert_ffn, own.shared) if EXPERTS in kind else None

    def dense(self, config: TransformerConfig, kind: str) -> int:
        """Columns of the FFN, 0 in layers without one."""
        return config.ffn if FFN in kind else 0

    def weight_bytes(self, on: Launches, config: TransformerConfig, ffns: int) -> int:
        """On all GPUs together, but for what is copied (norms, B and C); the table is fp16.

        Raises OptionError for hops: `ffns` below the number of layers.
        """
        own = cast(HybridConfig, config)
        if ffns < own.layers:
            reason = f"has {own.layers - ffns} FFNs elsewhere, whose weights nobody counted"
            raise OptionError("gpu", own.name, reason, "Use --mode pd.")
        layers = sum(EXPERTS in word for word in own.pattern)
        each = (MATRICES_PER_FFN - own.squared) * (own.latent or own.hidden) * own.expert_ffn
        mixture = self.mixture(own, EXPERTS)
        there = on.resident(mixture) * on.gpus if mixture is not None and layers else 0
        table = own.vocab * own.hidden
        matrices = own.parameters() + layers * each * (there - own.experts) - (0 if own.tied else table)
        return ceil(matrices * WEIGHT_BYTES[on.gemm]) + table * ACTIVATION_BYTES

    def kv_bytes(self, on: Launches, config: TransformerConfig, batch: int, kv_len: int, kv: KvFormat) -> int:
        """KV of the layers with attention, and the states, f32, on all GPUs together."""
        own = cast(HybridConfig, config)
        size = batch * own.state_bytes()
        if own.attentions:
            heads = on.gpus * on.heads(own)[1]
            size += own.attentions * 2 * heads * own.head_dim * kv_len * KV_BYTES[kv] * batch
        return size


def _attends(kind: str) -> bool:
    return ATTENTION in kind or BOTH in kind


def _mixes(kind: str) -> bool:
    return MIXER in kind or BOTH in kind


def _joined(ops: list[OpTime]) -> OpTime:
    """What depends on the sequences of a layer, as one."""
    name = " and ".join(op.name for op in ops)
    launches = sum(op.launches for op in ops)
    return OpTime(name=name or "nothing", seconds=sum(op.seconds for op in ops), launches=launches)


def _channels(on: Launches, own: HybridConfig) -> tuple[int, int]:
    """Channels of a mixer on one GPU, and lanes of B and C. Raises OptionError where heads do not divide."""
    if own.ssm_heads % on.gpus:
        reason = f"{own.ssm_heads} heads of mixers do not divide over {on.gpus} GPUs"
        raise OptionError("gpu", own.name, reason, "Take a number of GPUs that divides them.")
    return own.channels // on.gpus, 2 * own.states * ceil(own.groups / on.gpus)


def _step(on: Launches, own: HybridConfig, batch: int, written: int = 1) -> OpTime:
    """Convolutions and the step: states come, and go as often as `written`, f32."""
    kept = sum(kept * channels for kept, channels in own.kept) / on.gpus
    conv = on.elementwise("conv", 0)
    step = on.elementwise("states", ceil((1 + written) * _F32 * batch * kept))
    return OpTime(name="states", seconds=conv.seconds + step.seconds, launches=2)


def _chunks(on: Launches, own: HybridConfig, batch: int, tokens: int) -> OpTime:
    """A prompt through convolutions and states."""
    (channels, both), rows = _channels(on, own), batch * tokens
    conv = on.elementwise("conv", 2 * rows * (channels + both))
    if own.rank:
        scan = on.elementwise("states", rows * (4 * channels + both))
        return OpTime(name="states", seconds=conv.seconds + scan.seconds, launches=2)
    kept = own.states * channels
    carried = on.elementwise("states", 2 * _F32 * batch * ceil(tokens / CHUNK) * kept)
    scan = on.product("states", rows, channels, CHUNK // 2 + 2 * own.states, "bf16")
    seconds = conv.seconds + scan.seconds + carried.seconds
    return OpTime(name="states", seconds=seconds, launches=3)


def _mixer(on: Launches, own: HybridConfig, rows: int) -> tuple[OpTime, ...]:
    """The products around the states."""
    channels, both = _channels(on, own)
    if own.rank:
        return (
            on.product("in", rows, 2 * channels, own.hidden),
            on.product("low_b_c", rows, own.rank + own.both, channels),
            *on.all_reduce("low_all_reduce", rows * (own.rank + own.both) * ACTIVATION_BYTES),
            on.product("steps", rows, channels, own.rank),
            on.elementwise("gate", 3 * rows * channels),
            on.product("out", rows, own.hidden, channels),
        )
    heads = own.ssm_heads // on.gpus * (2 if own.rule == "delta" else 1)
    return (
        on.product("in", rows, 2 * channels + both + heads, own.hidden),
        on.elementwise("gate_norm", 3 * rows * channels),
        on.product("out", rows, own.hidden, channels),
    )


def _attention(on: Launches, own: HybridConfig, rows: int) -> tuple[OpTime, ...]:
    """The products around attention."""
    heads, kv_heads = on.heads(own)
    queries, keys = heads * own.head_dim, kv_heads * own.head_dim
    qkv = 2 * rows * (queries + 2 * keys)
    gate = queries if own.attention_gate else 0
    return (
        on.product("qkv", rows, queries + 2 * keys + gate, own.hidden),
        *((on.elementwise("qk_norm", qkv),) if own.qk_norm else ()),
        on.elementwise("rope_append", qkv),
        *((on.elementwise("gate", 3 * rows * queries),) if gate else ()),
        on.product("o", rows, own.hidden, queries),
    )


def _dense(on: Launches, own: HybridConfig, rows: int, columns: int) -> tuple[OpTime, ...]:
    """An FFN of this many columns, gated or of relu squared."""
    wide = ceil(columns / on.gpus)
    up = wide if own.squared else 2 * wide
    return (
        on.product("gate_up", rows, up, own.hidden),
        on.elementwise("activation", rows * (up + wide)),
        on.product("down", rows, own.hidden, wide),
    )
