"""Mode draft in time: a small model on the LPUs drafts, the GPUs verify all drafts in one step.

Only token ids cross. How many drafts are accepted is data, so the time of a round is stated, and that of a
token for an acceptance that is given. Source: facts/afd.md sections 3.3 and 4.
"""

from dataclasses import dataclass
from fractions import Fraction

from compiler.errors import OptionError
from compiler.program.program import Program
from lpu.afd.machines import alone, best
from lpu.afd.question import Question, Timed
from lpu.afd.report import Figure
from lpu.afd.trace import of_parts
from lpu.afd.turn import Turn
from lpu.gpu.request import Request
from lpu.gpu.share import GpuShare
from lpu.gpu.units import Part, cycles_ps, picoseconds, total
from lpu.inputs.model import OpenModel
from lpu.pingpong.closed_forms import tokens_per_verify
from lpu.report.words import EXACT
from lpu.run.step_inputs import bucket_of

ID_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafting:
    """drafts: tokens that the LPUs propose a round. acceptance: assumed chance that the next one is right."""

    drafts: int = 4
    acceptance: float = 0.7

    def __post_init__(self) -> None:
        if self.drafts < 1:
            raise OptionError("afd", "--drafts", f"is {self.drafts}, needs at least 1", "Give 1 or more.")
        if not 0 <= self.acceptance <= 1:
            raise OptionError(
                "afd", "--acceptance", f"is {self.acceptance}, a share is 0 to 1", "Give 0 to 1."
            )

    @property
    def tokens(self) -> Fraction:
        """Expected tokens of a round."""
        return tokens_per_verify(Fraction(str(self.acceptance)), self.drafts)


def timed(asked: Question, drafter: OpenModel, drafting: Drafting) -> Timed:
    """The whole mode in time."""
    request, every = asked.request, asked.shares()
    length, rows = request.middle(request.turns - 1), drafting.drafts + 1
    gpus = best(every, request, lambda one: one.verify(request.batch, rows, length))
    program = asked.compiled(drafter)
    made, rounds = turns(request, gpus, program, drafting)
    cycles = max(program.manifest.cycles.values())
    by_themselves = alone(every, request) / 1e9
    return Timed(
        program=program,
        gpus=gpus,
        rows=request.batch,
        turns=made,
        layer=rounds[-1],
        figures=(
            Figure(name="drafts a round", value=drafting.drafts, unit="tokens", basis=EXACT),
            Figure(name="acceptance", value=drafting.acceptance, unit="", basis="assumed"),
            Figure(name="tokens a round", value=float(drafting.tokens), unit="expected", basis="assumed"),
            Figure(name="LPU cycles per draft", value=cycles, unit="cycles", basis=EXACT),
            Figure(name="GPUs alone", value=by_themselves, unit="ms a token", basis=gpus.basis),
        ),
        events=tuple(of_parts(rounds[-1], "round", "draft and verify")),
        aside=f", drafted by {drafter.name}",
    )


def turns(
    request: Request, share: GpuShare, drafter: Program, drafting: Drafting
) -> tuple[tuple[Turn, ...], tuple[tuple[Part, ...], ...]]:
    """The turns of a request in time, and the parts of a round of each."""
    rounds = tuple(round_parts(request, share, drafter, drafting, n) for n in range(request.turns))
    made = [_turn(request, share, drafter, drafting, number, parts) for number, parts in enumerate(rounds)]
    return tuple(made), rounds


def round_parts(
    request: Request, share: GpuShare, drafter: Program, drafting: Drafting, number: int
) -> tuple[Part, ...]:
    """A round: one step of the drafter per draft and one to catch up, then all rows through the GPUs."""
    length, rows = request.middle(number), drafting.drafts + 1
    verify = share.verify(request.batch, rows, length)
    ids = share.wire(request.batch * rows * ID_BYTES, request.batch)
    return (
        Part(name="drafts on the LPUs", picoseconds=rows * _step(drafter, length), basis=EXACT),
        Part(name="verify on the GPUs", picoseconds=verify, basis=share.basis),
        Part(name="round trip of ids", picoseconds=2 * (share.latency + ids), basis="assumed"),
    )


def _turn(
    request: Request,
    share: GpuShare,
    drafter: Program,
    drafting: Drafting,
    number: int,
    parts: tuple[Part, ...],
) -> Turn:
    """The drafter takes the prompt token by token while the GPUs prefill it."""
    batch, before, brings = request.batch, request.before(number), request.brings(number)
    reused = max(0, before - 1)
    prefill = share.prefill(before + brings - reused, reused, batch)
    taken = prompt_ps(drafter, reused, before + brings)
    rounds = -(-(request.new_tokens - 1) // drafting.tokens)
    mean = int(total(parts) / drafting.tokens)
    return Turn(
        number=number,
        first=(
            Part(name="queue", picoseconds=picoseconds(request.queue_seconds), basis="assumed"),
            Part(name="prefill", picoseconds=prefill, basis=share.basis),
        ),
        later=(
            Part(name="drafter's prompt, exposed", picoseconds=max(0, taken - prefill), basis="modelled"),
        ),
        step=(Part(name="round / expected tokens", picoseconds=mean, basis="assumed"),),
        tokens=request.new_tokens,
        reused=reused,
        crossed={"ids": 2 * batch * (drafting.drafts + 1) * ID_BYTES * rounds},
    )


def round_ps(batch: int, share: GpuShare, drafter: Program, drafting: Drafting, kv: int) -> int:
    """Picoseconds of a round at a length of the KV."""
    request = Request(prompt_tokens=max(kv, 2), new_tokens=1, batch=batch)
    return total(round_parts(request, share, drafter, drafting, 0))


def prompt_ps(drafter: Program, begin: int, end: int) -> int:
    """Picoseconds in which a drafter takes the tokens at positions begin to end - 1, one a step."""
    return sum(_step(drafter, position) for position in range(begin, end))


def _step(program: Program, position: int) -> int:
    contexts = program.manifest.contexts
    bucket = bucket_of(contexts, min(position, max(contexts) - 1))
    return cycles_ps(program.manifest.cycles[bucket], program.manifest.clock_hz)
