"""A program and its check as lines for a person and as JSON values."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from compiler.isa import WORD_BYTES
from compiler.program import Program
from lpu.check import Report
from lpu.confidence import by_confidence, confidence_line
from lpu.figures import size
from lpu.terminal import Terminal


def show_program(terminal: Terminal, program: Program) -> None:
    """What a program is, in a few lines."""
    body, manifest = program_body(program), program.manifest
    about, options = manifest["model"], manifest["options"]
    terminal.facts(
        [
            (
                "model",
                f"{about['name']}, weights {about['weights']}, kv {about['kv']}, batch {body['batch']}",
            ),
            ("rack", f"{body['rack']}: {manifest['chips']} chips {manifest['chip_name']}"),
            (
                "layout",
                f"tp {options['tp']}{_dealt(options)} by {options['layout']}, {body['groups_used']} of "
                f"{manifest['chips'] // options['tp']} groups in the pipeline, {options['placement']}",
            ),
            *(
                (
                    "latency",
                    f"{one['latency_cycles']:,} cycles = {one['latency_microseconds']:.2f} us per token at "
                    f"context {one['context']} ({one['rows']:,} rows)",
                )
                for one in body["contexts"]
            ),
            (
                "sram",
                f"{size(body['sram_bytes_max'])} on the fullest chip, of {size(body['sram_bytes_chip'])}",
            ),
            ("numbers", confidence_line(manifest["sources"])),
            ("digest", body["program_sha256"]),
        ]
    )


def program_body(program: Program) -> dict[str, Any]:
    """The same as JSON values."""
    manifest = program.manifest
    words = max(sum(region[1] for region in chip) for chip in manifest["regions"])
    return {
        "model": manifest["model"],
        "rack": manifest["rack"],
        "options": manifest["options"],
        "groups_used": len(manifest["groups"]),
        "batch": manifest["rows"],
        "contexts": [
            {
                "context": context,
                "rows": len(program.expand(context)),
                "latency_cycles": manifest["cycles"][str(context)],
                "latency_microseconds": manifest["cycles"][str(context)] * 1e6 / manifest["clock_hz"],
            }
            for context in manifest["contexts"]
        ],
        "clock_hz": manifest["clock_hz"],
        "numbers": by_confidence(manifest["sources"]),
        "sram_bytes_max": words * WORD_BYTES,
        "sram_bytes_chip": manifest["chip"]["sram_bytes"],
        "inputs_sha256": manifest["inputs"],
        "program_sha256": manifest["digest"],
    }


def check_body(context: int, found: Report) -> dict[str, Any]:
    """One report as JSON values."""
    return {
        "context": context,
        "rows": found.rows,
        "ok": found.ok,
        "violations": found.total,
        "violations_per_rule": list(found.counts),
        "first": [asdict(one) for one in found.violations],
    }


def _dealt(options: Mapping[str, Any]) -> str:
    """Over how many chips a head's context is dealt, where it is."""
    return f", cp {options['cp']}" if (options.get("cp") or 1) > 1 else ""
