"""The time from token to token of a served model: operators' bodies, and what the engine adds.

    step = step_ms + sequence_us x batch + layers x layer_us + factors x bodies
           + prefill x batch / outputs x time of a prompt

The last term is the share of other requests' prompts that a step waits for: while one request makes `outputs`
tokens, each of the others starts once. Source: form chosen on, numbers fitted to, rows of docs/gpu.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fabric.gpu import GpuSpec
from lpu.gpu import operators as gpu
from lpu.gpu.experts.kernel import FORMATS, ExpertShape
from lpu.gpu.experts.plain import plain_seconds
from lpu.gpu.latent import latent_seconds
from lpu.gpu.operators import ACTIVATION_BYTES, GemmFormat
from lpu.gpu.served.engine import NAMES, Engine
from lpu.gpu.served.shape import StepShape

ELEMENTWISE = 6  # launches of a layer beside products and attention, where nothing is fused


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How a model is served: `gpus` by tensor parallelism, or `expert_ranks`. batch: in flight.

    prompt, outputs: tokens of a request; steps are taken at half of the outputs. experts: format of their
    weights, a key of `lpu.gpu.experts.kernel.BYTES`; None: that of the products.
    """

    gpus: int
    batch: int
    prompt: int
    outputs: int
    gemm: GemmFormat = "bf16"
    experts: str | None = None
    expert_ranks: int = 1

    @property
    def expert_format(self) -> str:
        """Of the experts' weights."""
        return self.experts or FORMATS[self.gemm]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedStep:
    """Seconds from token to token, by term. band: relative half-width."""

    terms: dict[str, float]
    band: float

    @property
    def seconds(self) -> float:
        """The sum of the terms."""
        return sum(self.terms.values())

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and most seconds of the band."""
        return self.seconds * (1 - self.band), self.seconds * (1 + self.band)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"seconds": self.seconds, "kind": "modelled", "band": self.band, "terms": self.terms}


def served_step(spec: GpuSpec, shape: StepShape, how: Serving, by: Engine) -> ServedStep:
    """A decode step by an engine, with its band or the GPU's own where that is wider."""
    asked = bodies(spec, shape, how)
    terms = {name: by.numbers[name] * asked[name] for name in NAMES}
    return ServedStep(terms=terms, band=max(by.band_of(shape.name), spec.band))


def bodies(spec: GpuSpec, shape: StepShape, how: Serving) -> Mapping[str, float]:
    """What each number of an engine multiplies, in seconds (of milliseconds and microseconds, of one)."""
    kv_len = how.prompt + max(how.outputs // 2, 1)
    many = how.gpus > 1
    own = _layers(spec, shape, how, how.batch)
    prompt = _layers(spec, shape, how, how.prompt)
    prompt_seconds = (
        prompt["products"]
        + prompt["experts"]
        + prompt["all_reduce"]
        + prompt["elementwise"]
        + shape.layers * _context(spec, shape, how)
    )
    head = _body(spec, how.batch, -(-shape.vocab // how.gpus), shape.hidden, "bf16")
    return {
        "step_ms": 1e-3,
        "sequence_us": how.batch * 1e-6,
        "layer_us": shape.layers * 1e-6,
        "products": own["products"] + head,
        "attention": shape.layers * _decode(spec, shape, how, kv_len),
        "experts": own["experts"],
        "all_reduce": own["all_reduce"],
        "collective_us": 2 * shape.layers * 1e-6 if many else 0.0,
        "prefill": how.batch / how.outputs * prompt_seconds,
        "elementwise": own["elementwise"],
    }


def _layers(spec: GpuSpec, shape: StepShape, how: Serving, rows: int) -> dict[str, float]:
    """All layers over `rows` tokens, attention and launches of their own left out."""
    projections = sum(_body(spec, rows, n, k, how.gemm) for n, k in _projections(shape, how.gpus))
    dense = _ffn(spec, shape, how, rows, shape.ffn) if shape.ffn else 0.0
    shared = _ffn(spec, shape, how, rows, shape.shared * shape.expert_ffn) if shape.shared else 0.0
    size = ACTIVATION_BYTES * rows * shape.hidden
    reduced = 2 * gpu.all_reduce(spec, how.gpus, size) if how.gpus > 1 else 0.0
    return {
        "products": shape.layers * projections + shape.dense_layers * dense + shape.sparse_layers * shared,
        "experts": shape.sparse_layers * _experts(spec, shape, how, rows) if shape.experts else 0.0,
        "all_reduce": shape.layers * reduced,
        "elementwise": shape.layers * ELEMENTWISE * gpu.elementwise(spec, 2 * size),
    }


def _projections(shape: StepShape, gpus: int) -> list[tuple[int, int]]:
    """(columns, inner) of the products around attention, on one GPU."""
    heads = max(shape.heads // gpus, 1)
    if shape.latent:  # down for queries and latent, up for queries, absorbed in and out, output
        down = (shape.q_rank + 576, shape.hidden)
        return [
            down,
            (heads * 192, shape.q_rank),
            (heads * 128, 512),
            (heads * 512, 128),
            (shape.hidden, heads * 128),
        ]
    kv = max(shape.kv_heads // gpus, 1)
    return [((heads + 2 * kv) * shape.head_dim, shape.hidden), (shape.hidden, heads * shape.head_dim)]


def _ffn(spec: GpuSpec, shape: StepShape, how: Serving, rows: int, wide: int) -> float:
    own = -(-wide // how.gpus)
    both = _body(spec, rows, 2 * own, shape.hidden, how.gemm)
    return both + _body(spec, rows, shape.hidden, own, how.gemm)


def _experts(spec: GpuSpec, shape: StepShape, how: Serving, rows: int) -> float:
    split = how.gpus // how.expert_ranks  # columns of an expert over the GPUs that share it
    on = ExpertShape(
        hidden=shape.hidden,
        inter=max(shape.expert_ffn // split, 1),
        experts=shape.experts,
        topk=shape.topk,
        ranks=how.expert_ranks,
    )
    return plain_seconds(spec, on, rows, how.expert_format)


def _decode(spec: GpuSpec, shape: StepShape, how: Serving, kv_len: int) -> float:
    """Attention of one layer, without its launch; with windows, the mean of both kinds of layer."""
    heads = max(shape.heads // how.gpus, 1)
    if shape.latent:
        return latent_seconds(spec, how.batch, kv_len, heads, replayed=False)
    kv = max(shape.kv_heads // how.gpus, 1)

    def body(keys: int) -> float:
        whole = gpu.decode_attention(spec, how.batch, keys, heads, kv, shape.head_dim)
        return whole - spec.decode_bf16.t0_seconds

    return (body(kv_len) + body(min(kv_len, shape.window))) / 2 if shape.window else body(kv_len)


def _context(spec: GpuSpec, shape: StepShape, how: Serving) -> float:
    heads, kv = max(shape.heads // how.gpus, 1), max(shape.kv_heads // how.gpus, 1)
    return gpu.context_attention(spec, 1, how.prompt, heads, kv, shape.head_dim)


def _body(spec: GpuSpec, m: int, n: int, k: int, kind: GemmFormat) -> float:
    """A product without its launch."""
    return gpu.gemm(spec, m, n, k, kind) - gpu.launch_of(spec, kind)
