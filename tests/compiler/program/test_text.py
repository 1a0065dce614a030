from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import OPERANDS, Columns, Op
from compiler.program.preloaded import runs
from compiler.program.program import Call, Program
from compiler.program.text import Line, Selection, count, lines, table, units_of

EVERY = Selection()


def all_lines(program: Program, chosen: Selection = EVERY) -> list[Line]:
    return list(lines(program, 80, chosen))


def changed(program: Program, call: int, column: str, row: int, value: int) -> Program:
    """The program with one number of one row of a call's block changed."""
    at = program.calls[call].block
    columns = program.blocks[at].columns[80]
    numbers = getattr(columns, column).copy()
    numbers[row] = value
    block = replace(program.blocks[at], columns={80: replace(columns, **{column: numbers})})
    return replace(program, blocks=(*program.blocks[:at], block, *program.blocks[at + 1 :]))


def test_every_row_is_one_line_in_order_of_cycle_chip_and_unit(piped_program: Program) -> None:
    found = all_lines(piped_program)
    columns = piped_program.expand(80)
    assert len(found) == len(columns) == count(piped_program, 80, EVERY)
    assert [(one.t0, one.chip) for one in found] == sorted(
        zip(columns.t0.tolist(), columns.chip.tolist(), strict=True)
    )
    assert len(table(found).splitlines()) == len(found)


def test_filters_give_the_lines_that_they_name_and_those_alone(piped_program: Program) -> None:
    every, units = all_lines(piped_program), units_of(piped_program)
    layer = tuple(i for i, call in enumerate(piped_program.calls) if call.name.startswith("layers.0"))
    cases: list[tuple[Selection, Callable[[Line], bool]]] = [
        (Selection(chip=2), lambda one: one.chip == 2),
        (Selection(op=Op.WB), lambda one: one.op == "WB"),
        (Selection(cycles=(700, 760)), lambda one: one.t0 <= 760 and one.t1 > 700),
        (Selection(units=units["drain"]), lambda one: one.unit.startswith("drain")),
        (Selection(units=units["plane"][1:2]), lambda one: one.unit == "plane 1"),
        (Selection(units=units["link"][3:4]), lambda one: one.unit.startswith("link -> chip 3 ")),
        (Selection(calls=layer, chip=1), lambda one: one.call.startswith("layers.0") and one.chip == 1),
    ]
    for chosen, fits in cases:
        found = all_lines(piped_program, chosen)
        assert found == [one for one in every if fits(one)]
        assert 0 < len(found) == count(piped_program, 80, chosen) < len(every)


def test_a_call_is_not_expanded_before_the_listing_gets_there(
    pair_program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    expanded: list[str] = []
    expand = Program.expand_call

    def counted(self: Program, call: Call, context: int, some: Any = None) -> Columns:
        expanded.append(call.name)
        return expand(self, call, context, some)

    monkeypatch.setattr(Program, "expand_call", counted)
    next(lines(pair_program, 80, EVERY))
    assert expanded == ["embed"]


def test_operands_name_values_tensors_and_places(pair_program: Program) -> None:
    (first, *_) = all_lines(pair_program, Selection(chip=1, op=Op.PRE))
    assert table([first]) == (
        "layers.0  570..591  chip 1  chain 0  PRE  n 2  f16 v5[0:1] @t:0x4 <- f32 v4[0:2] @t:0x2, "
        "shifted layers.0.attention.norm.gain[0:160] @w:0x1ee"
    )
    (send, *_) = all_lines(pair_program, Selection(op=Op.SEND))
    assert send.unit == "link -> chip 1 lane 0"
    assert send.operands() == "copy v4[0:1] @t:0x2 of chip 1 <- copy v4[0:1] @t:0x2"


def test_tiles_of_all_chips_together_are_the_whole_of_each_matrix(pair_program: Program) -> None:
    found: dict[str, int] = {}
    for one in all_lines(pair_program, Selection(op=Op.MM)):
        (tile,) = (operand for operand in one.reads if operand.holds == "tile")
        name, inside = tile.part.removesuffix("]").split("[")
        (k0, k1), (n0, n1) = (map(int, axis.split(":")) for axis in inside.split(", "))
        found[name] = found.get(name, 0) + (k1 - k0) * (n1 - n0)
    assert found["layers.1.ffn.down.codes"] == 320 * 160
    assert found["layers.0.attention.k.codes"] == 160 * 64
    assert found["head.codes"] == 160 * 240
    assert len(found) == 2 * 7 + 1


def test_a_changed_number_of_any_column_changes_the_text(pair_program: Program) -> None:
    before = table(all_lines(pair_program))
    rows = pair_program.blocks[pair_program.calls[2].block].columns[80]
    for op in np.unique(rows.op).tolist():
        row = int(np.flatnonzero(rows.op == op)[0])
        record = INSTRUCTIONS[op]
        names = {one.column for one in record.operands} | dict(record.numbers).keys() | {"n", "t0", "t1"}
        for column in sorted(names):
            value = int(getattr(rows, column)[row])
            if value >= 0:
                assert table(all_lines(changed(pair_program, 2, column, row, value + 1))) != before, column


def test_every_column_that_says_something_is_an_operand_or_has_a_name(
    pair_program: Program, dealt_program: Program
) -> None:
    for program in (pair_program, dealt_program):
        columns = program.expand(80)
        for op in np.unique(columns.op).tolist():
            record = INSTRUCTIONS[op]
            named = {one.column for one in record.operands} | dict(record.numbers).keys()
            for column in OPERANDS:
                values = getattr(columns, column)[columns.op == op]
                assert (values < 0).all() or column in named, f"{record.name} {column}"


def test_an_instruction_of_an_extension_prints_by_its_record(
    pair_program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = INSTRUCTIONS[Op.ADD]
    record = replace(add, op=200, name="BLEND", reads=add.reads[:1], numbers=(("src2", "table"),))
    monkeypatch.setitem(INSTRUCTIONS, 200, record)
    rows = pair_program.blocks[pair_program.calls[2].block].columns[80]
    row = int(np.flatnonzero(rows.op == Op.ADD)[0])
    found = all_lines(changed(pair_program, 2, "op", row, 200), Selection(op=200, calls=(2,)))
    assert [line.op for line in found] == ["BLEND"]
    assert found[0].operands() == "f32 v30[0:1] @t:0x5 <- f32 v4[0:1] @t:0x2, table 4"


def test_runs_are_ranges_without_padding() -> None:
    assert runs(np.array([0, 1, 2, -1, -1])) == "0:3"
    assert runs(np.array([4, 5, 8, 9, -1])) == "4:6+8:10"
    assert runs(np.array([4, 8, 12, 16])) == "4:5+8:9+2 more"
    assert runs(np.array([-1, -1])) == "padding"
