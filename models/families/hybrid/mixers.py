"""The tensors of the mixers of hybrid decoders: Mamba-1 and 2, the gated delta rule.

Source of names: transformers 5.24, modeling_ of the model_types of `names.py`.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
from jaxtyping import Float32

from models.configs.hybrid import HybridConfig
from models.families.family import CheckpointTensor
from models.families.hybrid.names import Names
from models.families.hybrid.pieces import Rows, matrix, vector


def mixer(config: HybridConfig, names: Names, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    """The tensors of one mixer without its norm."""
    made = _delta if config.rule == "delta" else _selective if config.rank else _mixer
    yield from made(config, ours, theirs)
    if config.step_norms:
        yield from _step_norms(config, names, ours, theirs)


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
    yield vector(f"{ours}.dt.bias", f"{theirs}.dt_bias", heads)
    for name, held in (("decay", "A_log"), ("through", "D")):
        made = partial(_repeated, channels // heads, name == "decay")
        yield CheckpointTensor(
            path=f"{ours}.step.{name}", name=f"{theirs}.{held}", shape=(heads,), made=(made, (channels,))
        )
    if config.mixer_norm == "gated":
        yield vector(f"{ours}.out_norm.gain", f"{theirs}.norm.weight", channels)
    yield matrix(config, f"{ours}.o", f"{theirs}.out_proj.weight", (config.hidden, channels), "mixer")


def _delta(config: HybridConfig, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    """The tensors of one gated delta layer; the convolution lies over queries, keys and values."""
    channels, both, heads, hidden = config.channels, config.both, config.ssm_heads, config.hidden
    yield from (_by_keys if config.names == "qwen3_next" else _in_turn)(config, ours, theirs)
    for name, rows in (("conv_x", (both, channels)), ("conv_bc", (0, both))):
        yield from _conv(config, f"{ours}.{name}", f"{theirs}.conv1d", rows, channels + both)
    bias, decays = (_and_zeros, (2 * heads,)), (partial(_repeated, channels // heads, True), (channels,))
    yield CheckpointTensor(path=f"{ours}.dt.bias", name=f"{theirs}.dt_bias", shape=(heads,), made=bias)
    yield CheckpointTensor(path=f"{ours}.step.decay", name=f"{theirs}.A_log", shape=(heads,), made=decays)
    yield vector(f"{ours}.out_norm.gain", f"{theirs}.norm.weight", channels // heads)
    yield CheckpointTensor(path=f"{ours}.o", name=f"{theirs}.out_proj.weight", shape=(hidden, channels))


def _in_turn(config: HybridConfig, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    """Of Qwen3.5: queries, keys and values in one matrix, gates, and what decays and betas are made of."""
    channels, both, heads, hidden = config.channels, config.both, config.ssm_heads, config.hidden
    for name, rows in (("x", (both, channels)), ("bc", (0, both))):
        at, shape = f"{theirs}.in_proj_qkv.weight", (both + channels, hidden)
        yield CheckpointTensor(path=f"{ours}.{name}", name=at, shape=shape, rows=rows)
    yield CheckpointTensor(path=f"{ours}.z", name=f"{theirs}.in_proj_z.weight", shape=(channels, hidden))
    numbers = tuple(f"{theirs}.in_proj_{one}.weight" for one in "ab")
    yield CheckpointTensor(path=f"{ours}.dt", name=numbers[0], shape=(heads, hidden), behind=numbers[1:])


def _by_keys(config: HybridConfig, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    """Of Qwen3-Next: for each head of keys its query, key, values and gates in one matrix; its numbers."""
    groups, lanes, hidden = config.groups, config.states, config.hidden
    values, heads = config.channels // groups, config.ssm_heads // groups
    widths = {"q": lanes, "k": lanes, "x": values, "z": values}
    shape = (groups * sum(widths.values()), hidden)
    for name, parts in (("z", ("z",)), ("x", ("x",)), ("bc", ("q", "k"))):
        made = partial(_of_each, groups, tuple(_runs(widths, parts)))
        own = groups * sum(widths[part] for part in parts), hidden
        yield CheckpointTensor(
            path=f"{ours}.{name}", name=f"{theirs}.in_proj_qkvz.weight", shape=shape, made=(made, own)
        )
    made = partial(_of_each, groups, ((heads, heads), (0, heads)))  # betas lie first
    own = (2 * config.ssm_heads, hidden)
    yield CheckpointTensor(path=f"{ours}.dt", name=f"{theirs}.in_proj_ba.weight", shape=own, made=(made, own))


def _runs(widths: dict[str, int], parts: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """First row and rows of these parts of a head of keys."""
    names = list(widths)
    for part in parts:
        yield sum(widths[one] for one in names[: names.index(part)]), widths[part]


def _of_each(groups: int, runs: tuple[tuple[int, int], ...], values: Rows) -> Rows:
    """Of each head of keys a run of rows, head by head; then the next run of each."""
    each = values.reshape(groups, -1, values.shape[1])
    taken = [each[:, first : first + rows].reshape(-1, values.shape[1]) for first, rows in runs]
    return np.ascontiguousarray(np.concatenate(taken))


def _and_zeros(values: Float32[np.ndarray, " heads"]) -> Float32[np.ndarray, " twice"]:
    """Biases of decays, and none of betas."""
    return np.concatenate([values, np.zeros_like(values)])


def _selective(config: HybridConfig, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    """The tensors of one Mamba-1 mixer: x and z in one matrix, what makes B, C and time steps in another."""
    channels, rank, both, states = config.channels, config.rank, config.both, config.states
    for i, name in enumerate(("x", "z")):
        at, shape = f"{theirs}.in_proj.weight", (2 * channels, config.hidden)
        yield matrix(config, f"{ours}.{name}", at, shape, name, rows=(i * channels, channels))
    yield from _conv(config, f"{ours}.conv_x", f"{theirs}.conv1d", (0, channels), channels)
    for name, rows in (("low", (0, rank)), ("bc", (rank, both))):
        yield matrix(
            config, f"{ours}.{name}", f"{theirs}.x_proj.weight", (rank + both, channels), name, rows=rows
        )
    yield matrix(config, f"{ours}.dt", f"{theirs}.dt_proj.weight", (channels, rank), "dt")
    yield vector(f"{ours}.dt.bias", f"{theirs}.dt_proj.bias", channels)
    yield CheckpointTensor(
        path=f"{ours}.step.decay",
        name=f"{theirs}.A_log",
        shape=(channels, states),
        made=(_flat, (channels * states,)),
    )
    yield vector(f"{ours}.step.through", f"{theirs}.D", channels)
    yield matrix(config, f"{ours}.o", f"{theirs}.out_proj.weight", (config.hidden, channels), "mixer")


def _step_norms(config: HybridConfig, names: Names, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    low, b, c = (f"{theirs}.{one}.weight" for one in names.step_norms)
    yield vector(f"{ours}.low_norm.gain", low, config.rank)
    yield CheckpointTensor(path=f"{ours}.bc_norm.gain", name=b, shape=(config.states,), behind=(c,))


def _flat(logarithm: Rows) -> Float32[np.ndarray, " decays"]:
    """The decays of each channel, state by state."""
    return decay(logarithm).reshape(-1)


def _conv(
    config: HybridConfig, ours: str, theirs: str, cut: tuple[int, int], wide: int
) -> Iterator[CheckpointTensor]:
    for tap in range(config.taps):
        made = partial(_tap, tap)
        yield CheckpointTensor(
            path=f"{ours}.tap{tap}",
            name=f"{theirs}.weight",
            shape=(wide, 1, config.taps),
            rows=cut,
            made=(made, cut[1:]),
        )
    if config.conv_biased:
        yield CheckpointTensor(path=f"{ours}.bias", name=f"{theirs}.bias", shape=(wide,), rows=cut)


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
