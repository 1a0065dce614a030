"""Chips, GPUs, racks, bridges and nodes that ship with the project: one YAML file each in `catalog/`."""

import re
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fabric.bridge import BridgeSpec, PodSpec
from fabric.chip import ChipSpec, Sourced, check_sources
from fabric.gpu import AllReduce, Efficiency, GpuSpec, spread
from fabric.node import MemoryTier, NodeSpec
from fabric.topology import Level, RackSpec

FOLDER = Path(__file__).with_name("catalog")
ALIASES = {"lp30-p4": "lp30"}


class UnknownChipError(ValueError):
    """A chip name that the catalog does not hold."""

    exit_code = 2


class UnknownGpuError(ValueError):
    """A GPU name that the catalog does not hold."""

    exit_code = 2


class UnknownRackError(ValueError):
    """A rack name that the catalog does not hold."""

    exit_code = 2


class UnknownBridgeError(ValueError):
    """A bridge name that the catalog does not hold."""

    exit_code = 2


class UnknownNodeError(ValueError):
    """A node name that the catalog does not hold."""

    exit_code = 2


class UnknownPodError(ValueError):
    """A pod name that the catalog does not hold."""

    exit_code = 2


def chip_names() -> tuple[str, ...]:
    """Names of all chips, sorted, aliases among them."""
    return tuple(sorted([*_stems("chips"), *ALIASES]))


def gpu_names() -> tuple[str, ...]:
    """Names of all GPUs, sorted."""
    return _stems("gpus")


def rack_names() -> tuple[str, ...]:
    """Names of all racks, sorted: lpx-x4 before lpx-x12."""
    return tuple(sorted(_stems("racks"), key=_by_number))


def node_names() -> tuple[str, ...]:
    """Names of all single nodes, sorted."""
    return _stems("nodes")


def bridge_names() -> tuple[str, ...]:
    """Names of all bridges to GPUs, sorted."""
    return _stems("bridges")


@cache
def chip_spec(name: str) -> ChipSpec:
    """The chip of that name; an unknown name raises `UnknownChipError` with the closest one."""
    if name not in chip_names():
        raise UnknownChipError(_unknown("chip", name, chip_names()))
    fields = _read("chips", ALIASES.get(name, name))
    spec = ChipSpec(sources=_sources(fields), **fields)
    check_sources(f"chip {name}", list(spec.numbers()), spec.sources)
    return spec


@cache
def gpu_spec(name: str) -> GpuSpec:
    """The GPU of that name; an unknown name raises `UnknownGpuError` with the closest one."""
    if name not in gpu_names():
        raise UnknownGpuError(_unknown("gpu", name, gpu_names()))
    fields = _read("gpus", name)
    sources, carried_from = _sources(fields), tuple(fields.pop("carried_from", ()))
    rates = fields.pop("all_reduce")
    points, floors = (tuple((a, t) for a, t in rates.pop(key)) for key in ("points", "floors"))
    all_reduce = AllReduce(points=points, floors=floors, **rates)
    kernels = {key: Efficiency(**fields.pop(key)) for key in list(fields) if isinstance(fields[key], dict)}
    spec = GpuSpec(all_reduce=all_reduce, carried_from=carried_from, **kernels, **fields)
    spec = replace(spec, sources=spread(spec.sourced_names(), sources))
    check_sources(f"gpu {name}", spec.sourced_names(), spec.sources)
    return spec


@cache
def rack_spec(name: str) -> RackSpec:
    """The rack of that name as its file writes it; an unknown name raises `UnknownRackError`."""
    if name not in rack_names():
        raise UnknownRackError(_unknown("rack", name, rack_names()))
    fields = _read("racks", name)
    levels = tuple(Level(shape=tuple(level.pop("shape", ())), **level) for level in fields.pop("levels", ()))
    links = tuple((a, b, lanes, hop_ns) for a, b, lanes, hop_ns in fields.pop("links", ()))
    return RackSpec(sources=_sources(fields), levels=levels, links=links, **fields)


