"""The tensors of the checkpoints of hybrid decoders, as Hugging Face folders hold them.

Constants that a model multiplies the results of its matrices with (muP, Granite's multipliers) are multiplied
into those matrices when they are loaded: no op of a step computes them.
Source of names: transformers 5.24, modeling_ of the model_types here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float32

from models.configs.hybrid import ATTENTION, BOTH, EXPERTS, FFN, MIXER, TAPS, HybridConfig
from models.families.family import HEAD, LM_HEAD, TABLE, CheckpointTensor

Rows = Float32[np.ndarray, "rows *rest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the tensors of a checkpoint are called: table, last norm, and in a layer its modules and norms.

    norm: of a layer's first part; ffn_norm: of its FFN; gate_up: of an FFN that holds both in one tensor.
    router: of experts, which lie in `experts` of the FFN's module, each with its gate_proj, up_proj and
    down_proj. step_norms: of Mamba-1, what time steps are made of, B and C.
    """

    table: str = "model.embed_tokens.weight"
    last: str = "model.final_layernorm"
    layer: str = "model.layers.{}"
    mixer: str = "mamba"
    norm: str = "input_layernorm"
    attention: str = "self_attn"
    ffn: str = "feed_forward"
    ffn_norm: str = "pre_ff_layernorm"
    gate_up: str = ""
    down: str = "down_proj"
    router: str = "router"
    step_norms: tuple[str, str, str] = ("dt_layernorm", "b_layernorm", "c_layernorm")


NAMES = {
    "mamba2": Names(
        table="backbone.embeddings.weight",
        last="backbone.norm_f",
        layer="backbone.layers.{}",
        mixer="mixer",
        norm="norm",
    ),
    "mamba": Names(
        table="backbone.embeddings.weight",
        last="backbone.norm_f",
        layer="backbone.layers.{}",
        mixer="mixer",
        norm="norm",
    ),
    "nemotron_h": Names(
        table="backbone.embeddings.weight",
        last="backbone.norm_f",
        layer="backbone.layers.{}",
        mixer="mixer",
        norm="norm",
        attention="mixer",
        ffn="mixer",
        ffn_norm="norm",
    ),
    "falcon_h1": Names(),
    "bamba": Names(),
    "jamba": Names(),
    "granitemoehybrid": Names(
        last="model.norm",
        ffn="shared_mlp",
        ffn_norm="post_attention_layernorm",
        gate_up="input_linear",
        down="output_linear",
    ),
}


def tensors(config: HybridConfig) -> Iterator[CheckpointTensor]:
    """The tensors of a checkpoint, in the order of the model."""
    names = NAMES[config.names]
    gain = partial(_gain, config)
    yield _matrix(config, TABLE, names.table, (config.vocab, config.hidden), "embed")
    for i, word in enumerate(config.pattern):
        theirs = names.layer.format(i)
        for part in word:
            if part in (ATTENTION, BOTH):
                yield gain(f"layers.{i}.attention.norm", f"{theirs}.{names.norm}")
                yield from _attention(config, f"layers.{i}.attention", f"{theirs}.{names.attention}")
            if part in (MIXER, BOTH):
                ours = f"layers.{i}.mixer"
                if part == MIXER:
                    yield gain(f"{ours}.norm", f"{theirs}.{names.norm}")
                made = _selective if config.rank else _mixer
                yield from made(config, ours, f"{theirs}.{names.mixer}")
                if config.step_norms:
                    yield from _step_norms(config, names, ours, f"{theirs}.{names.mixer}")
            if part == FFN:
                yield gain(f"layers.{i}.ffn.norm", f"{theirs}.{names.ffn_norm}")
                yield from _ffn(config, names, f"layers.{i}.ffn", f"{theirs}.{names.ffn}")
            if part == EXPERTS:
                ours = f"layers.{i}.experts"
                yield gain(f"{ours}.norm", f"{theirs}.{names.ffn_norm}")
                yield from _experts(config, names, ours, f"{theirs}.{names.ffn}")
    yield gain("norm", names.last)
    head = names.table if config.tied else LM_HEAD
    yield _matrix(config, HEAD, head, (config.vocab, config.hidden), "head")


