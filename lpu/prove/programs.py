"""The programs of one folder proved together: they have one memory image, so their KV regions must agree."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from compiler.program.instructions.host import HandoverKernel
from compiler.program.isa import Columns, Op
from compiler.program.manifest import Manifest, Move, Switch
from compiler.program.program import Program
from lpu.prove.held import HeldHead, Regions
from lpu.prove.models.record import Reader
from lpu.prove.models.registry import family_of, reader_of
from lpu.prove.prove import SENSELESS, Verdict, nonsense, prove, verdict
from lpu.prove.refused import RefusedError, need
from lpu.screen import plain

MOST_ROWS = 200_000  # that are proved unasked
DECODE, PREFILL = "decode", "prefill"
NOT_ASKED = "not asked for"
OwnReaders = Callable[[int], Reader]
"""The reader of a module's step for a chunk of so many tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The verdict on every program of a folder, by what it is: decode, prefill, ingest, egress."""

    verdicts: dict[str, Verdict]

    @property
    def ok(self) -> bool:
        """Whether all of them are proved."""
        return all(one.ok for one in self.verdicts.values())

    @property
    def reason(self) -> str:
        """Why the first that is not proved is not."""
        return next((f"{name}: {one.reason}" for name, one in self.verdicts.items() if not one.ok), "")

    def __str__(self) -> str:
        return "\n".join(f"{one}\n  program: {name}" for name, one in self.verdicts.items())

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "proved": self.ok,
            "programs": {name: one.to_json() for name, one in self.verdicts.items()},
        }


def prove_programs(
    decode: Program,
    prefill: Program | None = None,
    ingest: Program | None = None,
    egress: Program | None = None,
    own: OwnReaders | None = None,
) -> Proof:
    """Prove a program, and that those with the same memory image keep, move and read the same KV.

    own: readers of the module that they were compiled from, where that is the user's own.
    """
    found = {DECODE: prove(decode, None, own and own(decode.manifest.chunk))}
    regions = found[DECODE].regions
    if prefill is not None:
        found[PREFILL] = prove(prefill, regions, own and own(prefill.manifest.chunk))
    for name, program in (("ingest", ingest), ("egress", egress)):
        if program is not None:
            found[name] = prove_move(program, regions, name)
    return Proof(verdicts=found)


def left_out(program: Program, own: OwnReaders | None = None) -> str:
    """Why a program is not proved unasked; empty if it is."""
    if isinstance(program.manifest.body, Switch):
        return "it brings weights in and computes nothing"
    if not known(program) and own is None:
        more = "" if program.manifest.model.config else "; lpu prove PROGRAM --model NAME reads it"
        return f"no reader of models knows {family_of(program.manifest.model.config)}{more}"
    rows = rows_of(program)
    return f"{rows:,} rows are more than {MOST_ROWS:,}" if rows > MOST_ROWS else ""


def known(program: Program) -> bool:
    """Whether a reader knows the model of a program."""
    return reader_of(program.manifest.model.config) is not None


def proof_of(
    program: Program,
    prefill: Program | None = None,
    *,
    prove: bool | None = None,
    own: OwnReaders | None = None,
) -> Proof | str:
    """The proof of a program and its prefill program, or why it was left out. prove: None: see `left_out`.

    Raises RefusedError if one of them is not proved.
    """
    if prove is False:
        return NOT_ASKED
    if prove is None and (reason := left_out(program, own)):
        return reason
    return require_proof(prove_programs(program, prefill, own=own))


def require_proof(proof: Proof) -> Proof:
    """The proof itself if it is one.

    Raises RefusedError if not.
    """
    if not proof.ok:
        raise RefusedError(f"prove: {proof.reason}")
    return proof


def proof_line(proof: Proof | str) -> str:
    """What is said of a proof in a line."""
    if isinstance(proof, str):
        return f"prove: left out, {proof}"
    if not proof.ok:
        return f"prove: {proof.reason}"
    rows = sum(one.rows for one in proof.verdicts.values())
    decode = proof.verdicts[DECODE]
    return f"prove: {rows:,} rows compute {plain(decode.model)}, {decode.inputs}"


def in_words(
    program: Program,
    own: OwnReaders | None = None,
    prefill: Program | None = None,
    moves: tuple[Program | None, Program | None] = (None, None),
) -> tuple[bool | None, str]:
    """Whether a program and those of its memory image are proved, and what is to say; None without a reader.

    moves: the programs of ingest and egress.
    """
    if not known(program) and own is None:
        return None, left_out(program)
    found = prove_programs(program, prefill, *moves, own=own)
    return found.ok, found.reason or proof_line(found)


def rows_of(program: Program) -> int:
    """Rows of a program, all contexts together."""
    blocks = program.blocks
    return sum(
        len(blocks[call.block].columns[context])
        for call in program.calls
        for context in program.manifest.contexts
    )


def prove_move(program: Program, regions: Regions, kind: str) -> Verdict:
    """Prove that a program moves each KV region of a decode program once, as its layer's and head's line."""
    reason = ""
    try:
        _moved(program, regions, kind)
    except RefusedError as refused:
        reason = refused.reason
    except SENSELESS as error:
        reason = nonsense(error)
    return verdict(program, reason, {})


def _moved(program: Program, regions: Regions, kind: str) -> None:
    manifest, body = program.manifest, program.manifest.body
    need(isinstance(body, Move) and body.kind == kind, f"the {kind} program is of kind {manifest.kind}")
    heads = {place: held for place, held in regions.items() if isinstance(held, HeldHead)}
    need(len(heads) == len(regions), f"{len(regions) - len(heads)} states, which no hand-over moves")
    layers = 1 + max((one.layer for one in heads.values()), default=-1)
    need(len(program.calls) == layers, f"{len(program.calls)} calls move the KV of {layers} layers")
    for layer, call in enumerate(program.calls):
        missing = {place: held for place, held in heads.items() if held.layer == layer}
        need(len(manifest.contexts) == 1, f"the {kind} program has {len(manifest.contexts)} contexts")
        rows = program.expand_call(call, manifest.contexts[0])
        for place, line, kernel in _rows(rows, manifest, kind):
            held = missing.pop(place, None)
            where = f"word {place[1]} of chip {place[0]}"
            if held is None:
                raise RefusedError(f"{where} holds no KV of layer {layer} that is still to be moved")
            need(_alike(held, kernel), f"{where} is of another format or size")
            want = held.head * held.stripes + held.stripe
            need(line == want, f"{where} is moved as line {line} of layer {layer}, holds line {want}")
        need(not missing, f"{len(missing)} KV regions of layer {layer} are not moved")


def _rows(
    rows: Columns, manifest: Manifest, kind: str
) -> Iterator[tuple[tuple[int, int], int, HandoverKernel]]:
    """Chip and word, line and kernel of every row."""
    wanted, column = (Op.KVIN, rows.dst) if kind == "ingest" else (Op.KVOUT, rows.src2)
    for i in range(len(rows)):
        aux = int(rows.aux[i])
        kernel = manifest.kernels[aux] if 0 <= aux < len(manifest.kernels) else None
        if int(rows.op[i]) != wanted or not isinstance(kernel, HandoverKernel):
            raise RefusedError(f"row {i} moves no KV")
        yield (int(rows.chip[i]), int(column[i])), int(rows.src3[i]), kernel


def _alike(held: HeldHead, kernel: HandoverKernel) -> bool:
    names = ("stripes", "run", "key_lanes", "head_dim", "kv", "kv_words", "kv_stride", "capacity", "cached")
    return all(getattr(held, name) == getattr(kernel, name) for name in names)
