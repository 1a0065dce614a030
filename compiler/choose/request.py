"""The tp of a whole request: the chunks of its prompt, then a step for each further token."""

from collections.abc import Callable
from dataclasses import replace

from compiler.errors import CapacityError, OptionError
from compiler.latency import PATIENCE
from compiler.options import CompileOptions
from compiler.program.manifest import Candidate
from compiler.program.program import Program
from compiler.program.prompt import whole_prompt
from compiler.program.store import sealed
from compiler.search import doubled, until_worse
from fabric.rack import Rack

Pair = tuple[Program, Program]


def request_cycles(pair: Pair, prompt: int, new: int) -> int:
    """Cycles of a prompt in chunks, whose last gives the first token, and of a step for each further one."""
    decode, chunk = (one.manifest for one in pair)
    places = range(prompt + 1, prompt + new)
    steps = sum(decode.cycles[min(c for c in decode.contexts if c >= place)] for place in places)
    return sum(run.total for run in whole_prompt(chunk, prompt)) + steps


def require_choice(options: CompileOptions, prefill: int | None) -> None:
    """Raises OptionError for a request where no tp is to be chosen by it, or no prompt goes in chunks."""
    if options.request is None:
        return
    subject = f"--request {options.request}"
    if prefill is None:
        reason = "is of programs that take prompts in chunks"
        raise OptionError("options", subject, reason, "Add --prefill TOKENS.")
    if options.tp is not None:
        raise OptionError(
            "options", subject, f"chooses the tp, --tp {options.tp} states it", "Leave out one."
        )


def fastest_request(
    made: Callable[[CompileOptions], Pair], rack: Rack, options: CompileOptions, chunk: int, longest: int
) -> Pair:
    """The programs of the tp (a power of two) whose request is shortest; each one is really compiled.

    made: both programs by options with a tp and no request. chunk: tokens of a chunk; longest: of a context.
    Raises OptionError for a request that is no whole one, and what the last tp raised if none fits.
    """
    prompt, new = options.requested
    subject = f"--request {options.request}"
    if prompt < chunk:
        reason = f"its prompt of {prompt} tokens is no chunk of {chunk}"
        raise OptionError("options", subject, reason, f"Give --prefill {prompt} or less.")
    if prompt + new - 1 > longest:
        reason = f"takes {prompt + new - 1} places, the longest context has {longest}"
        raise OptionError(
            "options", subject, reason, f"Give --context {prompt + new - 1}, or less of either."
        )
    search = until_worse(
        doubled(rack.chips),
        lambda tp: made(replace(options, tp=tp, request=None)),
        lambda pair: request_cycles(pair, prompt, new),
        patience=PATIENCE,
        refused=(CapacityError, OptionError),
    )
    if search.best is None:
        raise search.refusals[-1]
    tried = tuple(
        Candidate(tp=tp, cycles=found)
        if isinstance(found, int)
        else Candidate(tp=tp, reason=f"{found.subject} {found.reason}")
        for tp, found in search.tried
    )
    decode, long = (_searched(one, options, tried) for one in search.found[1])
    return decode, long


def _searched(program: Program, options: CompileOptions, tried: tuple[Candidate, ...]) -> Program:
    """The program with what was asked for and what was tried in its manifest."""
    asked = replace(program.manifest.options, request=options.request)
    return sealed(replace(program, manifest=replace(program.manifest, options=asked, search=tried)))
