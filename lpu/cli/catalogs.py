"""Verbs that list what there is: racks, chips, gpus, bridges, pods; schema and env.

A name shows one of them, number by number.
"""

import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compiler.options import Option
from lpu.cli.terminal import TERMINAL

if TYPE_CHECKING:
    from lpu.report.numbers import Number

KINDS = ("model", "rack", "chip", "gpu", "bridge", "node")
PACKAGES = ("lpu-emulator", "jax", "jaxlib", "flax", "numpy", "orbax-checkpoint", "safetensors", "tokenizers")


Name = Annotated[
    str | None, Option("name", "One of them, or a file: every number with its source.", shown="a list of all")
]


def racks(name: Name = None) -> None:
    """The racks of the catalog, with the numbers that nobody publishes; of one, every number.

    Examples:
      lpu racks
      lpu racks lpx
    """
    from fabric.catalog import rack_names
    from fabric.rack import load_rack
    from lpu.report.words import by_confidence

    terminal = TERMINAL.get()
    if name is not None:
        from lpu.inputs.files import read_rack
        from lpu.report.numbers import of_rack, of_spec

        rack = read_rack(name)
        if rack.damage:
            terminal.note(f"note: {rack}")
        chip = [one._replace(name=f"{rack.chip.name}.{one.name}") for one in of_spec(rack.chip)]
        return one_entry("rack", rack.name, of_rack(rack.spec) + chip, chips=rack.chips)
    found = [load_rack(name) for name in rack_names()]
    terminal.table(
        ("rack", "chips", "chip", "links", "sram", "levels", "assumed numbers"),
        [
            [
                rack.name,
                f"{rack.chips:,}",
                rack.chip.name,
                f"{len(rack.links):,}",
                f"{rack.chips * rack.chip.sram_bytes / 1e9:,.1f} GB",
                ", ".join(f"{len(level.groups)} {level.name}" for level in rack.levels),
                str(len(by_confidence(rack.chip.sources + rack.sources)["assumed"])),
            ]
            for rack in found
        ],
    )
    _sources("racks")
    terminal.result(
        {
            "schema": "lpu-racks/1",
            "racks": [
                {
                    "name": rack.name,
                    "chips": rack.chips,
                    "chip": rack.chip.name,
                    "links": len(rack.links),
                    "clock_hz": rack.chip.clock_hz,
                    "sram_bytes_per_chip": rack.chip.sram_bytes,
                    "numbers": by_confidence(rack.chip.sources + rack.sources),
                }
                for rack in found
            ],
        }
    )


def chips(name: Name = None) -> None:
    """The chips of the catalog; of one, every number.

    Examples:
      lpu chips
      lpu chips lp30
    """
    from fabric.catalog import chip_names, chip_spec
    from lpu.report.words import by_confidence

    terminal = TERMINAL.get()
    if name is not None:
        from lpu.inputs.files import read_chip
        from lpu.report.numbers import of_spec

        chip = read_chip(name)
        return one_entry("chip", chip.name, of_spec(chip))
    found = {chip: chip_spec(chip) for chip in chip_names()}
    keys = ("planes", "clock_hz", "sram_bytes", "sram_bytes_per_cycle", "lanes")
    terminal.table(
        ("chip", "planes", "clock", "sram", "bytes a cycle", "lanes"),
        [[chip, *(f"{getattr(spec, key):,}" for key in keys)] for chip, spec in found.items()],
    )
    rows = [
        {"name": chip, **spec.numbers(), "numbers": by_confidence(spec.sources)}
        for chip, spec in found.items()
    ]
    _sources("chips")
    terminal.result({"schema": "lpu-chips/1", "chips": rows})


def bridges(name: Name = None) -> None:
    """The bridges to GPUs; of one, every number.

    Examples:
      lpu bridges
      lpu bridges spectrum-x
    """
    from fabric.catalog import bridge_names, bridge_spec
    from lpu.report.words import by_confidence

    terminal = TERMINAL.get()
    if name is not None:
        from lpu.inputs.files import read_bridge
        from lpu.report.numbers import of_spec

        bridge = read_bridge(name)
        return one_entry("bridge", bridge.name, of_spec(bridge))
    found = [bridge_spec(bridge) for bridge in bridge_names()]
    terminal.table(
        ("bridge", "one LPU", "a rack", "LPUs of a rack", "latency"),
        [
            [
                bridge.name,
                f"{bridge.lpu_bytes_per_second / 1e9:,.1f} GB/s",
                f"{bridge.rack_bytes_per_second / 1e9:,.1f} GB/s",
                str(bridge.rack_lpus),
                f"{bridge.latency_ns:,} ns",
            ]
            for bridge in found
        ],
    )
    rows = [
        {"name": bridge.name, **bridge.numbers(), "numbers": by_confidence(bridge.sources)}
        for bridge in found
    ]
    _sources("bridges")
    terminal.result({"schema": "lpu-bridges/1", "bridges": rows})


def pods(name: Name = None) -> None:
    """GPUs beside racks of LPUs, by one name for lpu afd --pod; of one, every number.

    Examples:
      lpu pods
      lpu pods nvl72-lpx-x4
    """
    from fabric.catalog import pod_names, pod_spec
    from lpu.report.numbers import of_spec
    from lpu.report.words import by_confidence

    terminal = TERMINAL.get()
    if name is not None:
        return one_entry("pod", name, of_spec(pod_spec(name)))
    found = [pod_spec(each) for each in pod_names()]
    terminal.table(
        ("pod", "GPUs", "rack", "bridge"),
        [[pod.name, f"{pod.gpus} x {pod.gpu}", pod.rack, pod.bridge] for pod in found],
    )
    rows = [
        {"name": pod.name, "gpu": pod.gpu, "bridge": pod.bridge, **pod.numbers()}
        | {"numbers": by_confidence(pod.sources)}
        for pod in found
    ]
    _sources("pods")
    terminal.result({"schema": "lpu-pods/1", "pods": rows})


