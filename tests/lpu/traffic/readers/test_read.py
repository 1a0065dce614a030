"""Traces as others write them, and each way in which they are wrong: file, line, and why."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from compiler.errors import OptionError
from lpu.inputs.document import FileError
from lpu.traffic.readers.drawn import Arrivals, DrawnTraffic, Lengths
from lpu.traffic.readers.read import read_trace
from lpu.traffic.trace import Trace

LINE = '{{"timestamp": {}, "input_length": {}, "output_length": {}, "hash_ids": {}}}\n'
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
DRAWN = """
requests: 1000
arrivals: {kind: gamma, rate: 10, cv: 4}
input: {kind: lognormal, mean: 4000, sd: 1000, most: 8000}
output: {kind: empirical, values: [10, 300], weights: [1, 3]}
"""


def read(folder: Path, text: str, name: str = "trace.csv") -> Trace:
    path = folder / name
    path.write_bytes(text.encode() if text.isascii() else text.encode("latin-1"))
    found = read_trace(path)
    return found.trace() if isinstance(found, DrawnTraffic) else found


def test_azure_times_are_kept_to_a_tenth_of_a_microsecond(tmp_path: Path) -> None:
    text = AZURE + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:46.6805901,396,109\r\n"
    found = read(tmp_path, text + "2024-05-10 00:00:00+00:00,1,0\n")
    assert found.arrivals.tolist() == [0, 100]
    assert (found.inputs.tolist(), found.outputs.tolist(), found.left_out) == ([374, 396], [44, 109], 1)
    assert found.longest == 504


def test_burstgpt_failures_are_left_out(tmp_path: Path) -> None:
    found = read(
        tmp_path, BURST + "5,1,2,ChatGPT,472,18,490,API log\n45.5,,,GPT-4,0,0,0,API log\n46,,,m,9,3,12,x\n"
    )
    assert (found.arrivals.tolist(), found.inputs.tolist(), found.left_out) == ([0, 41 * 10**9], [472, 9], 1)


def test_mooncake_blocks_are_kept(tmp_path: Path) -> None:
    text = LINE.format(3, 513, 7, [4, 9]) + "\n" + LINE.format(4.5, 1, 1, [4])
    found = read(tmp_path, text, "t.jsonl")
    assert found.blocks is not None
    assert (found.blocks.ids.tolist(), found.blocks.starts.tolist()) == ([4, 9, 4], [0, 2, 3])
    assert found.arrivals.tolist() == [0, 1_500_000]


def test_drawn_requests_are_those_of_the_file(tmp_path: Path) -> None:
    found, again = (read(tmp_path, DRAWN, "t.yaml") for _ in range(2))
    assert found.arrivals.tolist() == again.arrivals.tolist()
    assert found.inputs.mean() == pytest.approx(4000, rel=0.02)
    assert found.inputs.std() == pytest.approx(1000, rel=0.1)
    assert sorted(set(found.outputs.tolist())) == [10, 300]
    gaps = (found.arrivals[1:] - found.arrivals[:-1]) / 1e9
    assert gaps.mean() == pytest.approx(0.1, rel=0.3)
    assert gaps.std() / gaps.mean() == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", 1, "is empty"),
        ("a,b\n1,2\n", 1, "no trace that is known"),
        ("TIMESTAMP,ContextTokens\n", 1, "no column GeneratedTokens"),
        ("ContextTokens,GeneratedTokens\n1,2\n", 1, "no column TIMESTAMP"),
        ("Timestamp,Request tokens\n1,2\n", 1, "no column Response tokens"),
        (AZURE, 1, "holds no request with an answer"),
        (AZURE + "2023-11-16 18:15:46,1,0\n", 2, "1 without"),
        (AZURE + "2023-11-16 18:15:46,-1,5\n", 2, "ContextTokens is -1, must be 1"),
        (AZURE + "2023-11-16 18:15:46,1,-5\n", 2, "GeneratedTokens is -5, must be 0"),
        (AZURE + "2023-11-16 18:15:46,1.5,5\n", 2, "'1.5', needs a whole number"),
        (AZURE + "2023-11-16 18:15:46,,5\n", 2, "''"),
        (AZURE + "2023-11-16 18:15:46,1\n", 2, "has 2 cells, the first line has 3"),
        (AZURE + "2023-13-16 18:15:46,1,5\n", 2, "TIMESTAMP is '2023-13-16"),
        (AZURE + "2023-11-16 18:15:46,1,5\n2023-11-16 18:15:45,1,5\n", 3, "sort the trace"),
        (AZURE + "2023-11-16 18:15:46,1,5\n2184-11-16 18:15:45,1,5\n", 3, "100 years"),
        (AZURE + "2023-11-16 18:15:46,1,\xff\n", 2, "is not UTF-8"),
        (BURST + "-1,,,m,9,3,12,x\n", 2, "Timestamp is '-1'"),
        (BURST + "nan,,,m,9,3,12,x\n", 2, "'nan'"),
        (BURST + "1,,,m,0,3,12,x\n", 2, "Request tokens is 0"),
        (BURST + '1,,,"m,9,3,12,x\n', 2, "no line of a table"),
        ("{\n", 1, "is no JSON"),
        ("{}\n", 1, "has no timestamp, input_length"),
        (LINE.format(0, 1, 1, [1]) + "[]\n", 2, "holds a list"),
        (
            LINE.format(0, 513, 1, [1]),
            1,
            "has 1 hash_ids, 513 tokens of input_length in blocks of 512 need 2",
        ),
        (LINE.format(0, 1, 1, "[-1]"), 1, "hash_ids are no list"),
        (LINE.format(0, 1, 1, "[true]"), 1, "hash_ids are no list"),
        (LINE.format(0, 1, 1, [1 << 63]), 1, f"whole numbers from 0 to {(1 << 63) - 1}"),
        (LINE.format(-1, 1, 1, [1]), 1, "timestamp is '-1'"),
        (LINE.format("NaN", 1, 1, [1]), 1, "holds NaN"),
        (LINE.format(0, -3, 1, []), 1, "input_length is -3"),
        (LINE.format(0, 1, '"7"', [1]), 1, "output_length is '7', needs a whole number"),
        (LINE.format(5, 1, 1, [1]) + LINE.format(4, 1, 1, [1]), 2, "time 4 is before 5"),
        ('{"timestamp": 1, "timestamp": 2}\n', 1, "has a key twice"),
    ],
)
def test_a_wrong_trace_names_its_line(tmp_path: Path, text: str, line: int, why: str) -> None:
    with pytest.raises(FileError, match=rf"trace\.csv:{line}: .*{re.escape(why)}") as found:
        read(tmp_path, text)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("requests: 1000", "requests: 0", "requests: is 0"),
        (
            "rate: 10",
            "rate: 0.0000001",
            "requests: 1000 take 1e+10 seconds at this rate, the most are 3153600000",
        ),
        ("kind: gamma", "kind: weibull", "arrivals.kind"),
        (", cv: 4", "", "cv: is required of gamma"),
        ("rate: 10", "rate: -1", "arrivals.rate: is -1"),
        ("rate: 10, cv: 4", "users: 3", "rate: is required"),
        ("rate: 10, cv: 4", "rate: 10, cv: 4, users: 3", "users: only a closed loop"),
        ("mean: 4000, ", "", "mean: is required"),
        ("sd: 1000", "sd: -1", "input.sd: is -1"),
        ("weights: [1, 3]", "weights: [1]", "weights: 1 of 2"),
        ("values: [10, 300], ", "", "values: are required"),
        ("most: 8000", "most: 0", "least"),
        ("input:", "inputs:", "is no key here"),
        ("requests: 1000", "requests: .nan", "requests"),
    ],
)
def test_a_wrong_distribution_names_its_line(tmp_path: Path, old: str, new: str, why: str) -> None:
    with pytest.raises(FileError, match=r"trace\.yaml:\d+:\d+: ") as found:
        read(tmp_path, DRAWN.replace(old, new), "trace.yaml")
    assert why in str(found.value)


def test_requests_that_take_longer_than_they_may_are_refused_with_both_numbers() -> None:
    one = Lengths(kind="fixed", mean=1)
    arrivals = Arrivals(kind="constant", rate=1e-6)  # the mean of its gaps is just below what may be
    drawn = DrawnTraffic(requests=3153, arrivals=arrivals, input=one, output=one)
    assert len(drawn.trace()) == 3153
    spread = replace(drawn, arrivals=Arrivals(kind="gamma", rate=1e-6, cv=2), seed=1)
    with pytest.raises(OptionError, match=r"3153 requests: take \S+ seconds, the most are 3153600000"):
        spread.trace()


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        read_trace(tmp_path / "none.csv")
