"""Link: the schedule alone decides what every row reads; a broken one names the row that breaks it."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from beside import compiled
from handmade import ARGMAX, ARGRED, CAST, CHIP_ROWS, CONTEXT, MM0, MM1, SEND, WB, change, extend, matmul
from mixtures import MIXTURE
from shapes import SMALL
from work import calls

from compiler.program.instruction_set import INSTRUCTIONS, name_of
from compiler.program.isa import OPCODES, TRANSFER, TRANSIENT, Columns, Kernel, Op, is_transfer
from compiler.program.manifest import LogitsLine
from compiler.program.program import Program
from lpu import api
from lpu.link.link import Dataflow, LinkError, link
from models.configs.hybrid import HybridConfig

FOLDERS = Path(__file__).parents[2] / "models" / "data"
UNKNOWN = next(number for number in range(OPCODES) if number not in set(Op))


def linked(program: Program, rows: Columns | None = None, context: int = CONTEXT) -> Dataflow:
    rows = program.expand(context) if rows is None else rows
    return link(program.manifest, program.loads(), rows)


def test_a_product_reads_what_the_cast_wrote() -> None:
    flow = linked(matmul())
    first = flow.lines.first[0][MM1]
    found = flow.lines.found[0][first : first + 2]
    assert flow.lines.row[found].tolist() == [CAST, CAST]
    assert flow.lines.line[found].tolist() == [2, 3]


def test_a_transfer_becomes_an_alias_of_what_it_carries() -> None:
    flow = linked(matmul())
    first = flow.lines.first[0][ARGRED]
    rows = flow.lines.row[flow.lines.found[0][first : first + 2]]
    assert rows.tolist() == [5, 5 + CHIP_ROWS]
    assert flow.level[SEND] == -1


def test_products_belong_to_the_write_back_that_drains_them() -> None:
    flow = linked(matmul())
    assert flow.drain[[MM0, MM1, MM0 + CHIP_ROWS]].tolist() == [WB, WB, WB + CHIP_ROWS]
    assert flow.level[MM0] == flow.level[WB] == 2
    assert flow.levels == 5


def test_a_read_takes_the_last_write_before_its_cycle() -> None:
    program = matmul()
    rows = program.expand(CONTEXT)
    again = {
        name: int(getattr(rows, name)[CAST]) for name in ("op", "chip", "unit", "aux", "n", "dst", "src")
    }
    flow = linked(program, extend(rows, again | {"t0": 14, "t1": 22}))
    first = flow.lines.first[0]
    assert flow.lines.row[flow.lines.found[0][first[MM0]]] == CAST
    assert flow.lines.row[flow.lines.found[0][first[MM1]]] == len(rows)


def broken(program: Program, rows: Columns, row: int) -> None:
    with pytest.raises(LinkError) as error:
        linked(program, rows)
    assert error.value.row == row
    assert error.value.cycle in (rows.t0[row], rows.t1[row])
    assert error.value.opcode == name_of(int(rows.op[row]))


@pytest.mark.parametrize(
    ("row", "fields", "match"),
    [
        (CAST, {"t1": 15}, "nothing has written"),
        (CAST, {"dst": 9}, "nothing has written"),
        (MM0, {"src": 0}, "reads fp16 where row 0 wrote f32"),
        (MM0, {"dst": 1}, "no write-back"),
        (MM1, {"t1": 31}, "no write-back"),
        (MM0, {"unit": 1}, "no write-back"),
        (MM0, {"unit": 7}, "does not exist"),
        (MM0, {"n": 1}, "not whole|takes another"),
        (MM0, {"src2": 1265}, "no preloaded TILE"),
        (MM0, {"src2": 1584}, "finds SCALE|not whole"),
        (WB, {"src3": 1}, "no write-back empties"),
        (WB, {"src2": 1264}, "not whole|finds TILE"),
        (ARGRED, {"t0": 77}, "nothing has written"),
        (CAST, {"dst": 999}, "leaves the transient region"),
        (CAST, {"t1": 7}, "not after it reads"),
        (CAST, {"aux": 99}, "not in the manifest"),
        (CAST, {"aux": 2}, "is one of mm"),
        (SEND, {"peer": 2}, "is not one of 2"),
        (SEND, {"op": UNKNOWN}, f"opcode {UNKNOWN}"),
    ],
)
def test_one_wrong_field_is_an_error(row: int, fields: dict[str, int], match: str) -> None:
    program = matmul()
    rows = program.expand(CONTEXT)
    with pytest.raises(LinkError, match=match):
        linked(program, change(rows, row, **fields))


@pytest.mark.parametrize(("row", "hurt"), [(SEND, ARGRED), (MM1, WB), (CAST, MM0), (WB, ARGMAX)])
def test_a_dropped_row_stops_the_run(row: int, hurt: int) -> None:
    program = matmul()
    rows = program.expand(CONTEXT)
    kept = rows.take(np.delete(np.arange(len(rows)), row))
    broken(program, kept, hurt - (hurt > row))


def test_two_commits_in_one_cycle_are_an_error() -> None:
    program = matmul()
    rows = program.expand(CONTEXT)
    twin = {
        name: int(getattr(rows, name)[CAST])
        for name in ("op", "chip", "unit", "aux", "n", "dst", "src", "t0", "t1")
    }
    with pytest.raises(LinkError, match="commits in the same cycle"):
        linked(program, extend(rows, twin))


def test_an_output_that_nobody_writes_is_an_error() -> None:
    program = matmul()
    with pytest.raises(LinkError, match="output 0"):
        linked(replace(program, manifest=replace(program.manifest, logits=(LogitsLine(0, 900, 0),))))


def test_operands_of_a_batch_begin_at_whole_lines() -> None:
    program = matmul()
    with pytest.raises(LinkError, match="misaligned"):
        linked(replace(program, manifest=replace(program.manifest, rows=3)))


def test_attention_reads_kv_after_its_append(pair_program: Program) -> None:
    flow = linked(pair_program, context=80)
    readers = np.flatnonzero(np.isin(flow.columns.op, [Op.QK, Op.PV]))
    appends = flow.append[flow.region[readers]]
    assert len(flow.append) == 4
    assert (flow.level[readers] > flow.level[appends]).all()
    assert (flow.columns.dst[appends] == flow.columns.src2[readers]).all()


@pytest.mark.parametrize(
    ("op", "name", "shift", "match"),
    [
        (Op.KVW, "t1", 100_000, "before its append"),
        (Op.KVW, "dst", 1, "appends nothing"),
        (Op.QK, "src2", 1, "appends nothing"),
        (Op.QK, "n", 1, "block 1 is not one of 1"),
        (Op.QK, "dst", 1, "not one whole result|nothing has written|reads score where"),
        (Op.EXP, "src", 1, "not one whole result|nothing has written|reads score where"),
        (Op.AOUT, "src", -1, "reads blocks where|nothing has written|not one whole result"),
        (Op.PV, "aux", 1, "is one of"),
    ],
)
def test_attention_notices_a_wrong_field(
    pair_program: Program, op: Op, name: str, shift: int, match: str
) -> None:
    rows = pair_program.expand(80)
    row = int(np.flatnonzero(rows.op == op)[0])
    with pytest.raises(LinkError, match=match):
        linked(pair_program, change(rows, row, **{name: int(getattr(rows, name)[row]) + shift}))


def transient(rows: Columns, kernels: tuple[Kernel, ...], row: int) -> tuple[list[int], int]:
    """(tags of the transient lines that a row reads, tag of its first result): the compiler's opinion."""
    instruction, n = INSTRUCTIONS[int(rows.op[row])], int(rows.n[row])
    kernel = TRANSFER if is_transfer(rows.op[row : row + 1])[0] else kernels[rows.aux[row]]
    tags: list[int] = []
    for operand in instruction.reads:
        if operand.space == TRANSIENT:
            tag = int(getattr(rows, operand.column + "_tag")[row])
            if operand.stride is not None:
                tags += [tag + i * operand.stride(kernel) for i in range(n)]
            else:
                tags += list(range(tag, tag + int(operand.extent(n, kernel))))
    return tags, int(rows.dst_tag[row]) if instruction.write is not None else -1


