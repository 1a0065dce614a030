"""The operators of a decoder's layers on GPUs: those of a Llama, and what other families have besides.

Query heads, FFN columns and the vocabulary are split over the GPUs; KV heads too, or copied where there are
fewer of them than GPUs (as TensorRT-LLM does). Experts lie whole on GPUs, spread over those of all replicas.
Source: facts/gpu_model.md section 1.
"""

from collections import Counter
from math import ceil
from typing import Any

from lpu.gpu import operators as gpu
from lpu.gpu.breakdown import Breakdown, OpTime
from lpu.gpu.launches import Launches, Mixed
from lpu.gpu.operators import ACTIVATION_BYTES, KV_BYTES, WEIGHT_BYTES, KvFormat
from models.config import TransformerConfig


class LlamaLaunches:
    """`on`: the GPUs. Rows are tokens of all sequences together. kind: of a layer, as its config says."""

    def kinds(self, config: TransformerConfig) -> dict[str, int]:
        """How many layers there are of each kind, in the order in which they first occur."""
        return dict(Counter(config.kind_of(layer) for layer in range(config.layers)))

    def divides(self, config: TransformerConfig, gpus: int) -> bool:
        """Whether the heads of a model divide over this many GPUs; KV heads may be copied."""
        return config.heads % gpus == 0 and (config.kv_heads % gpus == 0 or gpus % config.kv_heads == 0)

    def own(self, config: TransformerConfig, kind: str) -> TransformerConfig:
        """The numbers of the attention of a kind of layer."""
        del kind
        return config

    def dense(self, config: TransformerConfig, kind: str) -> int:
        """Columns of the FFN that every token takes in a kind of layer; 0: there is none."""
        del kind
        return config.ffn

    def mixture(self, config: Any, kind: str) -> Mixed | None:
        """The experts of a kind of layer, if it has any."""
        del config, kind

    def decode(
        self, on: Launches, config: TransformerConfig, kind: str, batch: int, kv_len: int, kv: KvFormat
    ) -> OpTime:
        """Attention of a token of each sequence over `kv_len` keys with the new one, or those in reach."""
        own, keys = self.own(config, kind), in_reach(config, kind, kv_len)
        heads, kv_heads = on.heads(own)
        modelled = gpu.decode_attention(on.spec, batch, keys, heads, kv_heads, own.head_dim, kv)
        key = _shape(on, own) | {"batch": batch, "kv_len": keys}
        return on.attended(modelled, kv_dtype=kv, **key)

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
        """Attention of `rows` tokens of each sequence at once: more query heads over one KV."""
        own, keys = self.own(config, kind), in_reach(config, kind, kv_len)
        heads, kv_heads = on.heads(own)
        seconds = gpu.packed_attention(on.spec, batch, rows, keys, heads, kv_heads, own.head_dim, kv)
        return OpTime(name="attention", seconds=seconds)

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
        """Attention of `tokens` new tokens of each sequence, after `prefix` earlier ones."""
        own, reach = self.own(config, kind), in_reach(config, kind, prefix + tokens)
        heads, kv_heads = on.heads(own)
        shape = heads, kv_heads, own.head_dim
        modelled = gpu.context_attention(on.spec, batch, tokens, *shape, kv, prefix, reach)
        if prefix:  # few tokens after many run faster as a decode
            packed = tokens, min(prefix + tokens, reach + tokens), *shape
            modelled = min(modelled, gpu.packed_attention(on.spec, batch, *packed, kv))
        if reach < prefix + tokens:  # tables hold whole contexts
            return OpTime(name="attention", seconds=modelled)
        key = _shape(on, own) | {"prefix": prefix, "batch": batch, "q_len": tokens}
        return on.timed("attention", "context_attn", modelled, kv_dtype=kv, **key)

    def attention_half(
        self, on: Launches, config: TransformerConfig, kind: str, rows: int, attention: OpTime
    ) -> Breakdown:
        """A layer from its norm to the norm of the FFN."""
        own = self.own(config, kind)
        heads, kv_heads = on.heads(own)
        queries, keys = heads * own.head_dim, kv_heads * own.head_dim
        qkv = 2 * rows * (queries + 2 * keys)  # read, and written to the queries and the KV cache
        qk_norm = (on.elementwise("qk_norm", qkv),) if own.qk_norm else ()
        return on.breakdown(
            on.elementwise("norm", 4 * rows * config.hidden),  # adds the residual of the layer before
            on.product("qkv", rows, queries + 2 * keys, config.hidden),
            *qk_norm,
            on.elementwise("rope_append", qkv),
            attention,
            on.product("o", rows, config.hidden, queries),
            *on.all_reduce("o_all_reduce", rows * config.hidden * ACTIVATION_BYTES),
            *self._post_norm(on, config, rows),
            on.elementwise("add_ffn_norm", 4 * rows * config.hidden),
        )

    def ffn_half(self, on: Launches, config: TransformerConfig, kind: str, rows: int) -> Breakdown:
        """The dense FFN, experts or both, up to their sum over the GPUs. The next norm adds the residual."""
        mixture, wide, out = self.mixture(config, kind), self.dense(config, kind), on.breakdown()
        if mixture is not None:
            out = out.then(on.experts(mixture, config.hidden, rows))
        if wide := wide + (mixture.shared * mixture.width if mixture else 0):
            own = ceil(wide / on.gpus)
            out = out.then(
                on.breakdown(
                    on.product("gate_up", rows, 2 * own, config.hidden),
                    on.elementwise("activation", 3 * rows * own),
                    on.product("down", rows, config.hidden, own),
                )
            )
        size = rows * config.hidden * ACTIVATION_BYTES
        return out.then(
            on.breakdown(*on.all_reduce("ffn_all_reduce", size), *self._post_norm(on, config, rows))
        )

    def embed(self, on: Launches, config: TransformerConfig, rows: int) -> Breakdown:
        """One row per token of a table that every GPU holds."""
        return on.breakdown(on.elementwise("embed", 2 * rows * config.hidden))

    def head(self, on: Launches, config: TransformerConfig, rows: int) -> Breakdown:
        """Final norm, vocabulary product, argmax: each GPU's best (value and index) meet in an all-reduce."""
        own = ceil(config.vocab / on.gpus)
        return on.breakdown(
            on.elementwise("final_norm", 4 * rows * config.hidden),
            on.product("head", rows, own, config.hidden),
            on.elementwise("argmax", rows * own),
            *on.all_reduce("argmax_all_reduce", 8 * rows),
        )

    def weight_bytes(self, on: Launches, config: TransformerConfig, ffns: int) -> int:
        """On all GPUs together; copied KV heads, tables, routers and norms count on each GPU.

        ffns: layers from the first on whose FFN they hold. A head that is tied to the table is a separate
        copy, in the weights' format. Experts that all replicas share count as this one's part of them.
        """
        kinds = [config.kind_of(layer) for layer in range(config.layers)]
        matrices = sum(self.attention_weights(on, config, kind) for kind in kinds)
        halves = 0
        for kind in kinds[:ffns]:
            mixture, wide = self.mixture(config, kind), self.dense(config, kind)
            if mixture is not None:
                wide += mixture.shared * mixture.width
                matrices += 3 * config.hidden * mixture.width * on.resident(mixture)
                halves += config.hidden * mixture.experts
            matrices += 3 * config.hidden * ceil(wide / on.gpus)
        head = config.hidden * ceil(config.vocab / on.gpus)
        norms = config.layers * (2 * config.hidden + 2 * config.head_dim * config.qk_norm) + config.hidden
        whole = (config.vocab * config.hidden + norms + halves) * ACTIVATION_BYTES
        return on.gpus * (ceil((matrices + head) * WEIGHT_BYTES[on.gemm]) + whole)

    def attention_weights(self, on: Launches, config: TransformerConfig, kind: str) -> int:
        """Numbers of the matrices of a layer's attention on one GPU."""
        own = self.own(config, kind)
        heads, kv_heads = on.heads(own)
        return own.hidden * own.head_dim * (2 * heads + 2 * kv_heads)

    def kv_bytes(self, on: Launches, config: TransformerConfig, batch: int, kv_len: int, kv: KvFormat) -> int:
        """On all GPUs together; a copied KV head counts on each GPU that holds it."""
        numbers = 0
        for kind, layers in self.kinds(config).items():
            own = self.own(config, kind)
            numbers += layers * 2 * on.heads(own)[1] * own.head_dim * in_reach(config, kind, kv_len)
        return on.gpus * numbers * KV_BYTES[kv] * batch

    def _post_norm(self, on: Launches, config: TransformerConfig, rows: int) -> tuple[OpTime, ...]:
        """The norm of what is added to the residual, where there is one besides that before."""
        return (on.elementwise("post_norm", 4 * rows * config.hidden),) if config.norms == "both" else ()


def in_reach(config: TransformerConfig, kind: str, kv_len: int) -> int:
    """The keys that a query of a kind of layer sees at most, of `kv_len`."""
    return min(kv_len, *(one for one in config.reach_of(kind.split()[0], kv_len) if one), kv_len)


def _shape(on: Launches, config: TransformerConfig) -> dict[str, int]:
    """Attention on one GPU, as a table names it."""
    heads, kv_heads = on.heads(config)
    return {"heads": heads, "kv_heads": kv_heads, "head_dim": config.head_dim}