@cache
def bridge_spec(name: str) -> BridgeSpec:
    """The bridge of that name; an unknown name raises `UnknownBridgeError` with the closest one."""
    if name not in bridge_names():
        raise UnknownBridgeError(_unknown("bridge", name, bridge_names()))
    fields = _read("bridges", name)
    spec = BridgeSpec(sources=_sources(fields), **fields)
    check_sources(f"bridge {name}", list(spec.numbers()), spec.sources)
    return spec


@cache
def node_spec(name: str) -> NodeSpec:
    """The node of that name; an unknown name raises `UnknownNodeError` with the closest one.

    A file that names a `gpu` takes its first tier and its FLOPS from that GPU, with their sources.
    """
    if name not in node_names():
        raise UnknownNodeError(_unknown("node", name, node_names()))
    fields = _read("nodes", name)
    sources = _sources(fields)
    if "gpu" in fields:
        sources += _of_gpu(fields, gpu_spec(fields.pop("gpu")))
    tiers = tuple(MemoryTier(**tier) for tier in fields.pop("tiers"))
    pairs = {key: tuple(fields.pop(key)) for key in list(fields) if isinstance(fields[key], list)}
    spec = NodeSpec(sources=sources, tiers=tiers, **pairs, **fields)
    check_sources(f"node {name}", list(spec.numbers()), spec.sources)
    return spec


def _of_gpu(fields: dict[str, Any], gpu: GpuSpec) -> tuple[Sourced, ...]:
    """Fill in what `devices` of a GPU are together; gives the sources of those numbers."""
    count, first = fields["devices"], fields["tiers"][0]
    held = {source.field: source for source in gpu.sources}
    taken: dict[str, str] = {}
    for name in ("memory_bytes", "memory_bytes_per_second"):
        own = name.removeprefix("memory_") if name.endswith("second") else name
        first[own] = count * getattr(gpu, name)
        taken[f"{first['name']}.{own}"] = name
    for kind in ("fp16", "fp8", "fp4"):
        name = "flops_bf16" if kind == "fp16" else f"flops_{kind}"
        if (flops := getattr(gpu, name)) is not None:
            fields[f"flops_{kind}"] = count * flops
            taken[f"flops_{kind}"] = name
    if count > 1:
        fields["link_bytes_per_second"] = gpu.nvlink_bytes_per_second
        taken["link_bytes_per_second"] = "nvlink_bytes_per_second"
    times = f"{count} x gpu {gpu.name}" if count > 1 else f"gpu {gpu.name}"
    return tuple(
        replace(held[name], field=field, source=f"{times}: {held[name].source}")
        for field, name in taken.items()
    )


def pod_names() -> tuple[str, ...]:
    """Names of all pods, sorted: nvl72-lpx-x4 before nvl72-lpx-x12."""
    return tuple(sorted(_stems("pods"), key=_by_number))


@cache
def pod_spec(name: str) -> PodSpec:
    """The pod of that name; an unknown name raises `UnknownPodError` with the closest one."""
    if name not in pod_names():
        raise UnknownPodError(_unknown("pod", name, pod_names()))
    fields = _read("pods", name)
    spec = PodSpec(sources=_sources(fields), **fields)
    check_sources(f"pod {name}", list(spec.numbers()), spec.sources)
    return spec


def _stems(folder: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (FOLDER / folder).glob("*.yaml")))


def _by_number(name: str) -> list[tuple[str, int]]:
    """The words of a name with the numbers behind them."""
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D+)(\d*)", name)]


def _read(folder: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / folder / f"{name}.yaml").read_text(encoding="utf-8"))


def _sources(fields: dict[str, Any]) -> tuple[Sourced, ...]:
    return tuple(Sourced(**source) for source in fields.pop("sources"))


def _unknown(what: str, name: str, names: tuple[str, ...]) -> str:
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{what}: {name!r} is not in the catalog.{hint} It holds: {', '.join(names)}."
