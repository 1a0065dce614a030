"""The programs of one folder proved together: they have one memory image, so their KV regions must agree."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compiler.program.manifest import Switch
from compiler.program.program import Program
from lpu.prove.models.record import Reader
from lpu.prove.models.registry import family_of, reader_of
from lpu.prove.move import prove_move
from lpu.prove.prove import Verdict, prove
from lpu.prove.refused import RefusedError
from lpu.screen import plain

MOST_ROWS = 200_000  # that are proved unasked
DECODE, PREFILL = "decode", "prefill"
NOT_ASKED = "not asked for"
OwnReaders = Callable[[int], Reader]
"""The reader of a module's step for a chunk of this many tokens."""


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
