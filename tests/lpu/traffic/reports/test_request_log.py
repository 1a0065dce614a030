"""The log of a replay in both formats."""

import csv
import sys
from pathlib import Path
from typing import Any

import pytest

from lpu.inputs.document import FileError
from lpu.traffic.outcome import Outcome
from lpu.traffic.readers.drawn import Arrivals, DrawnTraffic, Lengths
from lpu.traffic.reports.request_log import need_pyarrow, write_log
from lpu.traffic.served import Served, StepPace
from lpu.traffic.simulation.simulate import simulate


def outcomes() -> list[Outcome]:
    lengths = Lengths(kind="exponential", mean=5)
    drawn = DrawnTraffic(
        requests=30, arrivals=Arrivals(kind="poisson", rate=5e5), input=lengths, output=lengths
    )
    machine = Served(clock_hz=10**9, groups=1, rows=1, paces=(StepPace(12, 1000, 1000, 1000),), queue=4)
    return [simulate(drawn.trace(seed), machine) for seed in (0, 1)]


def test_a_line_says_what_became_of_a_request(tmp_path: Path) -> None:
    rows = list(csv.DictReader(write_log(tmp_path, outcomes(), [0, 1], "csv").read_text().splitlines()))
    assert len(rows) == 60
    assert {row["status"] for row in rows} == {"served", "too_long", "refused"}
    for row in rows:
        good = row["status"] == "served"
        assert (int(row["last_token_cycle"]) > 0) == good
        assert bool(row["ttft_us"]) == good
        assert bool(row["tpot_us"]) == (good and int(row["output_tokens"]) > 1)
        assert row["prefilled_cycle"] == "-1"  # there are no GPUs


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]

    library: Any = parquet
    found = library.read_table(write_log(tmp_path, outcomes(), [0, 1], "parquet")).to_pydict()
    rows = list(csv.DictReader(write_log(tmp_path, outcomes(), [0, 1], "csv").read_text().splitlines()))
    assert found["last_token_cycle"] == [int(row["last_token_cycle"]) for row in rows]
    assert found["status"] == [row["status"] for row in rows]


def test_parquet_without_its_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FileError, match=r"lpu-emulator\[parquet\]"):
        need_pyarrow()
