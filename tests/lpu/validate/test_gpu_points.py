import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from fabric.catalog import gpu_spec
from lpu import api
from lpu.cli import app as cli
from lpu.inputs.document import FileError
from lpu.validate.cases.gpu import operators as gpu_points
from lpu.validate.cases.gpu.operators import Bench, catalog_bench, modelled_seconds
from lpu.validate.validate import SUITES, validate

ROOT = Path(__file__).parents[3]
BENCH = catalog_bench()


def failed(bench: Bench, case: int | None = None) -> list[str]:
    return [p.name for p in validate(case, bench, "gpu").points if p.passed is False]


def test_every_gate_holds_on_the_catalogs_h200() -> None:
    found = api.validate(suite="gpu")
    assert found.passed
    assert [p.name.split(" of ")[0] for p in found.points if p.kind == "gate"] == [
        "MAPE",
        "rows beyond 25 %",
        "MAPE",
        "MAPE",
        "MAPE",
    ]
    assert found.verdict == "within tolerance: 5 of 5 gate"


@pytest.mark.parametrize(
    ("numbers", "case", "rows"),
    [
        ({"memory_bytes_per_second": 4.0e12}, 1, 12),
        ({"memory_bytes_per_second": 3.35e12}, 2, 4),
        ({"flops_bf16": 1.2e15}, 3, 6),
        ({"flops_fp8": 0.9e15}, 4, 10),
        ({"sms": 32}, 1, 12),
    ],
)
def test_a_gpu_with_a_wrong_number_fails(numbers: dict[str, float], case: int, rows: int) -> None:
    bench = replace(BENCH, spec=BENCH.spec.with_numbers("a test", **numbers))
    assert f"MAPE of {rows} rows" in failed(bench, case)


def test_a_far_slower_memory_brings_more_than_two_rows_beyond_25_percent() -> None:
    bench = replace(BENCH, spec=BENCH.spec.with_numbers("a test", memory_bytes_per_second=2.4e12))
    assert "rows beyond 25 %" in failed(bench, 1)


@pytest.mark.parametrize(
    ("kernel", "t0_seconds"),
    [
        ("decode_bf16", 0.0),
        ("mla_bf16", 0.0),
        ("decode_bf16", 30e-6),
        ("mla_bf16", 30e-6),
        ("context_bf16", 60e-6),
        ("gemm_bf16", 20e-6),
    ],
)
def test_a_launch_that_is_missing_or_too_long_fails(kernel: str, t0_seconds: float) -> None:
    other = replace(getattr(BENCH.spec, kernel), t0_seconds=t0_seconds)
    assert failed(replace(BENCH, spec=replace(BENCH.spec, **{kernel: other})))


def test_every_row_of_a_gated_operator_counts_and_the_others_are_named() -> None:
    found = validate(suite="gpu", machine=BENCH)
    for row in BENCH.table.points:
        shown = [p for p in found.points if p.name.startswith(row.id)]
        known = modelled_seconds(BENCH.spec, row) is not None
        assert len(shown) == known
        assert known == (row.op in gpu_points.GATED or row.op == "allreduce_custom")
    left = [row.op for row in BENCH.table.points if modelled_seconds(BENCH.spec, row) is None]
    for op in set(left):
        (point,) = (p for p in found.points if p.name == f"{op}, not modelled")
        assert (point.published, point.modelled) == (left.count(op), 0)


def test_the_mean_is_that_of_the_printed_errors() -> None:
    for case in (1, 2, 3, 4):
        points = validate(case, BENCH, "gpu").points
        errors = [abs(p.error_percent) for p in points if p.kind == "shown"]
        (mape,) = (p.modelled for p in points if p.name.startswith("MAPE"))
        assert mape == pytest.approx(sum(errors) / len(errors))


def test_a_table_without_rows_of_an_operator_is_refused() -> None:
    rows = tuple(row for row in BENCH.table.points if row.op != "gemm")
    bench = replace(BENCH, table=replace(BENCH.table, points=rows))
    with pytest.raises(FileError, match="has 0 rows of gemm, the case needs 1 or more"):
        validate(4, bench, "gpu")


def test_the_suite_says_held_out_and_not_blind() -> None:
    found = validate(suite="gpu", machine=BENCH)
    gated = [case for case in found.cases if case.number in (1, 2, 3, 4)]
    assert len(gated) == 4
    assert all("held out from fitting, not blind" in case.remark for case in gated)
    assert "by construction" in found.cases[-1].remark


def test_an_unknown_suite_or_case_is_named_with_those_there_are() -> None:
    with pytest.raises(FileError, match=f"no suite 'cpu'. Choose one of {', '.join(SUITES)}"):
        validate(suite="cpu")
    with pytest.raises(FileError, match=r"--case 7.*1, 2, 3, 4, 5"):
        validate(7, suite="gpu")


def test_the_verb_runs_the_suite_or_one_case_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "--gpu", "--case", "2"]) == 0
    out = capsys.readouterr().out
    assert "measured" in out.splitlines()[0]
    assert "<= 12" in out
    assert not re.search(r"^[1345] ", out, re.MULTILINE)
    assert cli.main(["validate", "--gpu", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["schema"], body["suite"], body["passed"]) == ("lpu-validate/2", "gpu", True)
    assert {p["case"] for p in body["points"]} == {1, 2, 3, 4, 5}
    assert "decode_bf16.eb" in body["constants"]["derived"]


def test_a_gate_that_breaks_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = replace(BENCH, spec=replace(gpu_spec("b200"), name="h200"))
    monkeypatch.setitem(SUITES, "gpu", replace(SUITES["gpu"], machine=lambda: wrong))
    assert cli.main(["validate", "--gpu"]) == 1
    out = capsys.readouterr().out
    assert "FAIL" in out
    assert "BEYOND tolerance" in out


def test_the_gpus_verb_lists_numbers_bands_and_where_the_kernels_are_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["gpus", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["schema"] == "lpu-gpus/2"
    by_name = {one["name"]: one for one in body["gpus"]}
    assert (by_name["r100"]["band"], by_name["r100"]["carried_from"]) == (0.25, ["gb200", "h200"])
    assert "flops_fp4" not in by_name["h200"]
    assert "memory_bytes" in by_name["h200"]["numbers"]["assumed"]


def test_the_table_lies_in_a_package_that_the_wheel_holds() -> None:
    assert gpu_points.POINTS.is_relative_to(ROOT / "lpu")
    assert 'packages = ["lpu"' in (ROOT / "pyproject.toml").read_text()
