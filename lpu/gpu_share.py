"""GPUs beside a rack: how a batch is spread over them, their times, and their way to the LPUs."""

from dataclasses import dataclass

from compiler.errors import CapacityError, OptionError
from fabric.bridge import BridgeSpec
from fabric.gpu import GpuSpec
from lpu.gpu import GemmFormat, KvFormat
from lpu.gpu_pool import GpuPool
from lpu.gpu_time import Breakdown
from lpu.request import PS_PER_SECOND, picoseconds
from models.config import TransformerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuShare:
    """`replicas` pools of GPUs that hold the model each, a bridge to the LPUs; `kv` is the cache's format.

    A batch is dealt over the replicas; what counts is the one with most rows.
    """

    config: TransformerConfig
    pool: GpuPool
    replicas: int
    bridge: BridgeSpec
    kv: KvFormat

    @property
    def gpus(self) -> int:
        """Of all replicas."""
        return self.pool.gpus * self.replicas

    def idle(self, batch: int) -> int:
        """Replicas that have no sequence of a batch."""
        return max(0, self.replicas - batch)

    def rows(self, batch: int) -> int:
        """Sequences of a batch on the replica that has most of them."""
        return -(-batch // self.replicas)

    def prefill_layer(self, tokens: int, prefix: int, batch: int) -> int:
        """Picoseconds of one layer of a prefill."""
        return _ps(self.pool.prefill_layer(self.config, tokens, prefix, self.rows(batch), self.kv))

    def prefill(self, tokens: int, prefix: int, batch: int) -> int:
        """Picoseconds of a prefill up to the first new token."""
        return _ps(self.pool.prefill(self.config, tokens, prefix, self.rows(batch), self.kv))

    def embed(self, rows: int) -> int:
        """Picoseconds of the embedding of so many rows in all."""
        return _ps(self.pool.embed(self.config, self.rows(rows)))

    def head(self, batch: int) -> int:
        """Picoseconds of the final norm, the head and the choice of a token."""
        return _ps(self.pool.head(self.config, self.rows(batch)))

    def attention(self, batch: int, kv_len: int) -> Breakdown:
        """The attention half of a decode layer, up to the input of the FFN."""
        return self.pool.attention_layer(self.config, self.rows(batch), kv_len, self.kv)

    def ffn(self, batch: int) -> Breakdown:
        """The FFN of a layer, were it on the GPUs too."""
        return self.pool.ffn_layer(self.config, self.rows(batch))

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
        """The same for bytes of which every GPU of a replica needs its own copy."""
        return self.wire(size * self.pool.gpus, batch)

    @property
    def latency(self) -> int:
        """Picoseconds that one way takes besides."""
        return self.bridge.latency_ns * 1000

    def require_fit(self, batch: int, context: int) -> None:
        """Raise CapacityError where a replica cannot hold all weights and the KV of its sequences."""
        weights = self.pool.weight_bytes(self.config)
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
                "A replica is a power of two of GPUs of one NVLink domain: take another number of GPUs, "
                "a smaller batch or context, or fp8 KV.",
            ) from None


def share(
    config: TransformerConfig,
    spec: GpuSpec,
    gpus: int,
    bridge: BridgeSpec,
    *,
    kv: str = "fp16",
    gemm: GemmFormat = "w8a16",
) -> GpuShare:
    """GPUs as few replicas: each a power of two of them in one NVLink domain that the heads divide over.

    Raises OptionError for no GPUs.
    """
    if gpus < 1:
        raise OptionError("gpu", "--gpus", f"is {gpus}, needs at least 1", "Give the GPUs beside the rack.")
    tp = 1
    while (
        gpus % (2 * tp) == 0
        and 2 * tp <= spec.nvlink_gpus
        and config.heads % (2 * tp) == 0
        and (config.kv_heads % (2 * tp) == 0 or 2 * tp % config.kv_heads == 0)
    ):
        tp *= 2
    pool = GpuPool(spec=spec, gpus=tp, gemm=gemm)
    return GpuShare(
        config=config, pool=pool, replicas=gpus // tp, bridge=bridge, kv="fp8" if kv == "fp8" else "bf16"
    )


def _ps(found: Breakdown) -> int:
    return picoseconds(found.seconds)
