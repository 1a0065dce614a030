"""A run and a certificate as lines for a person and as JSON values."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from lpu.api import Run
from lpu.certify.certificate import Certificate
from lpu.cli.stream import quoted
from lpu.cli.terminal import Terminal
from lpu.report.words import CAUTION_FACTOR, EXACT, caution, kind, label_of, size
from lpu.run.clips import in_words
from lpu.run.overflow import Dropped
from lpu.run.overflow import in_words as dropped_in_words
from lpu.run.streamed.feed import StreamRate
from models.families.registry import config_of

WORDS = {True: "equal", False: "DIFFERENT", None: "not compared"}


def prompts_from(*, given: bool) -> str:
    """Where the prompts of a decode come from."""
    return "given" if given else "made up"


def _caution(chip: str) -> list[tuple[str, str]]:
    """What the latency of a chip without public measurements is to be read with."""
    said = caution(chip)
    return [] if said is None else [("caution", said)]


def _prompt_facts(given: bool) -> list[tuple[str, str]]:
    """What is said of prompts that nobody gave."""
    made_up = (
        f"{prompts_from(given=False)}: always the same token ids; give your own with --prompt or --prompt-ids"
    )
    return [] if given else [("prompt", made_up)]


def estimated(terminal: Terminal, steps: int) -> Callable[[StreamRate], None]:
    """Says before a streamed decode of this many steps how long it may take."""

    def say(rate: StreamRate) -> None:
        speed = rate.sample_bytes / max(rate.sample_seconds, 1e-9)
        terminal.note(
            f"note: streamed: a step reads or draws {size(rate.step_bytes)} of weights, "
            f"{size(rate.sample_bytes)} of them came at {size(round(speed))}/s (measured): about "
            f"{duration(rate.step_seconds)} a step, {duration(rate.step_seconds * steps)} for {steps}."
        )

    return say


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever a person would say."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def show_run(terminal: Terminal, done: Run, *, streamed: bool = False, given: bool = True) -> None:
    """The text (unless it was streamed) and ids of each sequence, then what it took.

    given: whether the user gave the prompts.
    """
    body, manifest = run_body(done), done.program.manifest
    clock, chip = manifest.clock_hz, manifest.chip.name
    for i, one in enumerate(body["sequences"]):
        if one["text"] is not None and not streamed:
            terminal.say(f"text {i}      {quoted(one['text'])}")
        terminal.say(
            f"ids {i}       {','.join(map(str, one['prompt_ids']))} -> {','.join(map(str, one['token_ids']))}"
        )
    ended = [f"sequence {i} by {why}" for i, why in enumerate(done.finished) if why != "length"]
    buckets = ", ".join(f"{done.buckets.count(b)} in context {b}" for b in sorted(set(done.buckets)))
    terminal.facts(
        [
            ("model", f"{done.program.manifest.model.name}, weights {done.weights}"),
            *_prompt_facts(given),
            ("tokenizer", done.tokenizer or "none: this model has token ids only"),
            *((("prefill", _prefill_line(body["prefill"], chip)),) if body["prefill"] else ()),
            *((("ended", ", ".join(ended)),) if ended else ()),
            *((("sampling", str(done.sampling)),) if done.sampling.temperature else ()),
            ("steps", f"{done.generation.steps} ({buckets})"),
            (
                "latency",
                f"{body['mean_latency_cycles']:,.0f} cycles = {body['mean_latency_microseconds']:.2f} us "
                f"per {done.per} ({kind(chip)}; clock {clock / 1e9:.4f} GHz)",
            ),
            *((("between", _between(done)),) if done.between_cycles else ()),
            *_caution(chip),
            ("emulated", f"{body['emulated_seconds_per_step']:.4f} s per step here (measured, median)"),
            ("clipped", in_words(done.clipped)),
            *_dropped(done.dropped),
            ("program", body["program_sha256"]),
            ("logits", body["logits_sha256"]),
        ]
    )


def _between(done: Run) -> str:
    """What the latency of steps does not have."""
    return f"{done.between_cycles:,} cycles besides, in which full sections of the context went out to DDR5"


def _dropped(found: tuple[Dropped, ...]) -> list[tuple[str, str]]:
    return [("dropped", dropped_in_words(found))] if found else []


def _prefill_line(prefill: dict[str, Any], chip: str) -> str:
    return (
        f"{prefill['chunks']} chunks of {prefill['tokens']} tokens{' in waves' if prefill['waves'] else ''}: "
        f"{prefill['total_cycles']:,} cycles = "
        f"{prefill['microseconds']:.2f} us ({kind(chip)}); "
        f"{prefill['emulated_seconds']:.2f} s here (measured)"
    )


def run_body(done: Run) -> dict[str, Any]:
    """A run as JSON values."""
    manifest, generation = done.program.manifest, done.generation
    texts = done.texts or [None] * len(generation.prompts)
    cycles = sum(done.cycles) / max(len(done.cycles), 1)
    seconds = sorted(generation.seconds) or [0.0]
    return {
        "schema": "lpu-run/1",
        "kind": EXACT,
        "label": label_of(manifest.chip.name),
        "caution_factor": CAUTION_FACTOR if label_of(manifest.chip.name) else None,
        "emulated_kind": "measured",
        "model": asdict(manifest.model) | {"weights": done.weights},
        "rack": manifest.rack,
        "options": asdict(manifest.options),
        "sequences": [
            {"prompt_ids": list(prompt), "token_ids": list(tokens), "text": text, "finished": finished}
            for prompt, tokens, text, finished in zip(
                generation.prompts, generation.tokens, texts, done.finished, strict=True
            )
        ],
        "tokenizer": done.tokenizer,
        "sampling": asdict(done.sampling),
        "steps": generation.steps,
        "steps_per_context": {str(b): done.buckets.count(b) for b in sorted(set(done.buckets))},
        "total_cycles": sum(done.cycles),
        "between_cycles": done.between_cycles,
        "mean_latency_cycles": cycles,
        "mean_latency_microseconds": done.microseconds_per_token,
        "prefill": {
            "chunks": len(generation.chunks),
            "tokens": done.prefill.manifest.chunk,
            "waves": done.prefill.manifest.waves is not None,
            "total_cycles": done.prompt_cycles,
            "microseconds": done.prompt_cycles * 1e6 / manifest.clock_hz,
            "emulated_seconds": sum(generation.chunk_seconds),
            "program_sha256": done.prefill.manifest.digest,
        }
        if done.prefill and generation.chunks
        else None,
        "clock_hz": manifest.clock_hz,
        "clipped": [asdict(one) for one in done.clipped],
        **({"dropped": [asdict(one) for one in done.dropped]} if done.dropped else {}),
        "emulated_seconds_per_step": seconds[len(seconds) // 2],
        "inputs_sha256": manifest.inputs,
        "program_sha256": manifest.digest,
        "logits_sha256": generation.digest,
    }


def show_certificate(
    terminal: Terminal, found: Certificate, output: str | None, *, given: bool = True
) -> None:
    """The table of comparisons, then what was certified, then the f32 reports, apart."""
    terminal.table(
        ("compared with", "bits", "logits", "program", "remark"),
        [
            [one.name, WORDS[one.equal], one.logits_sha256[:16], one.program_sha256[:16], one.detail]
            for one in found.comparisons
        ],
    )
    fields = found.model.config
    per = "step of whole sequences" if fields and config_of(fields).encodes else "token"
    cycles = ", ".join(
        f"{count:,} cycles = {count * 1e6 / found.clock_hz:.2f} us per {per} at context {context}"
        for context, count in found.cycles_per_token.items()
    )
    facts = [
        ("model", f"{found.model.name}, weights {found.model.weights}"),
        *_prompt_facts(given),
        ("rack", found.rack),
        ("checked", f"{found.rows_checked:,} rows, all rules hold"),
        ("proof", found.proof),
        ("latency", f"{cycles} ({kind(found.chip)})"),
        *_caution(found.chip),
        ("clipped", in_words(found.clipped)),
        *_dropped(found.dropped),
        ("inputs", found.inputs_sha256),
        ("program", found.program_sha256),
        ("logits", found.logits_sha256),
        ("verdict", "bits equal" if found.ok else "NOT certified: " + failures(found)),
    ]
    if found.numerical_equivalence:
        facts.append(("f32", str(found.numerical_equivalence)))
    if found.quantisation:
        facts.append(("quantised", str(found.quantisation)))
    if output:
        facts.append(("saved", output))
    terminal.facts(facts)


def failures(found: Certificate) -> str:
    """Which comparisons differ."""
    names = [one.name for one in found.comparisons if one.equal is False]
    if found.proved is False:
        return f"refused: {found.proof}"
    return f"{len(names)} of {len(found.comparisons)} comparisons differ: {', '.join(names)}."
