"""Programs that move KV and states: each region of a decode program once, as the line that it holds."""

from collections.abc import Iterator
from typing import NamedTuple

from compiler.program.instructions.host import HandoverKernel, StateMoveKernel
from compiler.program.isa import Columns, Op
from compiler.program.manifest import Manifest, Move
from compiler.program.program import Program
from lpu.prove.held import HeldHead, HeldState, Regions
from lpu.prove.prove import SENSELESS, Verdict, nonsense, verdict
from lpu.prove.refused import RefusedError, need

_Place = tuple[int, int]


class _Row(NamedTuple):
    """What a row moves: chip and word, line of the message, what it counts, its kernel."""

    place: _Place
    line: int
    n: int
    kernel: HandoverKernel | StateMoveKernel

    @property
    def where(self) -> str:
        """Its place in words."""
        return f"word {self.place[1]} of chip {self.place[0]}"


def prove_move(program: Program, regions: Regions, kind: str) -> Verdict:
    """Prove that a program moves each region of a decode program once, as its layer's line."""
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
    states = {place: held for place, held in regions.items() if isinstance(held, HeldState)}
    layers = 1 + max((one.layer for one in heads.values()), default=-1)
    every = 1 + max((one.state for one in states.values()), default=-1)
    need(len(manifest.contexts) == 1, f"the {kind} program has {len(manifest.contexts)} contexts")
    layer = state = 0
    for call in program.calls:
        rows = list(_rows(program.expand_call(call, manifest.contexts[0]), manifest, kind))
        of_heads = [row for row in rows if isinstance(row.kernel, HandoverKernel)]
        if of_heads or not rows:
            _heads(of_heads, layer, heads)
            layer += 1
        state = _states([row for row in rows if isinstance(row.kernel, StateMoveKernel)], state, states)
    need(layer == layers, f"{layer} calls move the KV of {layers} layers")
    need(state == every, f"{state} of {every} states are moved")


def _heads(rows: list[_Row], layer: int, heads: dict[_Place, HeldHead]) -> None:
    """The KV of one layer, whole."""
    missing = {place: held for place, held in heads.items() if held.layer == layer}
    for row in rows:
        held = missing.pop(row.place, None)
        if held is None:
            raise RefusedError(f"{row.where} holds no KV of layer {layer} that is still to be moved")
        assert isinstance(row.kernel, HandoverKernel)
        need(_alike(held, row.kernel), f"{row.where} is of another format or size")
        want = held.head * held.stripes + held.stripe
        need(row.line == want, f"{row.where} is moved as line {row.line} of layer {layer}, holds line {want}")
    need(not missing, f"{len(missing)} KV regions of layer {layer} are not moved")


def _states(rows: list[_Row], first: int, states: dict[_Place, HeldState]) -> int:
    """The states of one layer, from number `first` of the model's on, whole; the number behind them."""
    found = {row.place: states[row.place] for row in rows if row.place in states}
    end = 1 + max((held.state for held in found.values()), default=first - 1)
    missing = {place: held for place, held in states.items() if first <= held.state < end}
    before = [sum(one.lines for one in missing.values() if one.state < state) for state in range(end)]
    for row in rows:
        held = missing.pop(row.place, None)
        if held is None:
            raise RefusedError(f"{row.where} holds no state of this layer that is still to be moved")
        kernel = row.kernel
        assert isinstance(kernel, StateMoveKernel)
        need(held.lines > 0, f"the channels at {row.where} do not lie in order")
        have = kernel.kept, kernel.cached, row.n
        wanted = held.kept, held.cached, held.lines
        need(have == wanted, f"{row.where} is moved as kept, cached and lines {have}, holds {wanted}")
        line = before[held.state] + held.first
        need(row.line == line, f"{row.where} is moved as line {row.line} of its states, holds line {line}")
    need(not missing, f"{len(missing)} regions of states {first} to {end - 1} are not moved")
    return end


def _rows(rows: Columns, manifest: Manifest, kind: str) -> Iterator[_Row]:
    """Every row, which must move KV or states."""
    wanted, column = (Op.KVIN, rows.dst) if kind == "ingest" else (Op.KVOUT, rows.src2)
    for i in range(len(rows)):
        aux = int(rows.aux[i])
        kernel = manifest.kernels[aux] if 0 <= aux < len(manifest.kernels) else None
        if int(rows.op[i]) != wanted or not isinstance(kernel, HandoverKernel | StateMoveKernel):
            raise RefusedError(f"row {i} moves no KV")
        yield _Row((int(rows.chip[i]), int(column[i])), int(rows.src3[i]), int(rows.n[i]), kernel)


def _alike(held: HeldHead, kernel: HandoverKernel) -> bool:
    names = ("stripes", "run", "key_lanes", "head_dim", "kv", "kv_words", "kv_stride", "capacity", "cached")
    return all(getattr(held, name) == getattr(kernel, name) for name in names)
