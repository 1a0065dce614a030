"""What JAX is to do, whatever the environment says: pinned when the contract is first imported.

JAX takes settings from `JAX_*` variables. Those that would change dtypes, refuse what the contract computes
or switch compilation off are pinned; a platform that cannot compute the contract is refused by name.
"""

import os
from typing import Any, ClassVar

import jax

PINNED: dict[str, Any] = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_matmul_precision": None,
    "jax_disable_jit": False,
    "jax_no_tracing": False,
    "jax_no_execution": False,
    "jax_debug_nans": False,  # SRAM that nobody wrote reads as NaN
    "jax_debug_infs": False,
    "jax_check_tracer_leaks": False,
    "jax_transfer_guard": "allow",
    "jax_transfer_guard_host_to_device": "allow",
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
}
_PLATFORMS = ("cpu", "cuda", "gpu", "rocm")  # IEEE f64, which the contract's sums need


class SettingError(RuntimeError):
    """The environment asks JAX for what cannot compute the contract."""

    exit_code: ClassVar[int] = 2


def enable() -> None:
    """Set what is pinned; must come before the first array. Raises SettingError."""
    for name, value in PINNED.items():
        if hasattr(jax.config, name):  # some came with a later JAX
            jax.config.update(name, value)
    config: Any = jax.config
    asked = {
        "JAX_PLATFORMS": config.jax_platforms,
        "JAX_PLATFORM_NAME": os.environ.get("JAX_PLATFORM_NAME"),
    }
    for name, value in asked.items():
        if value and (reason := _unusable(value)):
            raise SettingError(f"jax: {name}={value}: {reason}. Unset it, or set cpu.")


def _unusable(platforms: str) -> str:
    """Why these platforms, separated by commas, will not do; empty if they will."""
    wanted = [platform.strip() for platform in platforms.split(",") if platform.strip()]
    if foreign := [platform for platform in wanted if platform not in _PLATFORMS]:
        return f"'{foreign[0]}' is none of {', '.join(_PLATFORMS)}"
    if wanted == ["cpu"]:
        return ""
    try:
        jax.default_backend()
    except (RuntimeError, AssertionError):  # the latter where none of them is installed
        return "JAX finds none of these here"
    return ""
