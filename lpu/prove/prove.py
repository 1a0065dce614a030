"""Proof that a program computes its model, for every input, without running it.

Tags, weights and the compiler's graph play no part. What the checker holds (no two commits to a word in
a cycle, disjoint regions, units, cycles, links) is presupposed. docs/proof.md argues every rule.
"""

import gc
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from compiler.program.instructions.experts import bound_of
from compiler.program.isa import F32_LANES, Holds, ceil_div
from compiler.program.manifest import Hops, Move, Switch
from compiler.program.program import Program
from lpu.prove.explain import foreign
from lpu.prove.follow.block_rows import LINE_BITS
from lpu.prove.follow.step_proof import Memory, StepProof
from lpu.prove.held import Regions, differ, regions_of
from lpu.prove.known import Known
from lpu.prove.models.own import SAID
from lpu.prove.models.record import ModelTerms, Reader
from lpu.prove.models.registry import family_of, reader_of
from lpu.prove.refused import RefusedError, need

PRESUPPOSED = "the rules that lpu check holds; the contract's exact sums (docs/proof.md)"
SENSELESS = (ArithmeticError, LookupError, ValueError, TypeError, AttributeError, MemoryError)
NUMBERS = "the numbers in the manifest"
NOT_SEEN = "bytes of weights and of the RoPE table, tokenizer, hardware"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a program computes its model. reason: why not; empty where it does.

    config: sha256 of the model's numbers. graph: what its terms were read from. rows: of the calls, all
    contexts; followed: of these templates that were looked at. regions: what the KV regions hold. bound: of
    inputs, if it does not compute the model for all of them.
    """

    reason: str
    model: str
    config: str
    graph: str
    weights: str
    contexts: tuple[int, ...]
    rows: int
    templates: int
    followed: int
    terms: int
    regions: Regions = field(repr=False)
    bound: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is proved."""
        return not self.reason

    @property
    def inputs(self) -> str:
        """For which inputs."""
        return f"for every input {self.bound}".rstrip()

    def __str__(self) -> str:
        whose = f"model {self.model}, config {self.config[:16]}, weights {self.weights[:16] or 'unnamed'}"
        if not self.ok:
            return f"refused     {self.reason}\n  {whose}"
        return (
            f"proved      {self.rows:,} rows compute the model, {self.inputs} ({self.followed:,} rows of "
            f"{self.templates} templates looked at, {self.terms:,} terms)\n  {whose}\n"
            f"  graph: from {self.graph}\n"
            f"  presupposed: {PRESUPPOSED}\n  not seen: {NOT_SEEN}"
        )

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "proved": self.ok,
            "reason": self.reason,
            **({"inputs": self.inputs} if self.bound else {}),
            "model": self.model,
            "config_sha256": self.config,
            "graph_from": self.graph,
            "weights_sha256": self.weights,
            "contexts": list(self.contexts),
            "rows": self.rows,
            "rows_followed": self.followed,
            "templates": self.templates,
            "terms": self.terms,
            "presupposed": PRESUPPOSED,
            "not_seen": NOT_SEEN,
        }


@dataclass(slots=True)
class _Count:
    templates: int = 0
    followed: int = 0
    terms: int = 0


def prove(program: Program, against: Regions | None = None, reader: Reader | None = None) -> Verdict:
    """Prove a program of any kind that computes.

    against: what another proof says of its KV. reader: of a module that is not read by its numbers.
    """
    count = _Count()
    reason, regions = "", {}
    collects = gc.isenabled()
    gc.disable()  # its records make no circles, and there are a million of them
    try:
        regions = _proved(program, count, reader)
        need(against is None or regions == against, differ(against or {}, regions, "the other program"))
    except RefusedError as refused:
        row = f", row {refused.row} of its block" if refused.row >= 0 else ""
        reason = f"{refused.layer}{row}: {refused.reason}" if refused.layer else refused.reason
    except SENSELESS as error:  # numbers that no program has: whatever they are, nothing is proved
        reason = nonsense(error)
    finally:
        if collects:
            gc.enable()
    return verdict(program, reason, regions, count, NUMBERS if reader is None else SAID)


def nonsense(error: Exception) -> str:
    """The reason of a refusal where numbers led nowhere."""
    return f"its rows cannot be followed ({type(error).__name__}: {error})".splitlines()[0]


def verdict(
    program: Program, reason: str, regions: Regions, count: _Count | None = None, graph: str = NUMBERS
) -> Verdict:
    """What is said of a program: proved, or the reason why not."""
    about, count = program.manifest.model, count or _Count()
    return Verdict(
        reason=reason,
        model=about.name,
        config=hashlib.sha256(json.dumps(about.config, sort_keys=True).encode()).hexdigest(),
        graph=graph,
        weights=about.weights_digest,
        contexts=program.manifest.contexts,
        rows=sum(
            len(program.blocks[call.block].columns.get(context, ()))
            for call in program.calls
            for context in program.manifest.contexts
            if 0 <= call.block < len(program.blocks)
        ),
        templates=count.templates,
        followed=count.followed,
        terms=count.terms,
        regions=regions,
        bound=bound_of(program.manifest.kernels),
    )


