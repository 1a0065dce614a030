from pathlib import Path

import pytest

from lpu.gpu.table import COUNTS, KEYS, TEXTS, read_table
from lpu.inputs.document import FileError
from lpu.validate.cases.gpu.operators import POINTS

HEAD = POINTS.read_text().splitlines()[0]
ROW = "{id},decode_attn,vllm,0.24,fa3,bfloat16,{kv},{batch},1,{kv_len},64,8,128,,,,,{us}"


def row(id: str = "a", batch: int = 1, kv_len: int = 1024, us: str = "10", kv: str = "bfloat16") -> str:
    return ROW.format(id=id, batch=batch, kv_len=kv_len, us=us, kv=kv)


def table(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "points.csv"
    path.write_text("\n".join([HEAD, *rows]) + "\n")
    return path


def decode(batch: int, kv_len: int, kv: str = "bf16") -> dict[str, int | str]:
    return {"kv_dtype": kv, "heads": 64, "kv_heads": 8, "head_dim": 128, "batch": batch, "kv_len": kv_len}


def test_the_table_of_the_h200_reads_whole_and_every_point_finds_itself() -> None:
    found = read_table(POINTS)
    assert len(found.points) == len(POINTS.read_text().splitlines()) - 1
    for point in found.points:
        if point.op in KEYS:
            want = {name: getattr(point, name) for name in KEYS[point.op]}
            assert found.lookup(point.op, **want) == pytest.approx(point.seconds, rel=1e-12)
    assert set(HEAD.split(",")) == {*TEXTS, *COUNTS, "latency_us"}


def test_between_two_points_of_one_axis_it_is_log_log(tmp_path: Path) -> None:
    found = read_table(table(tmp_path, row("a", us="10"), row("b", kv_len=4096, us="40")))
    assert found.lookup("decode_attn", **decode(1, 2048)) == pytest.approx(20e-6)
    assert found.lookup("decode_attn", **decode(1, 1024)) == pytest.approx(10e-6)


def test_of_two_axes_the_closer_pair_counts(tmp_path: Path) -> None:
    rows = (
        row("a", batch=1, kv_len=2048, us="10"),
        row("b", batch=4, kv_len=2048, us="40"),
        row("c", batch=2, kv_len=1024, us="90"),
        row("d", batch=2, kv_len=8192, us="90"),
    )
    assert read_table(table(tmp_path, *rows)).lookup("decode_attn", **decode(2, 2048)) == pytest.approx(20e-6)


@pytest.mark.parametrize(
    "want", [decode(1, 512), decode(1, 8192), decode(2, 2048), decode(1, 1024, "fp8")], ids=str
)
def test_it_refuses_to_extrapolate_or_to_use_two_axes(tmp_path: Path, want: dict[str, int | str]) -> None:
    found = read_table(table(tmp_path, row("a"), row("b", kv_len=4096), row("c", batch=8, kv_len=8000)))
    assert found.seconds("decode_attn", **want) is None
    with pytest.raises(FileError, match="no measured point, nor two around it that differ in batch"):
        found.lookup("decode_attn", **want)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(us="0"), ":3: latency_us: is 0, must be above 0"),
        (row(us="nan"), ":3: latency_us: is nan, must be a finite number"),
        (row(us=""), ":3: latency_us: '' is no float"),
        (row(batch=-1), ":3: batch: is -1, must be a finite number from 0 on"),
        (row(batch=0), ":3: batch: is empty or 0, decode_attn needs 1 or more"),
        (row().replace("1024", "many"), ":3: kv_len: 'many' is no int"),
        (row() + ",1", ":3: has more cells"),
        ("a,gemm", ":3: has fewer cells"),
        (row("first", batch=2), ":3: first: .* is in line 2 too"),
        (row("b", batch=7), ":3: b: .* is in line 2 too"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, bad: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        read_table(table(tmp_path, row("first", batch=7), bad))


def test_a_missing_column_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(HEAD.replace(",latency_us", "") + "\n")
    with pytest.raises(FileError, match=":1: columns are missing: latency_us"):
        read_table(path)
    with pytest.raises(FileError, match="No such file"):
        read_table(tmp_path / "none.csv")
