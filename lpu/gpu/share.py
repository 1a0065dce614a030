"""GPUs beside a rack: how a batch is spread over them, their times, and their way to the LPUs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compiler.errors import CapacityError, OptionError
from fabric.bridge import BridgeSpec
from fabric.gpu import GpuSpec
from lpu.gpu.breakdown import Breakdown
from lpu.gpu.families.registry import layers_of
from lpu.gpu.operators import GemmFormat, KvFormat
from lpu.gpu.pool import GpuPool
from lpu.gpu.served.engine import Engine
from lpu.gpu.table import GpuTable
from lpu.gpu.units import PS_PER_SECOND, Basis, picoseconds
from models.config import TransformerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuShare:
    """`replicas` pools of GPUs, each with the whole model, and a bridge to the LPUs; kv: the cache's format.

    Of a model with experts each has all but these, which lie over all GPUs. A batch is divided over the
    replicas; times are those of the replica with most rows.
    """

    config: TransformerConfig
    pool: GpuPool
    replicas: int
    bridge: BridgeSpec
    kv: KvFormat

    @property
    def basis(self) -> Basis:
        """How its times are known: a table may hold some operators, never all."""
        return "modelled" if self.pool.table is None else "partly measured"

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return self.pool.gpus * self.replicas

    @property
    def shares_experts(self) -> bool:
        """Whether the experts lie over several replicas."""
        layers = layers_of(self.config)
        sparse = any(layers.mixture(self.config, kind) for kind in layers.kinds(self.config))
        return sparse and self.replicas > 1

    def idle(self, batch: int) -> int:
        """Replicas without a sequence of the batch."""
        return max(0, self.replicas - batch)

    def rows(self, batch: int) -> int:
        """Sequences of a batch on the replica that has most of them."""
        return -(-batch // self.replicas)

    def prefill_layer(self, tokens: int, prefix: int, batch: int) -> int:
        """Picoseconds of one layer of a prefill, of layers that differ their mean."""
        about = self.config, tokens, prefix, self.rows(batch), self.kv
        kinds = layers_of(self.config).kinds(self.config)
        times = [count * _ps(self.pool.prefill_layer(*about, kind)) for kind, count in kinds.items()]
        return sum(times) // self.config.layers

    def prefill_layers(self, tokens: int, prefix: int, batch: int) -> tuple[int, ...]:
        """Picoseconds of a prefill of each layer by itself."""
        about = self.config, tokens, prefix, self.rows(batch), self.kv
        kinds = layers_of(self.config).kinds(self.config)
        times = {kind: _ps(self.pool.prefill_layer(*about, kind)) for kind in kinds}
        return tuple(times[self.config.kind_of(layer)] for layer in range(self.config.layers))

    def prefill(self, tokens: int, prefix: int, batch: int) -> int:
        """Picoseconds of a prefill up to the first new token."""
        return _ps(self.pool.prefill(self.config, tokens, prefix, self.rows(batch), self.kv))

    def embed(self, rows: int) -> int:
        """Picoseconds of the embedding of `rows` rows over all replicas."""
        return _ps(self.pool.embed(self.config, self.rows(rows)))

    def head(self, batch: int) -> int:
        """Picoseconds of the final norm, the head and the choice of a token."""
        return _ps(self.pool.head(self.config, self.rows(batch)))

    def attention(self, batch: int, kv_len: int, kind: str | None = None) -> Breakdown:
        """The attention half of a decode layer, up to the input of the FFN; kind: None: of the last layer."""
        return self.pool.attention_layer(self.config, self.rows(batch), kv_len, self.kv, kind)

    def before_hops(self, batch: int, kv_len: int, kept: int = 0) -> tuple[int, ...]:
        """Picoseconds before each hop of a step: of the layers but the first `kept`, whose FFNs stay here.

        These layers come before the first hop, whole.
        """
        kinds = layers_of(self.config).kinds(self.config)
        half = {kind: _ps(self.attention(batch, kv_len, kind)) for kind in kinds}
        stages = [half[self.config.kind_of(layer)] for layer in range(self.config.layers)]
        own = [self.config.kind_of(layer) for layer in range(kept)]
        ffn = {kind: _ps(self.pool.ffn_layer(self.config, self.rows(batch), kind)) for kind in set(own)}
        first = sum(stages[:kept]) + sum(ffn[kind] for kind in own)
        return (first + stages[kept], *stages[kept + 1 :])

    def step(self, batch: int, kv_len: int) -> int:
        """Picoseconds of a decode step on the GPUs alone."""
        return _ps(self.pool.step(self.config, self.rows(batch), kv_len, self.kv))

    def verify(self, batch: int, rows: int, kv_len: int) -> int:
        """Picoseconds of a step that takes `rows` tokens of each sequence."""
        return _ps(self.pool.verify(self.config, self.rows(batch), rows, kv_len, self.kv))

    def wire(self, size: int, batch: int) -> int:
        """Picoseconds of `size` bytes of a batch between GPUs and FPGAs, one way, without latency.

        Each replica sends its rows' share over the NICs of all its GPUs at once.
        """
        share = -(-size * self.rows(batch) // batch)
        return -(-share * PS_PER_SECOND // (self.pool.gpus * int(self.pool.spec.nic_bytes_per_second)))

    def copied(self, size: int, batch: int) -> int:
        """Picoseconds of `size` bytes of which every GPU of a replica needs a copy."""
        return self.wire(size * self.pool.gpus, batch)

    @property
    def latency(self) -> int:
        """Picoseconds of latency, one way."""
        return self.bridge.latency_ns * 1000

    def require_fit(self, batch: int, context: int, ffns: int | None = None) -> None:
        """Raise CapacityError where a replica cannot hold the weights and the KV of its sequences.

        ffns: layers from the first on whose FFN it holds; None: all, as GPUs need that prefill.
        """
        weights = self.pool.weight_bytes(self.config, ffns)
        kv = self.pool.kv_bytes(self.config, self.rows(batch), context, self.kv)
        try:
            self.pool.require_fit(weights, kv)
        except CapacityError as error:
            if self.replicas == 1:
                raise
            raise CapacityError(
                error.stage,
                f"each of {self.replicas} replicas of {error.subject}",
                error.reason,
                "Take more GPUs to a replica, a smaller batch or context, or fp8 KV.",
            ) from None


def shares(
    config: TransformerConfig,
    spec: GpuSpec,
    gpus: int,
    bridge: BridgeSpec,
    *,
    kv: str = "fp16",
    gemm: GemmFormat = "w8a16",
    tp: int | None = None,
    table: GpuTable | None = None,
    engine: Engine | None = None,
) -> tuple[GpuShare, ...]:
    """Every division of the GPUs into equal replicas in one NVLink domain that the heads divide over.

    tp: only replicas of `tp` GPUs. table: measured operators, used where it has them. engine: that serves.
    Raises OptionError for no GPUs, or if no division is possible.
    """
    if gpus < 1:
        raise OptionError("gpu", "--gpus", f"is {gpus}, needs at least 1", "Give the GPUs beside the rack.")
    most, layers = min(gpus, spec.nvlink_gpus), layers_of(config)
    sizes = [size for size in range(1, most + 1) if gpus % size == 0 and layers.divides(config, size)]
    if tp is not None and tp not in sizes:
        raise OptionError(
            "gpu",
            f"--gpu-tp {tp}",
            f"{gpus} GPUs in NVLink domains of {spec.nvlink_gpus} with {config.heads} query and "
            f"{config.kv_heads} KV heads can be dealt {', '.join(map(str, sizes))} to a replica",
            "Choose one of them.",
        )
    return tuple(
        GpuShare(
            config=config,
            pool=GpuPool(spec=spec, gpus=size, gemm=gemm, table=table, engine=engine, replicas=gpus // size),
            replicas=gpus // size,
            bridge=bridge,
            kv="fp8" if kv == "fp8" else "bf16",
        )
        for size in (sizes if tp is None else [tp])
    )


def fastest(
    every: Sequence[GpuShare],
    time: Callable[[GpuShare], int],
    batch: int,
    context: int,
    ffns: int | None = None,
) -> GpuShare:
    """The share with the least time among those that fit; of equals the one with fewest GPUs per replica.

    ffns: layers whose FFN the GPUs hold, None: all. Raises CapacityError of the largest replica if none fits.
    """
    fitting: list[GpuShare] = []
    error: CapacityError | None = None
    for one in every:
        try:
            one.require_fit(batch, context, ffns)
        except CapacityError as found:
            error = found
        else:
            fitting.append(one)
    if not fitting:
        assert error is not None
        raise error
    return min(fitting, key=time)


def _ps(found: Breakdown) -> int:
    return picoseconds(found.seconds)
