"""What a pool of equal GPUs launches: operators that tensor parallelism splits, each with its time.

Source: facts/gpu_model.md section 1; launches are counted. Or as an engine serves them: bodies of operators
with its factors, and gaps between kernels in place of launches (lpu/gpu/served).
"""

from dataclasses import dataclass
from typing import NamedTuple

from compiler.errors import OptionError
from fabric.gpu import GpuSpec
from lpu.gpu import operators as gpu
from lpu.gpu.breakdown import Breakdown, OpTime
from lpu.gpu.experts.all_to_all import exchange_seconds
from lpu.gpu.experts.kernel import FORMATS, ExpertShape, expert_seconds
from lpu.gpu.experts.plain import plain_seconds
from lpu.gpu.operators import ACTIVATION_BYTES, GemmFormat
from lpu.gpu.served.engine import Engine
from lpu.gpu.table import GpuTable
from models.config import TransformerConfig


class Mixed(NamedTuple):
    """Experts of a layer: how many, how many a token takes of them, columns of each; and shared ones."""

    experts: int
    chosen: int
    width: int
    shared: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launches:
    """`gpus` GPUs of one NVLink domain. gemm: format of all weights.

    replicas: of such pools, each with the model but its experts, which lie whole over all of them. table:
    measured times, used where it has them (attention, products); the `basis` of a result says so. engine:
    whose numbers decode steps take; None: operators one after another.
    """

    spec: GpuSpec
    gpus: int = 1
    gemm: GemmFormat = "w8a16"
    table: GpuTable | None = None
    engine: Engine | None = None
    replicas: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.gpus <= self.spec.nvlink_gpus:
            raise OptionError(
                "gpu",
                "gpus",
                f"is {self.gpus}, one NVLink domain of {self.spec.name} has {self.spec.nvlink_gpus}",
                f"Take 1 to {self.spec.nvlink_gpus}.",
            )

        if self.engine and self.table:
            reason = "brings its own factors, a table its own times"
            raise OptionError("gpu", f"--engine {self.engine.name}", reason, "Leave out one of them.")

    @property
    def band(self) -> float:
        """Relative half-width of what the GPUs take: the GPU's, or the engine's where that is wider."""
        return max(self.spec.band, self.engine.band if self.engine else 0.0)

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

    def breakdown(self, *ops: OpTime) -> Breakdown:
        """The operators one after another."""
        return Breakdown(ops=ops, band=self.band)

    def product(self, name: str, m: int, n: int, k: int, form: GemmFormat | None = None) -> OpTime:
        """[m, k] by [k, n]. form: of these weights, if not that of all."""
        form = form or self.gemm
        modelled = gpu.gemm(self.spec, m, n, k, form)
        if self.engine:
            body = modelled - gpu.launch_of(self.spec, form)
            return OpTime(name=name, seconds=self.engine.numbers["products"] * body)
        return self.timed(name, "gemm", modelled, compute_dtype=form, gemm_m=m, gemm_n=n, gemm_k=k)

    @property
    def ranks(self) -> int:
        """GPUs of all replicas."""
        return self.gpus * self.replicas

    def resident(self, mixture: Mixed) -> int:
        """Experts on each GPU; where they do not divide, some are there twice (assumed: of equal load)."""
        return -(-mixture.experts // self.ranks)

    def experts(self, mixture: Mixed, hidden: int, rows: int) -> Breakdown:
        """Router, choice and experts over `rows` tokens of each replica, which choose evenly (assumed).

        Every GPU of a replica has its tokens. Of several replicas each GPU sends its share of them to the
        experts, and gets back what they give.
        """
        tokens, own = rows * self.replicas, -(-rows // self.gpus)
        shape = ExpertShape(
            hidden=hidden,
            inter=mixture.width,
            experts=self.resident(mixture) * self.ranks,
            topk=mixture.chosen,
            ranks=self.ranks,
        )
        about = self.spec, shape, tokens, FORMATS[self.gemm]
        seconds = expert_seconds(*about, held=rows)
        if self.engine:
            seconds = self.engine.numbers["experts"] * plain_seconds(*about)
        dispatch, combine = (
            tuple(
                OpTime(
                    name=way,
                    seconds=exchange_seconds(self.spec, way, own, hidden, mixture.chosen, self.ranks),
                )
                for _ in range(self.replicas > 1)
            )
            for way in ("dispatch", "combine")
        )
        return self.breakdown(
            self.product("router", rows, mixture.experts, hidden, "bf16"),
            self.elementwise("choice", 2 * rows * mixture.experts),
            *dispatch,
            OpTime(name="experts", seconds=seconds),
            *combine,
        )

    def timed(self, name: str, op: str, modelled: float, **key: int | str) -> OpTime:
        """Measured where the table has it, else modelled."""
        measured = self.table and self.table.seconds(op, **key)
        if measured:
            return OpTime(name=name, seconds=measured, basis="measured")
        return OpTime(name=name, seconds=modelled)

    def attended(self, modelled: float, **key: int | str) -> OpTime:
        """Attention of a decode step: an engine's without its launch."""
        if not self.engine:
            return self.timed("attention", "decode_attn", modelled, **key)
        body = modelled - self.spec.decode_bf16.t0_seconds
        return OpTime(name="attention", seconds=self.engine.numbers["attention"] * max(body, 0.0))

    def elementwise(self, name: str, numbers: int) -> OpTime:
        """One launch that reads and writes `numbers` 16-bit numbers."""
        factor = self.engine.numbers["elementwise"] if self.engine else 1.0
        return OpTime(name=name, seconds=factor * gpu.elementwise(self.spec, numbers * ACTIVATION_BYTES))

    def all_reduce(self, name: str, size: int) -> tuple[OpTime, ...]:
        """Of `size` bytes; nothing on one GPU."""
        if self.gpus == 1:
            return ()
        seconds = gpu.all_reduce(self.spec, self.gpus, size)
        if self.engine:
            own = self.engine.numbers
            seconds = own["all_reduce"] * seconds + own["collective_us"] * 1e-6
        return (OpTime(name=name, seconds=seconds),)

    def gaps(self, layers: float) -> tuple[OpTime, ...]:
        """What an engine leaves between the kernels of this many layers."""
        if not self.engine:
            return ()
        return (OpTime(name="gaps", seconds=layers * self.engine.numbers["layer_us"] * 1e-6, launches=0),)

    def host(self, sequences: int) -> tuple[OpTime, ...]:
        """What an engine's host takes of a step: scheduling and sampling."""
        if not self.engine:
            return ()
        own = self.engine.numbers
        seconds = own["step_ms"] * 1e-3 + sequences * own["sequence_us"] * 1e-6
        return (OpTime(name="host", seconds=seconds, launches=0),)