def schema(
    kind: Annotated[str, Option("kind", "What the file describes.", choices=KINDS)],
) -> None:
    """The JSON schema of a file of yours (docs/files.md).

    Examples:
      lpu schema model
    """
    from lpu.inputs.schema import schema as schema_of

    print(json.dumps(schema_of(kind), indent=2))


def gpus(name: Name = None) -> None:
    """The GPUs of the catalog, and whose measured efficiencies each one uses; of one, every number.

    Examples:
      lpu gpus
      lpu gpus h200
    """
    from fabric.catalog import gpu_names, gpu_spec
    from lpu.report.words import by_confidence

    terminal = TERMINAL.get()
    if name is not None:
        from lpu.inputs.files import read_gpu
        from lpu.report.numbers import of_spec

        gpu = read_gpu(name)
        return one_entry("gpu", gpu.name, of_spec(gpu))
    found = [gpu_spec(name) for name in gpu_names()]
    terminal.table(
        ("gpu", "memory", "bandwidth", "bf16", "fp8", "fp4", "nvlink", "nic", "band", "parameters from"),
        [
            [
                gpu.name,
                f"{gpu.memory_bytes / 1e9:,.0f} GB",
                f"{gpu.memory_bytes_per_second / 1e12:,.2f} TB/s",
                *(
                    f"{flops / 1e15:,.2f} PF" if flops else "-"
                    for flops in (gpu.flops_bf16, gpu.flops_fp8, gpu.flops_fp4)
                ),
                f"{gpu.nvlink_bytes_per_second / 1e9:,.0f} GB/s",
                f"{gpu.nic_bytes_per_second / 1e9:,.0f} GB/s",
                gpu.band_text,
                gpu.parameters_text,
            ]
            for gpu in found
        ],
    )
    from lpu.gpu.generation import APART, SISTER, UNSEEN
    from lpu.gpu.pool import STEP_BAND
    from lpu.gpu.served.engine import engines

    bands = {"operators one after another": STEP_BAND} | {one.name: one.band for one in engines().values()}
    shown = ", ".join(f"{name} +-{100 * band:.0f} %" for name, band in bands.items())
    unseen = ", ".join(f"{one.name} +-{100 * one.unseen:.0f} %" for one in engines().values())
    terminal.say(f"Band of a whole step, beside a GPU's own: {shown} (lpu validate --suite steps)")
    terminal.say(f"  of a model that the engine was not fitted to: {unseen}")
    terminal.say("Band of 90 % of operators of a GPU without kernels of its own, whose kernels are of")
    for relation in (SISTER, APART):
        wide = ", ".join(f"{what} +-{100 * by[relation]:.0f} %" for what, by in UNSEEN.items())
        terminal.say(f"  {relation}: {wide} (lpu validate --suite experts)")
    _sources("gpus")
    terminal.result(
        {
            "schema": "lpu-gpus/2",
            "step_bands": bands,
            "unseen_bands": UNSEEN,
            "gpus": [
                {
                    "name": gpu.name,
                    **gpu.numbers(),
                    "carried_from": list(gpu.carried_from),
                    "numbers": by_confidence(gpu.sources),
                }
                for gpu in found
            ],
        }
    )


def _sources(verb: str) -> None:
    """The line below a list that says where the kind of each number stands."""
    TERMINAL.get().say(f"Of each number its kind (published, derived, assumed) and source: lpu {verb} NAME")


def one_entry(kind: str, name: str, numbers: "Sequence[Number]", **derived: int) -> None:
    """One entry of a catalog, number by number."""
    terminal = TERMINAL.get()
    terminal.say(f"{kind} {name}")
    rows = [[one.name, _text(one.value), _kind(one), one.source] for one in numbers]
    rows += [[key, _text(value), "derived", "from the numbers above"] for key, value in derived.items()]
    terminal.table(("number", "value", "kind", "source"), rows)
    listed = [one._asdict() for one in numbers]
    terminal.result({"schema": f"lpu-{kind}/1", "name": name, "numbers": listed, **derived})


def _kind(number: "Number") -> str:
    """How a number is known, with the letter of its source where that says more."""
    letter = number.confidence
    return f"{number.kind} ({letter})" if letter not in ("", number.kind) else number.kind


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    return f"{value:,}"


def env() -> None:
    """Versions, devices, and whether this JAX keeps the numerics contract (exit 1 if not).

    Examples:
      lpu env
    """
    import jax

    from models.contract.formats import NumericsError, guard

    terminal = TERMINAL.get()
    verdict = "kept"
    try:
        guard()
    except NumericsError as error:
        verdict = str(error)
    body: dict[str, Any] = {
        "schema": "lpu-env/1",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {name: _version(name) for name in PACKAGES},
        "devices": [str(device) for device in jax.devices()],
        "contract": verdict,
        "executable": sys.executable,
    }
    terminal.facts(
        [
            ("python", f"{body['python']} ({body['platform']}, {body['cpus']} cpus)"),
            *((name, found or "not installed") for name, found in body["versions"].items()),
            ("devices", ", ".join(body["devices"])),
            ("contract", verdict),
        ]
    )
    terminal.result(body)
    if verdict != "kept":
        raise typer.Exit(1)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


VERBS = (racks, chips, gpus, bridges, pods, schema, env)
