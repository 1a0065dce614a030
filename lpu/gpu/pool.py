"""A pool of equal GPUs that share one model by tensor parallelism: times of its layers, and its memory.

Query heads, FFN columns and the vocabulary are split over the GPUs; KV heads too, or copied where there are
fewer of them than GPUs (as TensorRT-LLM does). Source: facts/gpu_model.md section 1; launches are counted.
"""

from dataclasses import dataclass
from math import ceil

from compiler.errors import CapacityError, OptionError
from fabric.gpu import GpuSpec
from lpu.gpu import operators as gpu
from lpu.gpu.breakdown import Breakdown, OpTime
from lpu.gpu.operators import ACTIVATION_BYTES, KV_BYTES, WEIGHT_BYTES, GemmFormat, KvFormat
from lpu.gpu.table import GpuTable
from models.config import TransformerConfig

FAMILIES = ("llama",)
"""Families of models whose layers these times describe: grouped-query attention, then a gated FFN."""

USABLE = 0.9
"""Share of the memory for weights and KV. Source: the default of vLLM, gpu_memory_utilization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPool:
    """`gpus` GPUs of one NVLink domain. gemm: format of all weights; `kv` of the methods: of the KV cache.

    table: measured times, used where it has them (attention, products); the `basis` of a result says so.
    """

    spec: GpuSpec
    gpus: int = 1
    gemm: GemmFormat = "w8a16"
    table: GpuTable | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.gpus <= self.spec.nvlink_gpus:
            raise OptionError(
                "gpu",
                "gpus",
                f"is {self.gpus}, one NVLink domain of {self.spec.name} has {self.spec.nvlink_gpus}",
                f"Take 1 to {self.spec.nvlink_gpus}.",
            )

    def heads(self, config: TransformerConfig) -> tuple[int, int]:
        """Query and KV heads on one GPU. GPUs that do not divide them raise OptionError."""
        if config.heads % self.gpus or (config.kv_heads % self.gpus and self.gpus % config.kv_heads):
            raise OptionError(
                "gpu",
                config.name,
                f"{config.heads} query and {config.kv_heads} KV heads do not divide over {self.gpus} GPUs",
                "Take a number of GPUs that divides the query heads, and divides the KV heads or is a "
                "multiple of them.",
            )
        return config.heads // self.gpus, max(1, config.kv_heads // self.gpus)

    def attention_layer(
        self, config: TransformerConfig, batch: int, kv_len: int, kv: KvFormat = "bf16"
    ) -> Breakdown:
        """The attention half of a decode layer, norm to FFN norm, over `kv_len` keys with the new one."""
        heads, kv_heads = self.heads(config)
        modelled = gpu.decode_attention(self.spec, batch, kv_len, heads, kv_heads, config.head_dim, kv)
        key = self._shape(config) | {"batch": batch, "kv_len": kv_len}
        attention = self._timed("attention", "decode_attn", modelled, kv_dtype=kv, **key)
        return self._attention_half(config, batch, attention)

    def ffn_layer(self, config: TransformerConfig, batch: int) -> Breakdown:
        """Gate and up as one product, activation, down, all-reduce. The next norm adds the residual."""
        own = ceil(config.ffn / self.gpus)
        return self._breakdown(
            self._gemm("gate_up", batch, 2 * own, config.hidden),
            self._elementwise("activation", 3 * batch * own),
            self._gemm("down", batch, config.hidden, own),
            *self._all_reduce("ffn_all_reduce", batch * config.hidden * ACTIVATION_BYTES),
        )

    def embed(self, config: TransformerConfig, batch: int) -> Breakdown:
        """One row per token of a table that every GPU holds."""
        return self._breakdown(self._elementwise("embed", 2 * batch * config.hidden))

    def head(self, config: TransformerConfig, batch: int) -> Breakdown:
        """Final norm, vocabulary product, argmax: each GPU's best (value and index) meet in an all-reduce."""
        own = ceil(config.vocab / self.gpus)
        return self._breakdown(
            self._elementwise("final_norm", 4 * batch * config.hidden),
            self._gemm("head", batch, own, config.hidden),
            self._elementwise("argmax", batch * own),
            *self._all_reduce("argmax_all_reduce", 8 * batch),
        )

    def step(self, config: TransformerConfig, batch: int, kv_len: int, kv: KvFormat = "bf16") -> Breakdown:
        """A whole decode step on GPUs alone; operators of a layer are summed over all layers."""
        layer = self.attention_layer(config, batch, kv_len, kv).then(self.ffn_layer(config, batch))
        return self._whole(config, layer, tokens=batch, batch=batch)

    def verify(
        self, config: TransformerConfig, batch: int, rows: int, kv_len: int, kv: KvFormat = "bf16"
    ) -> Breakdown:
        """A step of `rows` tokens of each sequence, as drafts are verified: more query heads over one KV."""
        heads, kv_heads = self.heads(config)
        shape = rows, kv_len, heads, kv_heads, config.head_dim
        seconds = gpu.packed_attention(self.spec, batch, *shape, kv)
        half = self._attention_half(config, batch * rows, OpTime(name="attention", seconds=seconds))
        layer = half.then(self.ffn_layer(config, batch * rows))
        return self._whole(config, layer, tokens=batch * rows, batch=batch * rows)

    def prefill_layer(
        self, config: TransformerConfig, tokens: int, prefix: int = 0, batch: int = 1, kv: KvFormat = "bf16"
    ) -> Breakdown:
        """One layer over `tokens` new tokens of each of `batch` sequences, after `prefix` earlier ones."""
        heads, kv_heads = self.heads(config)
        modelled = gpu.context_attention(
            self.spec, batch, tokens, heads, kv_heads, config.head_dim, kv, prefix
        )
        if prefix:  # few tokens after many run faster as a decode
            shape = tokens, prefix + tokens, heads, kv_heads, config.head_dim
            modelled = min(modelled, gpu.packed_attention(self.spec, batch, *shape, kv))
        key = self._shape(config) | {"prefix": prefix, "batch": batch, "q_len": tokens}
        attention = self._timed("attention", "context_attn", modelled, kv_dtype=kv, **key)
        half = self._attention_half(config, batch * tokens, attention)
        return half.then(self.ffn_layer(config, batch * tokens))

    def prefill(
        self, config: TransformerConfig, tokens: int, prefix: int = 0, batch: int = 1, kv: KvFormat = "bf16"
    ) -> Breakdown:
        """A whole prefill in one piece, up to each sequence's first new token."""
        layer = self.prefill_layer(config, tokens, prefix, batch, kv)
        return self._whole(config, layer, tokens=batch * tokens, batch=batch)

    @property
    def memory_bytes(self) -> int:
        """Memory for weights and KV on all GPUs together: 90 % of the total."""
        return int(self.gpus * self.spec.memory_bytes * USABLE)

    def weight_bytes(self, config: TransformerConfig, ffn: bool = True) -> int:
        """Weight bytes on all GPUs together; copied KV heads, tables and norms count on each GPU.

        ffn: include the FFNs. A head that is tied to the table is a separate copy, in the weights' format.
        """
        heads, kv_heads = self.heads(config)
        matrices = config.hidden * config.head_dim * (2 * heads + 2 * kv_heads)
        if ffn:
            matrices += 3 * config.hidden * ceil(config.ffn / self.gpus)
        head = config.hidden * ceil(config.vocab / self.gpus)
        norms = config.layers * (2 * config.hidden + 2 * config.head_dim * config.qk_norm) + config.hidden
        whole = (config.vocab * config.hidden + norms) * ACTIVATION_BYTES
        return self.gpus * (ceil((config.layers * matrices + head) * WEIGHT_BYTES[self.gemm]) + whole)

    def kv_bytes(self, config: TransformerConfig, batch: int, kv_len: int, kv: KvFormat = "bf16") -> int:
        """KV bytes on all GPUs together; a copied KV head counts on each GPU that holds it."""
        _, kv_heads = self.heads(config)
        return self.gpus * 2 * config.layers * kv_heads * config.head_dim * KV_BYTES[kv] * batch * kv_len

    def require_fit(self, weights_bytes: int, kv_bytes: int) -> None:
        """Raise CapacityError where weights and KV together are more than `memory_bytes`."""
        need = weights_bytes + kv_bytes
        if need > self.memory_bytes:
            raise CapacityError(
                "gpu",
                f"{self.gpus} x {self.spec.name}",
                f"needs {need / 1e9:,.1f} GB (weights {weights_bytes / 1e9:,.1f}, KV {kv_bytes / 1e9:,.1f}), "
                f"{self.memory_bytes / 1e9:,.1f} GB are usable (90 %)",
                "Take more GPUs, a smaller batch or context, or fp8 KV.",
            )

    def _shape(self, config: TransformerConfig) -> dict[str, int]:
        """Attention on one GPU, as a table names it."""
        heads, kv_heads = self.heads(config)
        return {"heads": heads, "kv_heads": kv_heads, "head_dim": config.head_dim}

    def _attention_half(self, config: TransformerConfig, rows: int, attention: OpTime) -> Breakdown:
        heads, kv_heads = self.heads(config)
        queries, keys = heads * config.head_dim, kv_heads * config.head_dim
        qkv = 2 * rows * (queries + 2 * keys)  # read, and written to the queries and the KV cache
        qk_norm = (self._elementwise("qk_norm", qkv),) if config.qk_norm else ()
        return self._breakdown(
            self._elementwise("norm", 4 * rows * config.hidden),  # adds the residual of the layer before
            self._gemm("qkv", rows, queries + 2 * keys, config.hidden),
            *qk_norm,
            self._elementwise("rope_append", qkv),
            attention,
            self._gemm("o", rows, config.hidden, queries),
            *self._all_reduce("o_all_reduce", rows * config.hidden * ACTIVATION_BYTES),
            self._elementwise("add_ffn_norm", 4 * rows * config.hidden),
        )

    def _whole(self, config: TransformerConfig, layer: Breakdown, tokens: int, batch: int) -> Breakdown:
        inner = layer.times(config.layers)
        return self.embed(config, tokens).then(inner).then(self.head(config, batch))

    def _breakdown(self, *ops: OpTime) -> Breakdown:
        return Breakdown(ops=ops, band=self.spec.band)

    def _gemm(self, name: str, m: int, n: int, k: int) -> OpTime:
        modelled = gpu.gemm(self.spec, m, n, k, self.gemm)
        return self._timed(name, "gemm", modelled, compute_dtype=self.gemm, gemm_m=m, gemm_n=n, gemm_k=k)

    def _timed(self, name: str, op: str, modelled: float, **key: int | str) -> OpTime:
        """Measured where the table has it, else modelled."""
        measured = self.table and self.table.seconds(op, **key)
        if measured:
            return OpTime(name=name, seconds=measured, basis="measured")
        return OpTime(name=name, seconds=modelled)

    def _elementwise(self, name: str, numbers: int) -> OpTime:
        """One launch that reads and writes `numbers` 16-bit numbers."""
        return OpTime(name=name, seconds=gpu.elementwise(self.spec, numbers * ACTIVATION_BYTES))

    def _all_reduce(self, name: str, size: int) -> tuple[OpTime, ...]:
        if self.gpus == 1:
            return ()
        return (OpTime(name=name, seconds=gpu.all_reduce(self.spec, self.gpus, size)),)
