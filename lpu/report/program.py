"""A program and its check as names and values for a person, and as JSON values."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from compiler.analyse.early import cold_tables, lane_bytes
from compiler.moves.early import rest_cycles
from compiler.options import CompileOptions
from compiler.program.isa import WORD_BYTES
from compiler.program.manifest import Manifest
from compiler.program.program import Program
from compiler.program.prompt import whole_prompt
from lpu.report.words import (
    CAUTION_FACTOR,
    EXACT,
    by_confidence,
    caution,
    confidence_line,
    kind,
    label_of,
    size,
)
from lpu.screen import plain

Facts = list[tuple[str, str]]


def program_facts(program: Program) -> Facts:
    """What a program is, in a few lines."""
    body, manifest = program_body(program), program.manifest
    about, options = manifest.model, manifest.options
    tokens = "per token" if manifest.chunk == 1 else f"for {manifest.chunk} tokens of a prompt"
    return [
        (
            "model",
            f"{plain(about.name)}, weights {plain(about.weights, 200)}, kv {about.kv}, batch {body['batch']}",
        ),
        ("rack", f"{plain(body['rack'])}: {manifest.chips} chips {plain(manifest.chip.name)}"),
        *broken_facts(manifest),
        (
            "layout",
            f"tp {manifest.tp}{_dealt(options)} by {options.layout}, {_in_use(manifest)}, "
            f"{options.placement}",
        ),
        *((("search", search_line(manifest)),) if manifest.search else ()),
        *(_hop_lines(body) if body["hops"] else _latency_lines(body, tokens)),
        *(prompt_facts(manifest) if manifest.chunk > 1 else ()),
        *early_facts(program),
        *cold_facts(program),
        (
            "sram",
            f"{size(body['sram_bytes_max'])} on the fullest chip, of {size(body['sram_bytes_chip'])}",
        ),
        ("numbers", confidence_line(manifest.sources)),
        *((("caution", said),) if (said := caution(manifest.chip.name)) else ()),
        ("digest", body["program_sha256"]),
    ]


def early_facts(program: Program) -> Facts:
    """Where early KV lies, what a step fetches of it, what a section takes to go out; nothing without one."""
    manifest, kept = program.manifest, program.manifest.options.spill
    if kept is None:
        return []
    step, cycles = lane_bytes(program), rest_cycles(program)
    lane = f"{size(step)} of it over lanes a step at context {manifest.longest}, one layer after another"
    return [
        ("spill", f"{kept} of {manifest.longest} tokens in SRAM, earlier KV in DDR5; {lane} ({EXACT})"),
        (
            "between",
            f"{cycles:,} cycles every {kept} tokens: a full section goes out over all lanes ({EXACT})",
        ),
    ]


def cold_facts(program: Program) -> Facts:
    """Which experts lie in DDR5, and what a step fetches of them; nothing where there are none."""
    if not (tables := cold_tables(program)):
        return []
    experts = ", ".join(f"{one.first}-{one.first + one.held - 1}" for one in tables)
    slots, step = sum(one.slots for one in tables), size(lane_bytes(program))
    return [
        (
            "cold",
            f"experts {experts} of {tables[0].experts} of each layer in DDR5; a step fetches {slots} of them "
            f"for any routing, {step} over the busiest lanes, one layer after another ({EXACT})",
        )
    ]


def broken_facts(manifest: Manifest) -> list[tuple[str, str]]:
    """What of the rack is broken, if anything."""
    if (broken := manifest.broken) is None:
        return []
    named = f" ({' '.join(map(str, broken.lost[:16]))})" if broken.lost else ""
    lost = f"{len(broken.lost)} chips lost{named}"
    parent = [("parent", f"{broken.parent}: the program before these faults")] if broken.parent else []
    return [("broken", f"{' '.join(broken.faults)}; {lost}"), *parent]


def _in_use(manifest: Manifest) -> str:
    """What of the rack has work: groups, or chips where a placement shares groups out one by one."""
    used = len(manifest.groups)
    left = manifest.chips - (len(manifest.broken.lost) if manifest.broken else 0)
    if manifest.groups and len(manifest.groups[0]) != manifest.tp:
        return f"{used} of {left} chips in use"
    return f"{used} of {left // manifest.tp} groups in the pipeline"


def _latency_lines(body: Mapping[str, Any], tokens: str) -> list[tuple[str, str]]:
    stamp = body["kind"] if body["label"] is None else f"{body['label']}, {body['kind']}"
    return [
        (
            "latency",
            f"{one['latency_cycles']:,} cycles = {one['latency_microseconds']:.2f} us {tokens} at "
            f"context {one['context']} ({one['rows']:,} rows; {stamp})",
        )
        for one in body["contexts"]
    ]


def _hop_lines(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Hops by their cycles, and their sum, which is no latency of a token."""
    counts = Counter(hop["cycles"] for hop in body["hops"])
    (whole,) = body["contexts"]
    each = [
        ("hops", f"{count} of {cycles:,} cycles = {cycles * 1e6 / body['clock_hz']:.2f} us, each by itself")
        for cycles, count in sorted(counts.items())
    ]
    return [
        *each,
        (
            "sum",
            f"{whole['latency_cycles']:,} cycles = {whole['latency_microseconds']:.2f} us of all hops "
            f"({whole['rows']:,} rows); between them are GPUs and links, see lpu afd",
        ),
    ]