@pytest.mark.parametrize("name", ["pair_program", "piped_program"])
def test_the_schedule_implies_what_the_compiler_meant(name: str, request: pytest.FixtureRequest) -> None:
    program: Program = request.getfixturevalue(name)
    context = program.manifest.contexts[0]
    rows = program.expand(context)
    flow = linked(program, rows)
    for row in range(len(rows)):
        if is_transfer(rows.op[row : row + 1])[0]:
            continue
        tags, _ = transient(rows, program.manifest.kernels, row)
        found = np.concatenate(
            [flow.lines.found[i][flow.lines.first[i][row] : flow.lines.first[i][row + 1]] for i in (0, 1)]
        )
        meant = [transient(rows, program.manifest.kernels, int(r))[1] for r in flow.lines.row[found]]
        assert (np.array(meant) + flow.lines.line[found]).tolist() == tags


Fault = Callable[[Columns, int], Columns]


def late(rows: Columns, row: int) -> Columns:
    return change(rows, row, t0=int(rows.t0[row]) + 100_000, t1=int(rows.t1[row]) + 100_000)


def dropped(rows: Columns, row: int) -> Columns:
    return rows.take(np.delete(np.arange(len(rows)), row))


HYBRID = HybridConfig(
    name="hybrid", family="hybrid", layers=1, hidden=96, heads=4, kv_heads=2, head_dim=24, ffn=160, vocab=120,
    tied=False, rope_theta=1e4, eps=1e-5, max_context=80, source="made up for tests", pattern=("PF",),
    channels=240, states=12, ssm_heads=10, groups=2, conv_biased=False, rope=False,
)  # fmt: skip
RULED = replace(
    HYBRID, name="ruled", pattern=("M", "A"), layers=2, rule="delta", channels=640, ssm_heads=4, groups=2,
    states=20, attention_gate=True,
)  # fmt: skip
HOST = (Op.TAKE, Op.GIVE, Op.KVIN, Op.KVOUT, Op.LOAD)  # of programs beside a GPU or before another
ELSEWHERE = (Op.FORWARD, Op.NORM, Op.HNORM, Op.RED, Op.TREE, Op.BIAS, Op.MUL, Op.MAD, Op.NODE, *HOST)
PRESENT = [op for op in Op if op not in ELSEWHERE]
# The last row of a step may be late: nothing reads it.
MISSED = [(fault, op) for op in PRESENT for fault in (late, dropped) if (fault, op) != (late, Op.ARGRED)]