def _gain(config: HybridConfig, path: str, name: str) -> CheckpointTensor:
    return _vector(f"{path}.gain", f"{name}.weight", config.hidden)


def _vector(path: str, name: str, width: int) -> CheckpointTensor:
    return CheckpointTensor(path=path, name=name, shape=(width,))


def _matrix(
    config: HybridConfig,
    path: str,
    name: str,
    shape: tuple[int, int],
    factor: str,
    *,
    rows: tuple[int, int] | None = None,
    lanes: tuple[int, int] | None = None,
) -> CheckpointTensor:
    """A matrix, or rows of one, times its factor."""
    by, own = config.factor(factor), (shape if rows is None else (rows[1], shape[1]))
    made = None if by == 1 else (partial(_times, by), own)
    return CheckpointTensor(path=path, name=name, shape=shape, rows=rows, lanes=lanes, made=made)


def _attention(config: HybridConfig, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    hidden, q = config.hidden, config.heads * config.head_dim
    kv = config.kv_heads * config.head_dim
    turned = None if config.turned_lanes is None else (config.head_dim, config.turned_lanes)
    yield _matrix(config, f"{ours}.q", f"{theirs}.q_proj.weight", (q, hidden), "q", lanes=turned)
    yield _matrix(config, f"{ours}.k", f"{theirs}.k_proj.weight", (kv, hidden), "k", lanes=turned)
    yield _matrix(config, f"{ours}.v", f"{theirs}.v_proj.weight", (kv, hidden), "v")
    yield _matrix(config, f"{ours}.o", f"{theirs}.o_proj.weight", (hidden, q), "o")


def _ffn(config: HybridConfig, names: Names, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    ffn, hidden = config.ffn, config.hidden
    for i, name in enumerate(("gate", "up")):
        if config.squared and name == "gate":
            continue
        if names.gate_up:
            at = f"{theirs}.{names.gate_up}.weight"
            yield _matrix(config, f"{ours}.{name}", at, (2 * ffn, hidden), name, rows=(i * ffn, ffn))
        else:
            yield _matrix(config, f"{ours}.{name}", f"{theirs}.{name}_proj.weight", (ffn, hidden), name)
    yield _matrix(config, f"{ours}.down", f"{theirs}.{names.down}.weight", (hidden, ffn), "down")


def _experts(config: HybridConfig, names: Names, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    """A router and the experts of a layer, each with matrices of its own."""
    width, hidden = config.expert_ffn, config.hidden
    at, shape = f"{theirs}.{names.router}.weight", (config.experts, hidden)
    yield CheckpointTensor(path=f"{ours}.router", name=at, shape=shape, half=True)
    each = [f"{theirs}.experts.{i}" for i in range(config.experts)]
    both = tuple((f"{one}.gate_proj.weight", f"{one}.up_proj.weight") for one in each)
    yield CheckpointTensor(path=f"{ours}.gate_up", name=both[0][0], shape=(width, hidden), stack=both)
    down = tuple((f"{one}.down_proj.weight",) for one in each)
    yield CheckpointTensor(path=f"{ours}.down", name=down[0][0], shape=(hidden, width), stack=down)


def _mixer(config: HybridConfig, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    """The tensors of one Mamba-2 mixer: its input matrix holds z, x, B and C, and the time steps."""
    channels, both, heads = config.channels, config.both, config.ssm_heads
    widths = {"z": channels, "x": channels, "bc": both, "dt": heads}
    shape, first = (sum(widths.values()), config.hidden), 0
    for name, rows in widths.items():
        cut = CheckpointTensor(
            path=f"{ours}.{name}", name=f"{theirs}.in_proj.weight", shape=shape, rows=(first, rows)
        )
        parts = ("b", "c") if name == "bc" else (name,)
        by = [config.factor(part) for part in parts]
        if any(one != 1 for one in by):
            cut = CheckpointTensor(
                path=cut.path,
                name=cut.name,
                shape=shape,
                rows=cut.rows,
                made=(partial(_by_parts, tuple(by)), (rows, config.hidden)),
            )
        yield cut
        first += rows
    for name, cut in (("conv_x", (0, channels)), ("conv_bc", (channels, both))):
        yield from _conv(config, f"{ours}.{name}", f"{theirs}.conv1d", cut, channels + both)
    yield _vector(f"{ours}.dt.bias", f"{theirs}.dt_bias", heads)
    for name, held in (("decay", "A_log"), ("through", "D")):
        made = partial(_repeated, channels // heads, name == "decay")
        yield CheckpointTensor(
            path=f"{ours}.step.{name}", name=f"{theirs}.{held}", shape=(heads,), made=(made, (channels,))
        )
    if config.mixer_norm == "gated":
        yield _vector(f"{ours}.out_norm.gain", f"{theirs}.norm.weight", channels)
    yield _matrix(config, f"{ours}.o", f"{theirs}.out_proj.weight", (config.hidden, channels), "mixer")


def _selective(config: HybridConfig, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    """The tensors of one Mamba-1 mixer: x and z in one matrix, what makes B, C and time steps in another."""
    channels, rank, both, states = config.channels, config.rank, config.both, config.states
    for i, name in enumerate(("x", "z")):
        at, shape = f"{theirs}.in_proj.weight", (2 * channels, config.hidden)
        yield _matrix(config, f"{ours}.{name}", at, shape, name, rows=(i * channels, channels))
    yield from _conv(config, f"{ours}.conv_x", f"{theirs}.conv1d", (0, channels), channels)
    for name, rows in (("low", (0, rank)), ("bc", (rank, both))):
        yield _matrix(
            config, f"{ours}.{name}", f"{theirs}.x_proj.weight", (rank + both, channels), name, rows=rows
        )
    yield _matrix(config, f"{ours}.dt", f"{theirs}.dt_proj.weight", (channels, rank), "dt")
    yield _vector(f"{ours}.dt.bias", f"{theirs}.dt_proj.bias", channels)
    yield CheckpointTensor(
        path=f"{ours}.step.decay",
        name=f"{theirs}.A_log",
        shape=(channels, states),
        made=(_flat, (channels * states,)),
    )
    yield _vector(f"{ours}.step.through", f"{theirs}.D", channels)
    yield _matrix(config, f"{ours}.o", f"{theirs}.out_proj.weight", (config.hidden, channels), "mixer")


def _step_norms(config: HybridConfig, names: Names, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    low, b, c = (f"{theirs}.{one}.weight" for one in names.step_norms)
    yield _vector(f"{ours}.low_norm.gain", low, config.rank)
    yield CheckpointTensor(path=f"{ours}.bc_norm.gain", name=b, shape=(config.states,), behind=(c,))


def _flat(logarithm: Rows) -> Float32[np.ndarray, " decays"]:
    """The decays of each channel, state by state."""
    return decay(logarithm).reshape(-1)


def _conv(
    config: HybridConfig, ours: str, theirs: str, cut: tuple[int, int], wide: int
) -> Iterator[CheckpointTensor]:
    for tap in range(TAPS):
        made = partial(_tap, tap)
        yield CheckpointTensor(
            path=f"{ours}.tap{tap}",
            name=f"{theirs}.weight",
            shape=(wide, 1, TAPS),
            rows=cut,
            made=(made, cut[1:]),
        )
    if config.conv_biased:
        yield CheckpointTensor(path=f"{ours}.bias", name=f"{theirs}.bias", shape=(wide,), rows=cut)


def _times(factor: float, values: Rows) -> Rows:
    return values * np.float32(factor)


def _by_parts(factors: tuple[float, ...], values: Rows) -> Rows:
    """Equal parts of the rows, each times its factor."""
    return np.concatenate(
        [part * np.float32(by) for part, by in zip(np.split(values, len(factors)), factors, strict=True)]
    )


def _tap(tap: int, weight: Float32[np.ndarray, "channels 1 taps"]) -> Float32[np.ndarray, " channels"]:
    return np.ascontiguousarray(weight[:, 0, tap])


def _repeated(
    times: int, decays: bool, values: Float32[np.ndarray, " heads"]
) -> Float32[np.ndarray, " channels"]:
    """The number of each head for every channel of it; a decay A is -e^(its logarithm)."""
    return np.repeat(decay(values) if decays else values, times)


def decay(logarithm: Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """A, rounded once: RN32(-exp(A_log)). Source: docs/facts/contract2.md section 8."""
    return (-np.exp(logarithm.astype(np.float64))).astype(np.float32)