def search_line(manifest: Manifest) -> str:
    """Every tp that was tried with its cycles, and those that do not fit."""
    tried, request = manifest.search, manifest.options.request
    what = f"request of {request} tokens" if request else "step"
    fit = [f"tp {one.tp} {one.cycles:,} cycles" for one in tried if one.cycles is not None]
    unfit = [f"tp {one.tp}: {one.reason}" for one in tried if one.cycles is None]
    return f"tp {manifest.tp} is the shortest {what} of {', '.join(fit)}" + "".join(
        f"; {one}" for one in unfit
    )


def program_body(program: Program) -> dict[str, Any]:
    """The same as JSON values."""
    manifest = program.manifest
    words = int(manifest.region_table()[:, :, 1].sum(axis=1).max())
    return {
        "kind": EXACT,
        "label": label_of(manifest.chip.name),
        "caution_factor": CAUTION_FACTOR if label_of(manifest.chip.name) else None,
        "model": asdict(manifest.model),
        "rack": manifest.rack,
        **({"broken": asdict(manifest.broken)} if manifest.broken else {}),
        "options": asdict(manifest.options),
        "search": [asdict(one) for one in manifest.search],
        "groups_used": len(manifest.groups),
        "batch": manifest.sequences,
        "contexts": [
            {
                "context": context,
                "rows": program.rows(context),
                "latency_cycles": manifest.cycles[context],
                "latency_microseconds": manifest.cycles[context] * 1e6 / manifest.clock_hz,
            }
            for context in manifest.contexts
        ],
        "hops": [{"name": hop.name, "cycles": hop.cycles} for hop in manifest.hops],
        "clock_hz": manifest.clock_hz,
        "numbers": by_confidence(manifest.sources),
        "sram_bytes_max": words * WORD_BYTES,
        "sram_bytes_chip": manifest.chip.sram_bytes,
        "inputs_sha256": manifest.inputs,
        "program_sha256": manifest.digest,
    }


def prefill_facts(program: Program) -> Facts:
    """What a prefill program takes, per context bucket."""
    body = prefill_body(program)
    return [
        *(
            (
                "prefill",
                f"{one['latency_cycles']:,} cycles = {one['latency_microseconds']:.2f} us for "
                f"{body['tokens']} tokens of a prompt at context {one['context']} "
                f"({one['rows']:,} rows), {one['tokens_per_second']:,.0f} tokens/s "
                f"({kind(program.manifest.chip.name)})",
            )
            for one in body["contexts"]
        ),
        *prompt_facts(program.manifest),
        ("digest", body["program_sha256"]),
    ]


def prompt_facts(manifest: Manifest) -> Facts:
    """What a prompt that fills the context takes, and how chunks follow each other."""
    runs, waves = whole_prompt(manifest, manifest.longest), manifest.waves
    total = sum(run.total for run in runs)
    count = sum(run.chunks for run in runs)
    rate = manifest.longest * manifest.clock_hz / total
    facts = [
        (
            "prompt",
            f"{manifest.longest:,} tokens in {count} chunks: {' + '.join(map(str, runs))} = {total:,} cycles "
            f"= {total * 1e3 / manifest.clock_hz:.2f} ms, {rate:,.0f} tokens/s",
        )
    ]
    for context in manifest.contexts if waves else ():
        assert waves is not None
        one = waves.contexts[context]
        facts.append(
            (
                "waves",
                f"a chunk follows every {one.interval:,} cycles at context {context}, "
                f"{one.interval / one.bound:.2f} x the bound of {one.bound:,} ({one.bound_of})",
            )
        )
    return facts


def prefill_body(program: Program) -> dict[str, Any]:
    """The same as JSON values."""
    manifest = program.manifest
    tokens, clock, waves = manifest.chunk, manifest.clock_hz, manifest.waves
    runs = whole_prompt(manifest, manifest.longest)
    return {
        "kind": EXACT,
        "label": label_of(manifest.chip.name),
        "tokens": tokens,
        "contexts": [
            {
                "context": context,
                "rows": program.rows(context),
                "latency_cycles": (cycles := manifest.cycles[context]),
                "latency_microseconds": cycles * 1e6 / clock,
                "tokens_per_second": tokens * clock / cycles,
            }
            for context in manifest.contexts
        ],
        "intervals": {str(c): waves.contexts[c].interval for c in manifest.contexts} if waves else {},
        "prompt": {
            "tokens": manifest.longest,
            "chunks": sum(run.chunks for run in runs),
            "cycles": sum(run.total for run in runs),
            "microseconds": sum(run.total for run in runs) * 1e6 / clock,
        },
        "program_sha256": manifest.digest,
    }


def _dealt(options: CompileOptions) -> str:
    """Over how many chips a head's context is dealt, where it is."""
    return f", cp {options.cp}" if (options.cp or 1) > 1 else ""
