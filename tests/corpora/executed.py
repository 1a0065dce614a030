"""What programs compute, by running them: every bucket to its last position, all rows, chunks, users, hops.

Two sets of weights; sequences of a batch have other tokens and other positions, so that a value of the wrong
sequence shows. What programs of moves leave is told by where each line of a message goes, what a switch
leaves by which word of the DDR5 each word of SRAM gets, and which of them before the program there stops.
"""

import hashlib
from typing import Any

import jax
import numpy as np

from compiler.program.isa import Op
from compiler.program.manifest import Hops, Move, Switch
from compiler.program.program import Program
from compiler.program.ranges import ramp
from lpu.run.hop import prepare_hops
from lpu.run.machine import Machine, prepare

SEEDS = (0, 1)
Arrays = dict[str, np.ndarray]
Weights = tuple[Arrays, ...]
"""Of one model, by SEEDS."""


def played(program: Program, weights: Weights, decode: Program | None = None) -> str:
    """sha256 over all that a program computes. decode: of a prefill program, whose image it shares.

    Raises LinkError or MachineError for a program that cannot be run.
    """
    sha = hashlib.sha256()
    if isinstance(program.manifest.body, Move):
        sha.update(repr(moved(program)).encode())
        return sha.hexdigest()
    if isinstance(program.manifest.body, Switch):
        for part in brought(program, program.manifest.body):
            sha.update(np.ascontiguousarray(part).tobytes())
        return sha.hexdigest()
    for held in weights:
        for part in _played(program, held, decode):
            sha.update(np.ascontiguousarray(part).tobytes())
    return sha.hexdigest()


def _played(program: Program, weights: Arrays, decode: Program | None) -> list[np.ndarray]:
    if isinstance(program.manifest.body, Hops):
        return _hops(program, weights)
    if decode is not None:
        single = prepare(decode, weights)
        return _chunks(single, prepare(program, weights, single), program)
    return _steps(prepare(program, weights), program)


def _tokens(program: Program, rows: int, count: int, user: int = 0) -> np.ndarray:
    random = np.random.default_rng(7 + user)
    return random.integers(0, program.manifest.vocab, (rows, count)).astype(np.int32)


def _steps(machine: Machine, program: Program) -> list[np.ndarray]:
    """Every position of every bucket, the sequences a few tokens apart; of waves, users in turn."""
    out: list[np.ndarray] = []
    manifest = program.manifest
    users = 2 if manifest.waves is not None else 1
    longest = manifest.longest
    for user in range(users):
        state, tokens = machine.start(), _tokens(program, manifest.rows, longest, user)
        for position in range(longest):
            at = np.array([(position + 3 * row) % longest for row in range(manifest.rows)], np.int32)
            done = machine.step(state, tokens[np.arange(manifest.rows), at], at)
            out += [np.asarray(done.logits), np.asarray(done.token)]
            state = done.state
        out += map(np.asarray, jax.tree.leaves(state))
    return out


def _chunks(single: Machine, chunks: Machine, program: Program) -> list[np.ndarray]:
    """Every sequence's prompt in chunks, to the last position; then one step of all of them."""
    out: list[np.ndarray] = []
    manifest, state = program.manifest, single.start()
    longest, size = manifest.longest, manifest.chunk
    tokens = _tokens(program, manifest.sequences, longest)
    for sequence in range(manifest.sequences):
        for first in [*range(0, longest - size, size), longest - size]:
            at = np.arange(first, first + size, dtype=np.int32)
            done = chunks.step(state, tokens[sequence, at], at, sequence)
            out += [np.asarray(done.logits), np.asarray(done.token)]
            state = done.state
    out += map(np.asarray, jax.tree.leaves(state))
    last = np.full(single.rows, longest - 1, np.int32)
    return [*out, np.asarray(single.step(state, tokens[:, -1], last).logits)]


def _hops(program: Program, weights: Arrays) -> list[np.ndarray]:
    out: list[np.ndarray] = []
    for index, hop in enumerate(program.manifest.hops):
        random = np.random.default_rng(index)
        shape = (hop.inputs.rows, hop.inputs.width)
        message = random.standard_normal(shape).astype(np.float16)
        if hop.inputs.wire == "fp8":
            message = random.integers(0, 0x60, shape).astype(np.uint8)
        out.append(np.asarray(prepare_hops(program, weights).step(index, message)))
    return out


def moved(program: Program) -> list[Any]:
    """By call, in order: line of the message, chip and word of the region, and how it is laid out."""
    (context,) = program.manifest.contexts
    out: list[Any] = []
    for call in program.calls:
        rows = program.expand_call(call, context)
        place = np.where(rows.op == Op.KVIN, rows.dst, rows.src2)
        columns = (rows.op, rows.src3, rows.chip, place, rows.n)
        kernels = [str(program.manifest.kernels[aux]) for aux in rows.aux.tolist()]
        out.append(sorted(zip(*(column.tolist() for column in columns), kernels, strict=True)))
    return out


def brought(program: Program, body: Switch) -> list[np.ndarray]:
    """In order: chip, word, word of the DDR5, whether it comes while the program before holds that word."""
    rows = program.expand(program.manifest.longest)
    chip, early = np.repeat(rows.chip, rows.n), np.repeat(rows.t0 < body.stop, rows.n)
    word, source = (np.repeat(first, rows.n) + ramp(rows.n) for first in (rows.dst, rows.src3))
    base, words = np.array(body.held, np.int64)[chip].transpose(2, 0, 1)
    inside = ((word[:, None] >= base) & (word[:, None] < base + words)).any(axis=1)
    order = np.lexsort((source, word, chip))
    return [column[order] for column in (chip, word, source, early & inside)]