@cache
def other_program(op: Op) -> Program | None:
    """A small program with an opcode that dense models lack; none for those that they have."""
    if op == Op.CAP:
        return compiled(replace(SMALL, logit_cap=3.0), "pair", tp=2)[1]
    if op in (Op.FETCH, Op.QKF, Op.PVF):
        early = replace(SMALL, attention_block=80, max_context=160)
        return compiled(early, "pair", contexts=(160,), tp=1, spill=80)[1]
    if op in (Op.CONV, Op.STEP, Op.SSM, Op.GATE):
        return compiled(HYBRID, "pair", tp=2)[1]
    if op in (Op.DECAY, Op.DELTA, Op.GATE16):
        return compiled(RULED, "pair", tp=2)[1]
    if op in (Op.XMM, Op.MM16, Op.RANK, Op.SHARE, Op.SLOTS, Op.WGLU):
        return compiled(MIXTURE, "pair", tp=2, pp=1)[1]
    if op in (Op.FETCHX, Op.XMF):
        return compiled(MIXTURE, "pair", tp=2, pp=1, cold=0.5)[1]
    if op in (Op.MOMENTS, Op.LNORM, Op.VMUL):
        folder = FOLDERS / ("variants/gemma4" if op == Op.VMUL else "families/bert-answers")
        return api.compile(folder, rack="pair", tp=2, context=[CONTEXT], check=False).program
    return None


@pytest.mark.parametrize(("fault", "op"), MISSED)
def test_every_opcode_is_missed(pair_program: Program, fault: Fault, op: Op) -> None:
    program = other_program(op) or pair_program
    context = max(program.manifest.contexts)
    rows = program.expand(context)
    found: list[bool] = []
    for row in np.flatnonzero(rows.op == op).tolist():
        try:
            linked(program, fault(rows, row), context)
            found.append(False)  # it reads what another row left there: the checker's and the proof's to find
        except LinkError:
            found.append(True)
    assert any(found)


def test_a_large_program_takes_no_more_calls_to_link_than_a_small_one(pair_program: Program) -> None:
    """The pair program side by side on many chips, 10^5 rows: columns are linked, not rows."""
    rows, loads = pair_program.expand(80), pair_program.loads()
    times = 100_000 // len(rows) + 1
    turn = np.repeat(np.arange(times), len(rows))
    many = {name: np.tile(getattr(rows, name), times) for name in rows.__dataclass_fields__}
    many["chip"] = many["chip"] + 2 * turn
    many["peer"] = np.where(many["peer"] < 0, -1, many["peer"] + 2 * turn)
    held = {name: np.tile(getattr(loads, name), times) for name in loads.__dataclass_fields__}
    held["chip"] = held["chip"] + 2 * np.repeat(np.arange(times), len(loads))
    manifest = replace(pair_program.manifest, regions=pair_program.manifest.regions * times)
    flows: list[Dataflow] = []
    few = calls(lambda: flows.append(link(pair_program.manifest, loads, rows)))
    assert calls(lambda: flows.append(link(manifest, type(loads)(**held), Columns(**many)))) <= 2 * few
    assert flows[0].levels == flows[1].levels
