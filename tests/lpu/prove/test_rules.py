"""Every condition of every rule has a row that only this condition refuses."""

from dataclasses import replace

import pytest
from proof_early import APPENDED
from proof_experts import SUMS
from proof_rows import Setting, row
from proof_rules import RULES

from compiler.program.instructions.vector import ArgredKernel
from compiler.program.isa import Holds, Op
from lpu.prove.lines import Chosen
from lpu.prove.ops.registry import PROVED, register
from lpu.prove.refused import RefusedError
from lpu.prove.rule import Proved


@pytest.mark.parametrize("op", RULES)
def test_a_row_is_accepted_and_refused_when_one_condition_fails(op: Op) -> None:
    setting = Setting()
    good, changes = RULES[op](setting)
    assert PROVED[op].rule(setting.known, good)
    for words, changed in changes.items():
        with pytest.raises(RefusedError) as refused:
            PROVED[op].rule(setting.known, replace(good, **changed))
        assert words in str(refused.value), (words, str(refused.value))


def test_copies_are_the_lines_and_moves_of_kv_are_no_rows_of_a_step() -> None:
    setting = Setting()
    lines = setting.f32(setting.x, 0)
    for op in (Op.SEND, Op.FORWARD):
        assert PROVED[op].rule(setting.known, row(None, src=lines)) == lines
    for op, words in ((Op.TAKE, "takes a message"), (Op.GIVE, "gives an answer")):
        none, good = Setting(), RULES[op](Setting())[0]
        with pytest.raises(RefusedError, match=f"{words}, this is no hop"):
            PROVED[op].rule(none.known, good)
    for op in (Op.KVIN, Op.KVOUT, Op.LOAD):
        with pytest.raises(RefusedError, match="no row of a step"):
            PROVED[op].rule(setting.known, row(None))
    assert set(RULES) | {Op.SEND, Op.FORWARD, Op.KVIN, Op.KVOUT, Op.LOAD} == set(Op)


def test_maxima_may_repeat() -> None:
    setting = Setting()
    one = Chosen(Holds.PICK, setting.x, frozenset({0}))
    assert PROVED[Op.ARGRED].rule(setting.known, row(ArgredKernel(), n=2, src=(one, one))) == (one,)


def test_an_opcode_has_one_rule() -> None:
    with pytest.raises(ValueError, match="has a rule"):
        register(Proved(op=Op.ADD, rule=lambda known, row: ()))
    with pytest.raises(ValueError, match="is not from 0"):
        register(Proved(op=999, rule=lambda known, row: ()))
    assert register(PROVED[Op.ADD]) is PROVED[Op.ADD]


MORE = {name: (Op.WB, make) for name, make in SUMS.items()} | {
    name: (Op.KVW, make) for name, make in APPENDED.items()
}


@pytest.mark.parametrize("name", MORE)
def test_other_rows_of_an_op_are_accepted_and_refused_when_one_condition_fails(name: str) -> None:
    setting = Setting()
    op, make = MORE[name]
    good, changes = make(setting)
    assert PROVED[op].rule(setting.known, good)
    for words, changed in changes.items():
        with pytest.raises(RefusedError) as refused:
            PROVED[op].rule(setting.known, replace(good, **changed))
        assert words in str(refused.value), (words, str(refused.value))
