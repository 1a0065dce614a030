"""The GPUs that a model takes at a context, beside a rack: how many, their users, how fast they decode."""

from dataclasses import dataclass

from compiler.errors import OptionError
from fabric.catalog import gpu_spec
from fabric.gpu import GpuSpec
from lpu.gpu.families.registry import layers_of
from lpu.gpu.pool import GpuPool
from models.catalog import catalog, is_named
from models.config import TransformerConfig
from models.published.entries import published
from models.published.state import RefusedModelError, config_of

SIZES = (1, 2, 4, 8)
"""GPUs that share a model, of one NVLink domain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpusBeside:
    """The fewest GPUs that hold a model and one user; users: that fit then. All of it modelled.

    seconds: of a token of one user by itself. tokens_per_second: of all users together.
    """

    gpu: str
    gpus: int
    users: int
    seconds: float
    tokens_per_second: float


def gpus_beside(name: str, context: int, gpu: str = "h200") -> GpusBeside | None:
    """The GPUs for a model by name; None where they do not hold it, or nobody says what they launch."""
    config, spec = _config(name), gpu_spec(gpu)
    if config is None:
        return None
    try:
        sizes = [size for size in SIZES if layers_of(config).divides(config, size)]
        found = (_of(config, spec, size, context) for size in sizes)
        return next((one for one in found if one is not None), None)
    except OptionError:
        return None


def _config(name: str) -> TransformerConfig | None:
    if name not in published():
        return catalog(name) if is_named(name) else None
    try:
        return config_of(published()[name])
    except RefusedModelError:
        return None


def _of(config: TransformerConfig, spec: GpuSpec, size: int, context: int) -> GpusBeside | None:
    pool = GpuPool(spec=spec, gpus=size)
    room = pool.memory_bytes - pool.weight_bytes(config)
    users = room // pool.kv_bytes(config, 1, context)
    if users < 1:
        return None
    return GpusBeside(
        gpu=spec.name,
        gpus=size,
        users=users,
        seconds=pool.step(config, 1, context).seconds,
        tokens_per_second=users / pool.step(config, users, context).seconds,
    )
