import pytest

from compiler.program.program import Program
from lpu.inputs.document import FileError
from lpu.report.listing import show
from lpu.report.show_options import ShowOptions


def test_a_limit_leaves_the_number_of_all_rows(pair_program: Program) -> None:
    found = show(pair_program, ShowOptions(op="mm", limit=3))
    assert len(found.lines) == 3
    assert found.total == len(show(pair_program, ShowOptions(op="MM")).lines) > 3
    assert show(pair_program, ShowOptions(chip=1, op="RSTAT", limit=99)).total == 5


@pytest.mark.parametrize(
    ("call", "names"),
    [
        ("1", {"layers.1"}),
        ("layers.0", {"layers.0"}),
        ("head", {"head"}),
    ],
)
def test_a_call_is_named_by_layer_by_part_or_in_full(
    pair_program: Program, call: str, names: set[str]
) -> None:
    found = show(pair_program, ShowOptions(call=call, limit=999))
    assert {line.call for line in found.lines} == names


def test_kernels_of_the_rows_are_explained_once(pair_program: Program) -> None:
    text = str(show(pair_program, ShowOptions(op="RSTAT")))
    assert text.count("rstat  width 160, eps 1e-05, shifted True") == 1
    assert str(show(pair_program, ShowOptions(op="TAKE"))) == "no rows"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (ShowOptions(chip=2), "--chip 2: pair has 2 chips, numbered from 0."),
        (ShowOptions(chip=-1), "--chip -1: pair has 2 chips"),
        (ShowOptions(op="NORN"), "--op NORN: no instruction has this name. Did you mean NORM?"),
        (ShowOptions(call="layer.0"), "has this name. Did you mean layers.0?"),
        (ShowOptions(call="7"), "--call 7: no call from angles to head has this name."),
        (
            ShowOptions(unit="plan"),
            "plane, drain, chain, host in, host out, link. Did you mean plane?",
        ),
        (ShowOptions(unit="plane 4"), "--unit plane 4: there are 4, numbered from 0."),
        (ShowOptions(unit="plane x"), "--unit plane x: the classes are "),
        (ShowOptions(cycles=(9000, 9001)), "--cycles 9000-9001: the program has cycles 0 to 7"),
        (ShowOptions(context=81), "--context 81: the program has 80."),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(
    pair_program: Program, options: ShowOptions, text: str
) -> None:
    with pytest.raises(FileError) as refused:
        show(pair_program, options)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)
