"""What the Hugging Face folders of hybrid decoders mean: the keys of their config.json, and their tensors.

Source of defaults and names: transformers 5.24, configuration_ and modeling_ of the model_types here.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from jaxtyping import Float32

from models.families.family import HEAD, LM_HEAD, TABLE, CheckpointTensor
from models.hybrid_config import FAMILY, MIXER, TAPS, UNCLAMPED, HybridConfig
from models.sources.json_keys import Keys

LONGEST = 1 << 30  # tokens of a sequence, for a model without attention: nothing grows with them
_INERT = (
    *("time_step_rank", "time_step_min", "time_step_max", "time_step_floor", "chunk_size"),
    *("rescale_prenorm_residual", "residual_in_fp32", "rms_norm"),
)
"""Keys of initialisation, and of how transformers computes the same."""


def _mamba2(keys: Keys, name: str) -> HybridConfig:
    """Mamba-2 (Codestral Mamba, the state-spaces checkpoints in transformers' form)."""
    hidden, heads = keys.stated("hidden_size", 4096), keys.stated("num_heads", 128)
    head_dim, expand = keys.stated("head_dim", 64), keys.stated("expand", 2)
    if heads * head_dim != expand * hidden:
        why = f"num_heads {heads} x head_dim {head_dim} must be expand {expand} x hidden_size {hidden}"
        raise keys.error("num_heads", heads, why)
    taps_of(keys, "conv_kernel")
    if keys.flag("use_bias"):
        raise keys.error("use_bias", True, "projections with a bias are not supported")
    activation = keys.text("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise keys.error("hidden_act", activation, "only silu is supported")
    low, high = limits_of(keys, "time_step_limit")
    for inert in _INERT:
        keys.get(inert)
    groups = keys.stated("n_groups", 8)
    if groups > 1:
        raise keys.error("n_groups", groups, "a gated norm of each group is not supported, only one of all")
    layers = keys.stated("num_hidden_layers", 64)
    return HybridConfig(
        name=name,
        family=FAMILY,
        layers=layers,
        hidden=hidden,
        heads=1,
        kv_heads=1,
        head_dim=2,
        ffn=1,
        vocab=keys.stated("vocab_size", 32768),
        tied=keys.flag("tie_word_embeddings"),
        rope_theta=10_000.0,
        eps=keys.number("layer_norm_epsilon", 1e-5),
        max_context=LONGEST,
        source=f"config.json of the Hugging Face folder {name}",
        pattern=(MIXER,) * layers,
        channels=heads * head_dim,
        states=keys.stated("state_size", 128),
        ssm_heads=heads,
        groups=groups,
        conv_biased=keys.flag("use_conv_bias", True),
        step_low=low,
        step_high=high,
    )


def taps_of(keys: Keys, key: str) -> None:
    """Raise WeightError unless the convolution is as wide as the contract's."""
    taps = keys.stated(key, TAPS)
    if taps != TAPS:
        raise keys.error(key, taps, f"only convolutions of {TAPS} taps are supported")


def limits_of(keys: Keys, key: str) -> tuple[float, float]:
    """What time steps are clamped to; infinity is as none."""
    held = keys.get(key)
    if held is None:
        return 0.0, UNCLAMPED
    if isinstance(held, list) and len(held) == 2:
        low, high = (value["__float__"] if isinstance(value, dict) else value for value in held)
        if all(isinstance(value, int | float) for value in (low, high)) and low >= 0:
            return float(low), min(float(high), UNCLAMPED)
        if type(low) in (int, float) and low >= 0 and str(high) in ("Infinity", "inf"):
            return float(low), UNCLAMPED
    raise keys.error(key, held, "it is two numbers, the least and the most of a time step")


READERS: dict[str, Callable[[Keys, str], HybridConfig]] = {"mamba2": _mamba2}


def tensors(config: HybridConfig) -> Iterator[CheckpointTensor]:
    """The tensors of a checkpoint, in the order of the model."""
    yield CheckpointTensor(path=TABLE, name="backbone.embeddings.weight", shape=(config.vocab, config.hidden))
    for layer in range(config.layers):
        ours, theirs = f"layers.{layer}.mixer", f"backbone.layers.{layer}"
        yield _vector(f"{ours}.norm.gain", f"{theirs}.norm.weight", config.hidden)
        yield from mixer(config, ours, f"{theirs}.mixer", gated=f"{theirs}.mixer.norm")
    yield _vector("norm.gain", "backbone.norm_f.weight", config.hidden)
    head = "backbone.embeddings.weight" if config.tied else LM_HEAD
    yield CheckpointTensor(path=HEAD, name=head, shape=(config.vocab, config.hidden))


def _vector(path: str, name: str, width: int) -> CheckpointTensor:
    return CheckpointTensor(path=path, name=name, shape=(width,))


def mixer(config: HybridConfig, ours: str, theirs: str, *, gated: str) -> Iterator[CheckpointTensor]:
    """The tensors of one Mamba-2 mixer: its input matrix holds z, x, B and C, and the time steps."""
    channels, both, heads = config.channels, config.both, config.ssm_heads
    widths = {"z": channels, "x": channels, "bc": both, "dt": heads}
    first = 0
    for name, rows in widths.items():
        yield CheckpointTensor(
            path=f"{ours}.{name}",
            name=f"{theirs}.in_proj.weight",
            shape=(sum(widths.values()), config.hidden),
            rows=(first, rows),
        )
        first += rows
    for name, cut in (("conv_x", (0, channels)), ("conv_bc", (channels, both))):
        yield from _conv(config, f"{ours}.{name}", f"{theirs}.conv1d", cut)
    yield _vector(f"{ours}.dt.bias", f"{theirs}.dt_bias", heads)
    for name, held in (("decay", "A_log"), ("through", "D")):
        made = partial(_repeated, channels // heads, name == "decay")
        yield CheckpointTensor(
            path=f"{ours}.step.{name}", name=f"{theirs}.{held}", shape=(heads,), made=(made, (channels,))
        )
    if config.mixer_norm == "gated":
        yield _vector(f"{ours}.out_norm.gain", f"{gated}.weight", channels)
    yield CheckpointTensor(
        path=f"{ours}.o", name=f"{theirs}.out_proj.weight", shape=(config.hidden, channels)
    )


def _conv(config: HybridConfig, ours: str, theirs: str, cut: tuple[int, int]) -> Iterator[CheckpointTensor]:
    wide = config.channels + config.both
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
