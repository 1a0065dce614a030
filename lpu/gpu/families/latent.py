"""The operators of layers with latent attention (MLA) on GPUs: DeepSeek-V2 and V3, Kimi-K2.

Decode is absorbed, as in the contract: each head's queries go into the space of the latents, the latents come
out by head. A prompt has keys and values of each head made of its latents (assumed: of all its tokens once).
Heads are split over the GPUs of a replica, latents and the matrices that make them are on each.
"""

from typing import cast

from lpu.gpu import operators as gpu
from lpu.gpu.breakdown import Breakdown, OpTime
from lpu.gpu.families.experts import ScoredLaunches
from lpu.gpu.families.llama import LlamaLaunches
from lpu.gpu.latent import latent_seconds
from lpu.gpu.launches import Launches
from lpu.gpu.operators import ACTIVATION_BYTES, KV_BYTES, KvFormat
from models.config import TransformerConfig
from models.configs.latent import LatentConfig


class LatentLaunches(LlamaLaunches):
    """Latent attention, then a dense FFN."""

    def decode(
        self, on: Launches, config: TransformerConfig, kind: str, batch: int, kv_len: int, kv: KvFormat
    ) -> OpTime:
        """All heads of a GPU over latents."""
        return self.verify(on, config, kind, batch, 1, kv_len, kv)

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
        """As many more heads over the same latents (assumed)."""
        own = cast(LatentConfig, config)
        heads = rows * on.heads(config)[0]
        seconds = latent_seconds(
            on.spec,
            batch,
            kv_len,
            heads,
            "fp8" if kv == "fp8" else "bf16",
            latent=own.kv_lora,
            rope=own.rope,
            replayed=False,
        )
        factor = on.engine.numbers["attention"] if on.engine else 1.0
        return OpTime(name="attention", seconds=factor * seconds)

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
        """Attention of the heads' own keys and values: the mean of both widths."""
        own, (heads, _) = cast(LatentConfig, config), on.heads(config)
        wide = (own.head_dim + own.value) // 2
        seconds = gpu.context_attention(on.spec, batch, tokens, heads, heads, wide, kv, prefix)
        return OpTime(name="attention", seconds=seconds)

    def attention_half(
        self, on: Launches, config: TransformerConfig, kind: str, rows: int, attention: OpTime
    ) -> Breakdown:
        """A layer from its norm to the norm of the FFN."""
        own, (heads, _) = cast(LatentConfig, config), on.heads(config)
        latent, values = own.kv_lora + own.rope, heads * own.value
        down = (own.q_lora or 0) + latent
        queries = heads * own.head_dim
        if own.q_lora is None:
            made = (on.product("q_latent", rows, queries + latent, config.hidden),)
        else:
            made = (
                on.product("q_kv_down", rows, down, config.hidden),
                on.elementwise("latent_norms", 2 * rows * down),
                on.product("q_up", rows, queries, own.q_lora),
            )
        return on.breakdown(
            on.elementwise("norm", 4 * rows * config.hidden),  # adds the residual of the layer before
            *made,
            on.product("absorb", rows, heads * own.kv_lora, own.nope),
            on.elementwise("rope_append", 2 * rows * (heads * own.rope + latent)),
            attention,
            on.product("expand", rows, values, own.kv_lora),
            on.product("o", rows, config.hidden, values),
            *on.all_reduce("o_all_reduce", rows * config.hidden * ACTIVATION_BYTES),
            on.elementwise("add_ffn_norm", 4 * rows * config.hidden),
        )

    def attention_weights(self, on: Launches, config: TransformerConfig, kind: str) -> int:
        """Numbers of the matrices of a layer's attention on one GPU."""
        own, (heads, _) = cast(LatentConfig, config), on.heads(config)
        queries = own.q_lora or config.hidden
        each = own.head_dim * queries + own.kv_lora * (own.nope + own.value) + own.value * config.hidden
        return heads * each + config.hidden * ((own.q_lora or 0) + own.kv_lora + own.rope)

    def kv_bytes(self, on: Launches, config: TransformerConfig, batch: int, kv_len: int, kv: KvFormat) -> int:
        """Latents and turned keys, on each GPU."""
        own = cast(LatentConfig, config)
        return on.gpus * config.layers * (own.kv_lora + own.rope) * KV_BYTES[kv] * batch * kv_len


class LatentExpertsLaunches(LatentLaunches, ScoredLaunches):
    """Latent attention; dense layers, then experts."""
