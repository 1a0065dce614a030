"""What the `config.json` of hybrid decoders says alike: mixers, time steps, biases.

Source of defaults: transformers 5.24, configuration_ of the model_types of `readers.py`.
"""

from collections.abc import Iterable
from typing import Any

from models.configs.hybrid import FAMILY, TAPS, UNCLAMPED, HybridConfig
from models.sources.json_keys import Keys

_HEADS = ("mamba_d_ssm", "mamba_d_head", "mamba_n_heads", "num_heads")
LONGEST = 1 << 30  # tokens of a sequence, for a model without attention: nothing grows with them
_INERT = (
    *("time_step_rank", "time_step_min", "time_step_max", "time_step_floor", "chunk_size"),
    *("rescale_prenorm_residual", "residual_in_fp32", "rms_norm", "mamba_chunk_size", "num_logits_to_keep"),
    *("z_loss_coefficient", "mamba_use_mlp", "mamba_norm_before_gate", "mlp_expansion_factor"),
    *("time_step_init_scheme", "time_step_scale", "use_mambapy", "use_associative_scan"),
    *("output_router_logits", "router_aux_loss_coef", "num_experts_per_tok", "use_mamba_kernels"),
)
"""Keys of initialisation and training, and of how transformers computes the same."""


def config_of(keys: Keys, name: str, names: str, pattern: tuple[str, ...], **numbers: Any) -> HybridConfig:
    """The record of these numbers and of the keys that all share. Raises WeightError."""
    for inert in _INERT:
        keys.get(inert)
    low, high = numbers.pop("step", None) or _limits(keys, "time_step_limit")
    for key in ("mamba_ssm_cache_dtype", "mamba_ssm_dtype"):
        if (kept := keys.get(key)) not in (None, "float32"):
            raise keys.error(key, kept, "states are kept in float32, in no other format")
    return HybridConfig(
        name=name,
        family=FAMILY,
        names=names,
        layers=len(pattern),
        hidden=keys.stated("hidden_size", 4096),
        tied=keys.flag("tie_word_embeddings"),
        source=f"config.json of the Hugging Face folder {name}",
        pattern=pattern,
        step_low=low,
        step_high=high,
        **numbers,
    )


def mixer_of(
    keys: Keys,
    hidden: int,
    *,
    heads: int,
    head_dim: int,
    expand: str,
    taps: str,
    groups: int,
    bias: str,
    channels: int | None = None,
) -> dict[str, int]:
    """Channels, heads and groups of a mixer that the vocabulary has. Raises WeightError."""
    wide = keys.stated(expand, 2) * hidden if channels is None else channels
    if heads * head_dim != wide:
        key = _stated(keys, (*_HEADS, expand))
        raise keys.error(key, keys.get(key), f"{heads} heads of {head_dim} are not {wide} channels")
    if heads % groups:
        why = f"groups of B and C share {heads} heads, which it does not divide"
        raise keys.error(_stated(keys, ("n_groups", "mamba_n_groups")), groups, why)
    no_biases(keys, bias)
    return {"channels": wide, "ssm_heads": heads, "groups": groups, "taps": taps_of(keys, taps)}


def _stated(keys: Keys, names: tuple[str, ...]) -> str:
    """The first of these keys that the config has, else the last."""
    return next((name for name in names if keys.get(name) is not None), names[-1])


def taps_of(keys: Keys, key: str) -> int:
    """Taps of the convolutions. Raises WeightError for 1, which keeps no input."""
    if (found := keys.stated(key, TAPS)) < 2:
        raise keys.error(key, found, "a convolution that keeps inputs has 2 taps or more")
    return found


def no_biases(keys: Keys, *names: str) -> None:
    """Raise WeightError for a bias."""
    for name in names:
        if keys.flag(name):
            raise keys.error(name, True, "such a bias is not supported")


def numbers_of(keys: Keys, key: str, count: int) -> Iterable[float]:
    """A list of this many multipliers; each is 1 where they are absent."""
    return (1.0,) * count if keys.get(key) is None else keys.numbers(key, count)


def _limits(keys: Keys, key: str) -> tuple[float, float]:
    """What time steps are clamped to; infinity is as none."""
    held = keys.get(key)
    if held is None:
        return 0.0, UNCLAMPED
    pair = [_number(one) for one in held] if isinstance(held, list | tuple) else []
    low, high = pair if len(pair) == 2 else (None, None)
    if low is None or high is None or not 0 <= low <= high:
        raise keys.error(key, held, "it is the least and the most of a time step, 0 or more")
    return low, min(high, UNCLAMPED)


def _number(value: Any) -> float | None:
    """A number of JSON, or infinity as transformers writes it."""
    if isinstance(value, dict):
        value = value.get("__float__")
    if value in ("Infinity", "inf"):
        return float("inf")
    return float(value) if type(value) in (int, float) else None