def _proved(program: Program, count: _Count, reader: Reader | None) -> Regions:
    manifest = program.manifest
    need(bool(manifest.contexts), "the program has no context")
    need(manifest.rows >= 1 and manifest.chips >= 1, f"{manifest.rows} rows on {manifest.chips} chips")
    need(not isinstance(manifest.body, Move | Switch), "the program moves KV or weights and computes nothing")
    known = Known(manifest)
    model = _model(known, reader)
    ours = len(known.terms)
    found: Regions | None = None
    for context in manifest.contexts:
        step = StepProof(known, program, model, context)
        if isinstance(manifest.body, Hops):
            _hops(step, manifest.body)
            regions: Regions = {}
        else:
            memory = step.run()
            _outputs(step, memory, ours)
            regions = regions_of(step, memory, ours)
        made, followed = step.followed
        count.templates, count.followed = count.templates + made, count.followed + followed
        if found is not None and regions != found:
            raise RefusedError(differ(found, regions, f"context {context}"))
        found = regions
    count.terms = len(known.terms)
    return found or {}


def _model(known: Known, reader: Reader | None) -> ModelTerms:
    """The terms of the manifest's model, by a reader that is given, or by the one of its family."""
    about = known.manifest.model
    read = reader or reader_of(about.config)
    if read is None:
        whose = family_of(about.config)
        raise RefusedError(f"no reader of models knows {whose}. Register one in lpu.prove.models.registry")
    longest = known.manifest.longest if not isinstance(known.manifest.body, Hops) else 1
    model = read(known.terms, about.config or {}, longest, about.kv)
    known.pieces = dict(model.pieces)
    return model


def _outputs(step: StepProof, memory: Memory, ours: int) -> None:
    """Logits in order, every line once, and the token as the largest of all of them."""
    known, manifest, model = step.known, step.program.manifest, step.model
    width = known.terms.width(model.logits)
    lines = int(ceil_div(width, F32_LANES))
    need(manifest.vocab == width, f"manifest: vocab is {manifest.vocab}, the model's is {width}")
    named = sorted(place.line for place in manifest.logits)
    need(named == list(range(lines)), f"manifest: logits name {len(named)} lines, not each of {lines} once")
    for place in manifest.logits:
        what = f"logits line {place.line}"
        record = _left(known, memory, place.chip, place.address, what)
        need(record.holds == Holds.F32, f"{what} is not f32")
        if record.value != model.logits:
            raise RefusedError(foreign(step, record.value, ours, what))
        need(
            record.lanes == known.lanes.line(place.line, width),
            f"{what} holds other columns: {_columns(known, record.lanes)}",
        )
    need(manifest.token is not None, "manifest: no token")
    assert manifest.token is not None
    token = _left(known, memory, *manifest.token, "the token")
    need(token.holds == Holds.PICK, "the token is no choice of a logit")
    if token.value != model.logits:
        raise RefusedError(foreign(step, token.value, ours, "the token"))
    need(
        len(token.lines) == lines,
        f"the token is the largest of {len(token.lines)} of {lines} lines of logits",
    )


def _columns(known: Known, lanes: int) -> str:
    real = [int(one) for one in known.lanes.all[lanes] if one >= 0]
    return f"{real[0]} .. {real[-1]}" if real else "none"


def _left(known: Known, memory: Memory, chip: int, address: int, what: str) -> Any:
    rows = known.manifest.rows
    need(address % rows == 0 and address >= 0, f"{what} is where no line begins")
    found = memory.lines.get(chip << LINE_BITS | address // rows)
    if found is None:
        raise RefusedError(f"{what} is where nothing is left: word {address} of chip {chip}")
    return known.things[found]


def _hops(step: StepProof, body: Hops) -> None:
    """Every hop's answer is that of its part of the model for the message that it is sent."""
    known, manifest = step.known, step.program.manifest
    calls = [hop.call for hop in body.hops]
    need(
        sorted(calls) == list(range(len(step.program.calls))),
        "manifest: hops name other calls than there are",
    )
    for index, hop in enumerate(body.hops):
        part = step.model.parts.get(hop.name)
        if part is None:
            raise RefusedError(f"hop {hop.name} is no part of the model that hops compute")
        down, up = hop.inputs, hop.outputs
        need(
            (down.rows, up.rows, down.width) == (manifest.rows, manifest.rows, part.width),
            f"hop {hop.name}: messages of {down.rows} and {up.rows} rows, {down.width} lanes; "
            f"the step has {manifest.rows} rows, the part {part.width} lanes",
        )
        need(
            down.wire in part.down and up.wire == part.up, f"hop {hop.name}: wires {down.wire} and {up.wire}"
        )
        message = known.terms.message(index, part.width)
        answer = part.answer(message)
        known.wires = (down.wire, up.wire)
        ours = len(known.terms)
        left = step.one(hop.call, Memory(), message)
        need(not left.regions, f"hop {hop.name} appends to the KV cache")
        _answer(step, left.given, answer, up.width, hop.name, ours)


def _answer(step: StepProof, given: dict[int, int], answer: int, width: int, name: str, ours: int) -> None:
    known = step.known
    wide = known.terms.width(answer)
    need(width == wide, f"hop {name}: an answer of {width} lanes, the part has {wide}")
    half = known.wires[1] == "fp16"
    lanes = known.lanes.half_line if half else known.lanes.line
    lines = int(ceil_div(width, 2 * F32_LANES if half else F32_LANES))
    need(sorted(given) == list(range(lines)), f"hop {name} gives {len(given)} of {lines} lines of its answer")
    for line, number in given.items():
        record = known.things[number]
        if record.value != answer:
            raise RefusedError(foreign(step, record.value, ours, f"line {line} of the answer of hop {name}"))
        need(record.lanes == lanes(line, width), f"hop {name}: line {line} of its answer holds other columns")
