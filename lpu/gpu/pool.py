"""A pool of equal GPUs that share one model by tensor parallelism: times of its layers, and its memory."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from compiler.errors import CapacityError
from lpu.gpu.breakdown import Breakdown
from lpu.gpu.families.registry import layers_of
from lpu.gpu.launches import Launches
from lpu.gpu.operators import KvFormat
from models.config import TransformerConfig

USABLE = 0.9
"""Share of the memory for weights and KV. Source: the default of vLLM, gpu_memory_utilization."""

STEP_BAND = 0.3
"""Half-width of a whole step of operators one after another: served steps of Qwen3-32B and Llama-3.1-8B on
H100 (53 rows with few prompts between, lpu/validate/cases/gpu/step_points.csv) lie -28 to +27 % from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPool(Launches):
    """GPUs as `Launches` has them. `kv` of the methods: format of the KV cache.

    Every method raises OptionError for a family of models whose layers nobody stated (`lpu.gpu.families`).
    """

    def attention_layer(
        self,
        config: TransformerConfig,
        batch: int,
        kv_len: int,
        kv: KvFormat = "bf16",
        kind: str | None = None,
    ) -> Breakdown:
        """The attention half of a decode layer, norm to FFN norm, over `kv_len` keys with the new one.

        kind: of the layer, here and below; None: that of the last.
        """
        layers, kind = layers_of(config), _kind(config, kind)
        attention = layers.decode(self, config, kind, batch, kv_len, kv)
        half = layers.attention_half(self, config, kind, batch, attention)
        return half.then(self.breakdown(*self.gaps(0.5)))

    def ffn_layer(self, config: TransformerConfig, batch: int, kind: str | None = None) -> Breakdown:
        """The FFN half of a layer."""
        half = layers_of(config).ffn_half(self, config, _kind(config, kind), batch)
        return half.then(self.breakdown(*self.gaps(0.5)))

    def embed(self, config: TransformerConfig, batch: int) -> Breakdown:
        """The vectors of tokens."""
        return layers_of(config).embed(self.unserved, config, batch)

    def head(self, config: TransformerConfig, batch: int) -> Breakdown:
        """From the last layer to the next token; with an engine its host too."""
        return layers_of(config).head(self, config, batch).then(self.breakdown(*self.host(batch)))

    def step(self, config: TransformerConfig, batch: int, kv_len: int, kv: KvFormat = "bf16") -> Breakdown:
        """A whole decode step on GPUs alone; operators of a layer are summed over all layers."""

        def layer(kind: str) -> Breakdown:
            half = self.attention_layer(config, batch, kv_len, kv, kind)
            return half.then(self.ffn_layer(config, batch, kind))

        return self._whole(config, layer, tokens=batch, batch=batch)

    def verify(
        self, config: TransformerConfig, batch: int, rows: int, kv_len: int, kv: KvFormat = "bf16"
    ) -> Breakdown:
        """A step of `rows` tokens of each sequence, as drafts are verified."""
        layers, tokens = layers_of(config), batch * rows

        def layer(kind: str) -> Breakdown:
            attention = layers.verify(self, config, kind, batch, rows, kv_len, kv)
            half = layers.attention_half(self, config, kind, tokens, attention)
            return half.then(self.ffn_layer(config, tokens, kind))

        return self._whole(config, layer, tokens=tokens, batch=tokens)

    def prefill_layer(
        self,
        config: TransformerConfig,
        tokens: int,
        prefix: int = 0,
        batch: int = 1,
        kv: KvFormat = "bf16",
        kind: str | None = None,
    ) -> Breakdown:
        """One layer over `tokens` new tokens of each of `batch` sequences, after `prefix` earlier ones."""
        layers, rows, plain, kind = layers_of(config), batch * tokens, self.unserved, _kind(config, kind)
        attention = layers.prefill(plain, config, kind, batch, tokens, prefix, kv)
        half = layers.attention_half(plain, config, kind, rows, attention)
        return half.then(plain.ffn_layer(config, rows, kind))

    def prefill(
        self, config: TransformerConfig, tokens: int, prefix: int = 0, batch: int = 1, kv: KvFormat = "bf16"
    ) -> Breakdown:
        """A whole prefill in one piece, up to each sequence's first new token."""

        def layer(kind: str) -> Breakdown:
            return self.prefill_layer(config, tokens, prefix, batch, kv, kind)

        return self.unserved._whole(config, layer, tokens=batch * tokens, batch=batch)

    @property
    def unserved(self) -> "GpuPool":
        """The same without an engine: prompts, which engines were not fitted to, are operators one by one."""
        return replace(self, engine=None) if self.engine else self

    @property
    def memory_bytes(self) -> int:
        """Memory for weights and KV on all GPUs together: 90 % of the total."""
        return int(self.gpus * self.spec.memory_bytes * USABLE)

    def weight_bytes(self, config: TransformerConfig, ffns: int | None = None) -> int:
        """Weight bytes on all GPUs together; what is copied counts on each GPU.

        ffns: layers from the first on whose FFN they hold; None: all.
        """
        return layers_of(config).weight_bytes(self, config, config.layers if ffns is None else ffns)

    def kv_bytes(self, config: TransformerConfig, batch: int, kv_len: int, kv: KvFormat = "bf16") -> int:
        """KV bytes on all GPUs together; what is copied counts on each GPU."""
        return layers_of(config).kv_bytes(self, config, batch, kv_len, kv)

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

    def _whole(
        self, config: TransformerConfig, layer: Callable[[str], Breakdown], tokens: int, batch: int
    ) -> Breakdown:
        found = self.embed(config, tokens)
        for kind, layers in layers_of(config).kinds(config).items():
            found = found.then(layer(kind).times(layers))
        band = self.engine.band_of(config.name) if self.engine else STEP_BAND
        return found.then(self.head(config, batch)).banded(band)


def _kind(config: TransformerConfig, kind: str | None) -> str:
    """A kind of layer, or that of the last one."""
    return config.kind_of(config.layers - 1) if kind is None else kind
