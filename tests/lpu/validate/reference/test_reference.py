import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lpu import api
from lpu.cli import app as cli
from lpu.inputs.document import FileError
from lpu.validate.reference.case import ReferenceCase, cases, read_cases
from lpu.validate.reference.changes import parse_changes
from lpu.validate.reference.expression import ExpressionError, evaluate
from lpu.validate.reference.printed import printed
from lpu.validate.reference.reference import reference

HELD = [case for case in cases() if case.inputs and case.status != "CLAIM"]


def values(case: str, **changes: float) -> dict[str, object]:
    (result,) = reference(case, {case: changes}).results
    return {figure.row.name: figure.right for figure in result.figures}


def test_all_63_cases_and_7_conflicts_have_the_status_that_is_stated_for_them() -> None:
    found = reference()
    ids = [result.case.id for result in found.results]
    counts = {
        prefix: sum(one.startswith(prefix) for one in ids) for prefix in ("C-002", "C-000", "C-003", "C-001")
    }
    assert counts == {"C-002": 23, "C-000": 18, "C-003": 14, "C-001": 8}
    assert [one for one in ids if one.startswith("X-")] == [f"X-{n}" for n in range(1, 8)]
    assert found.passed, found.verdict


@pytest.mark.parametrize("case", HELD, ids=[case.id for case in HELD])
def test_a_wrong_input_of_any_case_changes_a_figure_and_fails_where_it_is_taken_for_the_documents(
    case: ReferenceCase,
) -> None:
    wrong = [
        replace(case, inputs={**case.inputs, name: factor * value + shift})
        for name, value in case.inputs.items()
        for factor, shift in ((10, 0), (40, 0), (0.1, 0), (1, 1), (1e-9, 0))
    ]
    assert any(not reference(of=[one]).passed for one in wrong)


def test_every_input_is_in_a_formula() -> None:
    """One that is not could be changed, and nothing would follow."""
    for case in cases():
        formulas = [
            *case.let.values(),
            *(text for row in case.rows for text in (row.right, row.basis, row.premise)),
        ]
        words = set(re.findall(r"[a-z]\w*", " ".join(text for text in formulas if text)))
        assert set(case.inputs) <= words, case.id


def test_a_wrong_stated_status_fails() -> None:
    (case,) = (one for one in cases() if one.id == "C-003-08")
    stated = replace(case, rows=[replace(case.rows[0], status="WRONG")])
    assert not reference(of=[stated]).passed


def test_changed_inputs_move_the_figures_by_the_formula_and_nothing_is_asserted() -> None:
    assert values("C-002-01")["R100 read"] == pytest.approx(90 / 22)
    assert values("C-002-01", r100_tb_per_s=44)["R100 read"] == pytest.approx(90 / 44)
    assert values("C-000-04")["1T FP4 one GPU and LPDDR"] == pytest.approx(0.85 / (288 / 22e3 + 212 / 1200))
    assert values("C-000-08", heads=0)["path B 32K"] == pytest.approx(6400)
    assert values("C-002-01", weights_gb=140)["LPU read"] == pytest.approx(160 / (2 * 256 * 150))  # two racks
    assert values("C-000-02", fp4=1)["500B FP4"] == pytest.approx(12 * 9.2 * 8 * 0.95 / 500)
    assert values("C-000-04", hbm_gb=600)["1T FP4 one GPU and LPDDR"] == pytest.approx(0.85 * 22e3 / 500)
    assert values("C-000-09", layers_70b=40)["KV of 70B"] == pytest.approx(2 * 40 * 8 * 128 * 2 / 1e6)
    assert values("C-000-09", path_a_gb=100)["path A 500B"] == 0
    assert reference("C-002-01", {"C-002-01": {"kv_gb": 1}}).verdict.endswith(
        "1 case: 1 WRONG; 1 with changed inputs, not compared"
    )
    found = reference(changes=parse_changes(["h100_tb_per_s=9"]))
    assert found.passed
    assert "not compared" in found.verdict
    assert sum(result.changed for result in found.results) == 8


def test_a_figure_printed_on_an_impossible_basis_is_wrong_and_on_a_possible_one_a_basis() -> None:
    def status(**changes: float) -> str:
        (result,) = reference("C-002-08", {"C-002-08": changes}).results
        return next(figure.status for figure in result.figures if figure.row.name == "single LPU")

    assert status() == "WRONG"
    assert status(lpu_gb=100) == "OK"


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("27", (26, 28), (25.9, 28.1)),
        ("1,600+", (1600, 1700), (1500, 2000)),
        ("2-5", (2, 5.1), (1.9, 5.2)),
        ("<0.1", (0.05,), (0.2,)),
        (">100", (150,), (90,)),
        ("yes", (True,), (False,)),
        ("no", (False,), (True,)),
    ],
)
def test_a_printed_figure_allows_its_rounding_and_no_more(
    text: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    assert all(printed(text).agrees(value) for value in inside)
    assert not any(printed(text).agrees(value) for value in outside)


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "a.b", "b", "1 +", "1 / 0", "9 ** 99", "max()", "[1]", "min(1, x=2)", "'a' * 9"],
)
def test_an_expression_that_is_no_arithmetic_of_its_inputs_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(text, {"a": 1.0})


def test_expressions_are_arithmetic() -> None:
    assert evaluate("ceil(a / 2) + max(1, a) if a > 2 and not a == 5 else -1", {"a": 3.0}) == 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["C-002-99.a=1"], "C-002-99"),
        (["C-002-01.b200=1"], "b200_tb_per_s"),
        (["gb"], "CASE.INPUT=NUMBER"),
        (["gb=x"], "no finite number"),
        (["C-002-14.after_ms=0"], "division by zero"),
    ],
)
def test_a_change_that_cannot_be_made_is_one_clear_line(changes: list[str], said: str) -> None:
    with pytest.raises(FileError, match=said):
        api.reference(changed=changes)


def test_a_bad_file_of_cases_says_where(tmp_path: Path) -> None:
    path = tmp_path / "cases.yaml"
    path.write_text(
        'cases:\n  - {id: a, where: w, title: t, says: s, rows: [{name: n, printed: "2", right: "1"}]}\n'
    )
    with pytest.raises(FileError, match="status"):
        read_cases(path)


def test_the_command_line_writes_text_json_markdown_and_html(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = tmp_path / "inputs.yaml"
    inputs.write_text("C-002-12: {hopper_to_blackwell: 1}\n")
    assert cli.main(["validate", "--reference", "--case", "C-002-12"]) == 0
    assert "do not compose" in capsys.readouterr().out
    assert cli.main(["validate", "--reference", "--case", "C-002-12", "--inputs", str(inputs), "--json"]) == 0
    (case,) = json.loads(capsys.readouterr().out)["cases"]
    assert next(row for row in case["rows"] if row["name"] == "all three")["status"] == "OK"
    for form in ("markdown", "html"):
        path = tmp_path / form
        assert cli.main(["validate", "--reference", "--format", form, "-o", str(path)]) == 0
        assert all(case.id in path.read_text() for case in cases())
    assert cli.main(["validate", "--reference", "--gpu"]) == 2
    assert cli.main(["validate", "--set", "gb=1"]) == 2
