"""Verbs that list what there is: models, racks, gpus, env."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from lpu.cli.terminal import TERMINAL

PACKAGES = ("lpu-emulator", "jax", "jaxlib", "flax", "numpy", "orbax-checkpoint", "safetensors", "tokenizers")


def models() -> None:
    """The models of the catalog."""
    from models.catalog import catalog, catalog_names

    terminal = TERMINAL.get()
    configs = [catalog(name) for name in catalog_names()]
    keys = ("name", "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "max_context")
    rows = [{key: getattr(config, key) for key in keys} for config in configs]
    for row, config in zip(rows, configs, strict=True):
        row |= {"parameters": config.parameters()}
    terminal.table(
        ("model", "parameters", "layers", "hidden", "heads", "kv", "ffn", "vocab", "longest context"),
        [
            [str(row["name"]), f"{row['parameters']:,}"]
            + [
                f"{row[key]:,}"
                for key in ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "max_context")
            ]
            for row in rows
        ],
    )
    terminal.result({"schema": "lpu-models/1", "models": rows})


def racks() -> None:
    """The racks of the catalog, with the numbers that nobody publishes."""
    from fabric.catalog import rack_names
    from fabric.rack import load_rack
    from lpu.report.words import by_confidence

    terminal = TERMINAL.get()
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


def gpus() -> None:
    """The GPUs of the catalog, and whose measured efficiencies each one uses."""
    from fabric.catalog import gpu_names, gpu_spec
    from lpu.report.words import by_confidence

    terminal = TERMINAL.get()
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
    terminal.result(
        {
            "schema": "lpu-gpus/1",
            "gpus": [
                {
                    "name": gpu.name,
                    **gpu.numbers(),
                    "carried_from": list(gpu.carried_from),
                    "confidence": by_confidence(gpu.sources),
                }
                for gpu in found
            ],
        }
    )


def env() -> None:
    """Versions, devices, and whether this JAX keeps the numerics contract (exit 1 if not)."""
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


VERBS = (models, racks, gpus, env)
