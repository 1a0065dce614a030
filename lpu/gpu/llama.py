"""The operators of a Llama's layers on GPUs: grouped-query attention, then a gated FFN.

Query heads, FFN columns and the vocabulary are split over the GPUs; KV heads too, or copied where there are
fewer of them than GPUs (as TensorRT-LLM does). Source: facts/gpu_model.md section 1.
"""

from math import ceil

from lpu.gpu import operators as gpu
from lpu.gpu.breakdown import Breakdown, OpTime
from lpu.gpu.launches import Launches
from lpu.gpu.operators import ACTIVATION_BYTES, KV_BYTES, WEIGHT_BYTES, KvFormat
from models.config import TransformerConfig


class LlamaLaunches:
    """`on`: the GPUs. Rows are tokens of all sequences together."""

    def decode(
        self, on: Launches, config: TransformerConfig, batch: int, kv_len: int, kv: KvFormat
    ) -> OpTime:
        """Attention of a token of each sequence over `kv_len` keys with the new one."""
        heads, kv_heads = on.heads(config)
        modelled = gpu.decode_attention(on.spec, batch, kv_len, heads, kv_heads, config.head_dim, kv)
        key = _shape(on, config) | {"batch": batch, "kv_len": kv_len}
        return on.attended(modelled, kv_dtype=kv, **key)

    def verify(
        self, on: Launches, config: TransformerConfig, batch: int, rows: int, kv_len: int, kv: KvFormat
    ) -> OpTime:
        """Attention of `rows` tokens of each sequence at once: more query heads over one KV."""
        heads, kv_heads = on.heads(config)
        seconds = gpu.packed_attention(on.spec, batch, rows, kv_len, heads, kv_heads, config.head_dim, kv)
        return OpTime(name="attention", seconds=seconds)

    def prefill(
        self, on: Launches, config: TransformerConfig, batch: int, tokens: int, prefix: int, kv: KvFormat
    ) -> OpTime:
        """Attention of `tokens` new tokens of each sequence, after `prefix` earlier ones."""
        heads, kv_heads = on.heads(config)
        modelled = gpu.context_attention(on.spec, batch, tokens, heads, kv_heads, config.head_dim, kv, prefix)
        if prefix:  # few tokens after many run faster as a decode
            shape = tokens, prefix + tokens, heads, kv_heads, config.head_dim
            modelled = min(modelled, gpu.packed_attention(on.spec, batch, *shape, kv))
        key = _shape(on, config) | {"prefix": prefix, "batch": batch, "q_len": tokens}
        return on.timed("attention", "context_attn", modelled, kv_dtype=kv, **key)

    def attention_half(
        self, on: Launches, config: TransformerConfig, rows: int, attention: OpTime
    ) -> Breakdown:
        """A layer from its norm to the norm of the FFN."""
        heads, kv_heads = on.heads(config)
        queries, keys = heads * config.head_dim, kv_heads * config.head_dim
        qkv = 2 * rows * (queries + 2 * keys)  # read, and written to the queries and the KV cache
        qk_norm = (on.elementwise("qk_norm", qkv),) if config.qk_norm else ()
        return on.breakdown(
            on.elementwise("norm", 4 * rows * config.hidden),  # adds the residual of the layer before
            on.product("qkv", rows, queries + 2 * keys, config.hidden),
            *qk_norm,
            on.elementwise("rope_append", qkv),
            attention,
            on.product("o", rows, config.hidden, queries),
            *on.all_reduce("o_all_reduce", rows * config.hidden * ACTIVATION_BYTES),
            on.elementwise("add_ffn_norm", 4 * rows * config.hidden),
        )

    def ffn_half(self, on: Launches, config: TransformerConfig, rows: int) -> Breakdown:
        """Gate and up as one product, activation, down, all-reduce. The next norm adds the residual."""
        own = ceil(config.ffn / on.gpus)
        return on.breakdown(
            on.product("gate_up", rows, 2 * own, config.hidden),
            on.elementwise("activation", 3 * rows * own),
            on.product("down", rows, config.hidden, own),
            *on.all_reduce("ffn_all_reduce", rows * config.hidden * ACTIVATION_BYTES),
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

    def weight_bytes(self, on: Launches, config: TransformerConfig, ffn: bool) -> int:
        """On all GPUs together; copied KV heads, tables and norms count on each GPU.

        ffn: include the FFNs. A head that is tied to the table is a separate copy, in the weights' format.
        """
        heads, kv_heads = on.heads(config)
        matrices = config.hidden * config.head_dim * (2 * heads + 2 * kv_heads)
        if ffn:
            matrices += 3 * config.hidden * ceil(config.ffn / on.gpus)
        head = config.hidden * ceil(config.vocab / on.gpus)
        norms = config.layers * (2 * config.hidden + 2 * config.head_dim * config.qk_norm) + config.hidden
        whole = (config.vocab * config.hidden + norms) * ACTIVATION_BYTES
        return on.gpus * (ceil((config.layers * matrices + head) * WEIGHT_BYTES[on.gemm]) + whole)

    def kv_bytes(self, on: Launches, config: TransformerConfig, batch: int, kv_len: int, kv: KvFormat) -> int:
        """On all GPUs together; a copied KV head counts on each GPU that holds it."""
        _, kv_heads = on.heads(config)
        return on.gpus * 2 * config.layers * kv_heads * config.head_dim * KV_BYTES[kv] * batch * kv_len


def _shape(on: Launches, config: TransformerConfig) -> dict[str, int]:
    """Attention on one GPU, as a table names it."""
    heads, kv_heads = on.heads(config)
    return {"heads": heads, "kv_heads": kv_heads, "head_dim": config.head_dim}
