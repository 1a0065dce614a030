"""Mutated programs of every kind: the checker or the proof catches each, or it computes the same bits."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from beside import made_up
from executed import SEEDS, Weights, played
from hopped import hopped
from models_named import of_model
from mutations import kind_of, mutated
from pairs import compiled_pair, source
from shapes import HEADS, SMALL

from compiler.handover import compile_egress, compile_ingest
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.program import Program
from fabric.catalog import bridge_spec
from fabric.rack import load_rack
from lpu.check.check import check
from lpu.check.memory_image import check_handover, pair
from lpu.prove.programs import prove_programs
from models.config import TransformerConfig
from models.kv import KVFormat
from models.step import Step, family_step

CASES = 5000
TRIES, APART = 20, 65_000  # draws until one can be made, and the seeds between them: of one kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A program that is mutated, as one of those of a folder: decode, prefill, ingest, egress."""

    name: str
    role: str
    folder: dict[str, Program]
    weights: Weights

    @property
    def program(self) -> Program:
        return self.folder[self.role]

    def proved(self, program: Program) -> bool:
        """With those that share its memory image."""
        held = {**self.folder, self.role: program}
        prefill, ingest, egress = (held.get(name) for name in ("prefill", "ingest", "egress"))
        return prove_programs(held["decode"], prefill, ingest, egress).ok

    def legal(self, program: Program) -> bool:
        """By the rules of each program, and of those with one memory image."""
        contexts = program.manifest.contexts
        if not contexts or not all(check(program, context).ok for context in contexts):
            return False
        held = {**self.folder, self.role: program}
        decode = held["decode"]
        if "prefill" in held and not pair(decode, held["prefill"]).ok:
            return False
        return "ingest" not in held or check_handover(decode, held["ingest"], held.get("egress")).ok

    def computed(self, program: Program) -> str:
        """The digest of all that it computes."""
        return played(program, self.weights, self.folder["decode"] if self.role == "prefill" else None)


@cache
def subjects() -> tuple[Subject, ...]:
    """Programs of steps, chunks, waves, hops and moves; several buckets, stripes, layouts, formats."""
    out: list[Subject] = []
    asked: tuple[tuple[str, TransformerConfig, KVFormat, dict[str, Any]], ...] = (
        ("2d", SMALL, "fp16", {"tp": 4, "pp": 1, "layout": "2d", "contexts": (40, 80)}),
        ("stripes", SMALL, "fp8", {"tp": 4, "pp": 1, "cp": 2, "batch": 2}),
        ("pipeline", HEADS, "fp16", {"tp": 2, "pp": 2}),
        ("one group", SMALL, "fp16", {"tp": 2, "pp": 1, "contexts": (30, 60)}),
    )
    for name, config, kv, options in asked:
        named: dict[str, Any] = {"kv": kv, **options}
        step, decode, prefill = compiled_pair(config, 8, **named)
        folder = {"decode": of_model(decode, config, kv), "prefill": of_model(prefill, config, kv)}
        out += [Subject(name=name, role=role, folder=folder, weights=_weights(step)) for role in folder]
    bridge = bridge_spec("spectrum-x")
    decode = out[-1].folder["decode"]
    moves = {"ingest": compile_ingest(decode, 20, bridge), "egress": compile_egress(decode, 20, bridge)}
    folder = {"decode": decode, **moves}
    out += [Subject(name="moves", role=role, folder=folder, weights=out[-1].weights) for role in moves]
    step, waves = _waves()
    out.append(Subject(name="waves", role="decode", folder={"decode": waves}, weights=_weights(step)))
    step, hops, _ = hopped(SMALL, "quad", tp=4, layout="2d")
    folder = {"decode": of_model(hops, SMALL)}
    return (*out, Subject(name="hops", role="decode", folder=folder, weights=_weights(step)))


def _waves() -> tuple[Step, Program]:
    step = family_step(SMALL, batch=1, context=40)
    options = CompileOptions(tp=2, objective="throughput", users=2)
    program = compile_program(source(step, (40,)), load_rack("quad"), options)
    return step, of_model(program, SMALL)


def _weights(step: Step) -> Weights:
    return tuple(made_up(step, seed) for seed in SEEDS)


@cache
def before(which: int) -> str:
    """What a program computes that nobody has changed."""
    subject = subjects()[which]
    return subject.computed(subject.program)


def hold_mutated(case: int) -> str:
    """Who catches a mutation: both, one alone, or nobody, as it changes no bit; "none" if none can be made.

    Raises AssertionError for one that nothing notices.
    """
    which, seed = case % len(subjects()), case // len(subjects())
    subject = subjects()[which]
    tries = (seed + APART * (TRIES * which + i) for i in range(TRIES))
    made = next((found for one in tries if (found := mutated(subject.program, one)) is not None), None)
    if made is None:
        return "none"
    kind, program = made
    proved, legal = subject.proved(program), subject.legal(program)
    if not proved or not legal:
        return "both" if not proved and not legal else "proof alone" if legal else "check alone"
    try:
        found = subject.computed(program)
    except Exception as error:
        raise AssertionError(f"{kind} of {subject.name}: unnoticed, and its run fails: {error}") from error
    assert found == before(which), f"{kind} of {subject.name}, {subject.role}: unnoticed, and other bits"
    return "harmless"


def kind(case: int) -> str:
    """What is changed, for the table."""
    return kind_of(case // len(subjects()))
