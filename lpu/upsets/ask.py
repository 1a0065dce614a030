"""`upsets`: what rates of errors do to the tokens of a program, by the closed form and in a run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compiler.program.manifest import Step, Waves
from lpu.compiled import ProgramLike, programs_of
from lpu.decode.decoders import machine_of, restart
from lpu.decode.generate import check_room, generate, replay
from lpu.folder import Progress, quiet
from lpu.inputs.document import FileError
from lpu.inputs.open import reopen
from lpu.inputs.prompts import default_prompts
from lpu.legal import taken_as_legal
from lpu.report.words import EXACT, label_of
from lpu.run.machine import Machine
from lpu.screen import OnScreen, fact_lines
from lpu.upsets.inject import Struck, attempts_of, spoiled
from lpu.upsets.options import UpsetOptions
from lpu.upsets.rates import SWEEP, Exposure, Replays

MOST_FAILURES = 0.95  # of an attempt, for draws to end


@dataclass(frozen=True, slots=True, kw_only=True)
class RanUpsets:
    """A run with errors. bits_equal: whether the logits of every token are those of a run without."""

    attempts: tuple[int, ...]
    struck_attempts: int
    bits_equal: bool
    tokens_that_differ: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Upsets(OnScreen):
    """Replays by the closed form, at the rates asked for and at those of SWEEP, and what was drawn or run."""

    digest: str
    context: int
    chip: str
    options: UpsetOptions
    replays: Replays
    sweep: tuple[Replays, ...]
    attempts: tuple[int, ...]
    ran: RanUpsets | None

    @property
    def counts(self) -> dict[int, int]:
        """How many tokens took this many attempts."""
        values, counts = np.unique(np.array(self.attempts), return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))

    def __str__(self) -> str:
        one, tokens = self.replays, len(self.attempts)
        exposure = one.exposure
        rows = [
            ("exposed", f"{exposure.frames:,} frames and {exposure.words:,} words of SRAM a step ({EXACT})"),
            ("rates", f"frame loss {one.frame_loss:g}, word upset {one.word_upset:g} (assumed)"),
            ("attempt", f"fails with probability {one.fails:.4g} (closed form of these)"),
            (
                "token",
                f"{exposure.cycles:,} cycles an attempt, {one.mean_cycles:,.1f} on average; 99.9 % within "
                f"{one.within(0.999):,}; replays are the only thing that makes tokens differ",
            ),
            *(
                (
                    "sweep",
                    f"{each.frame_loss:g}: an attempt fails with {each.fails:.3g}, "
                    f"{each.replays_per_year:,.3g} replays a year without a pause (closed form only)",
                )
                for each in self.sweep
            ),
        ]
        how = "run" if self.ran else "drawn"
        for attempts, count in self.counts.items():
            expected = one.share(attempts) * tokens
            rows.append(
                (how, f"{count:,} of {tokens:,} tokens took {attempts} attempts, closed form {expected:,.1f}")
            )
        if self.ran is not None:
            bits = "equal to" if self.ran.bits_equal else "NOT those of"
            rows.append(
                (
                    "bits",
                    f"{bits} the run without errors; {self.ran.struck_attempts:,} attempts met an error, "
                    f"{self.ran.tokens_that_differ:,} tokens differ",
                )
            )
        return fact_lines(rows)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "lpu-upsets/1",
            "program_sha256": self.digest,
            "context": self.context,
            "label": label_of(self.chip),
            "options": asdict(self.options),
            "exposure": asdict(self.replays.exposure),
            "closed_form": self.replays.to_json(),
            "sweep": [one.to_json() for one in self.sweep],
            "tokens_by_attempts": {str(k): count for k, count in self.counts.items()},
            "run": None if self.ran is None else asdict(self.ran),
        }


def upsets(
    program: ProgramLike,
    how: UpsetOptions | None = None,
    *,
    prompt: Sequence[int] | None = None,
    weights: str | None = None,
    factory: str | None = None,
    progress: Progress = quiet,
) -> Upsets:
    """What rates of errors of links and SRAM do to the tokens of a program, at its longest context.

    how: rates, and whether tokens are run with real math and errors. prompt: token ids. Raises FileError.
    """
    loaded, _ = programs_of(program)
    how, manifest = how or UpsetOptions(), loaded.manifest
    if not isinstance(manifest.body, Step | Waves):
        raise FileError(f"upsets: a program of kind {manifest.kind!r} decodes no tokens. Give one that does.")
    with taken_as_legal(loaded):
        exposure = Exposure.of(loaded, manifest.longest)
    replays = Replays(exposure=exposure, frame_loss=how.frame_loss, word_upset=how.word_upset)
    if replays.fails > MOST_FAILURES:
        raise FileError(
            f"upsets: an attempt fails with probability {replays.fails:.4g}, at most {MOST_FAILURES:g} end. "
            "Give lower rates."
        )
    ran = None
    if how.run:
        ran = _run(loaded, how, replays, prompt, weights, factory, progress)
    attempts = ran.attempts if ran else tuple(attempts_of(replays, how.tokens, how.seed))
    return Upsets(
        digest=manifest.digest,
        context=manifest.longest,
        chip=manifest.chip.name,
        options=how,
        replays=replays,
        sweep=tuple(Replays(exposure=exposure, frame_loss=loss, word_upset=how.word_upset) for loss in SWEEP),
        attempts=attempts,
        ran=ran,
    )


def _run(
    program: Any,
    how: UpsetOptions,
    replays: Replays,
    prompt: Sequence[int] | None,
    weights: str | None,
    factory: str | None,
    progress: Progress,
) -> RanUpsets:
    manifest = program.manifest
    model = reopen(manifest, weights, factory)
    model.need_weights("upsets")
    batch = manifest.rows
    prompts = [list(prompt)] if prompt else default_prompts(batch, manifest.vocab)
    count = how.tokens - max(map(len, prompts)) + 1
    check_room(prompts, max(count, 1), batch, manifest.longest)
    machine = machine_of(program, model, False, progress)
    assert isinstance(machine, Machine)
    truth = generate(restart(machine), prompts, max(count, 1), batch, progress, "without errors")
    struck = Struck(
        machine=machine,
        spoiled=spoiled(machine, program, how.seed),
        replays=replays,
        seed=how.seed,
        replay=how.replay,
    )
    with_errors = replay(struck.decode, truth, batch, progress, "with errors")
    differs = 0
    for one, other in zip(truth.logits, with_errors.logits, strict=True):
        same = [
            np.array_equal(a.view(np.uint32), b.view(np.uint32)) for a, b in zip(one, other, strict=False)
        ]
        differs += sum(not equal for equal in same)
    return RanUpsets(
        attempts=tuple(struck.attempts),
        struck_attempts=len(struck.hits),
        bits_equal=differs == 0,
        tokens_that_differ=differs,
    )
