"""A bridge of the user's own: read from a file with its sources, refused in one line."""

from pathlib import Path

import pytest

from fabric.catalog import bridge_spec
from lpu.inputs.files import FileError, read_bridge

MINE = """\
name: mine
lpu_bytes_per_second: 25_000_000_000
rack_bytes_per_second: 100_000_000_000
rack_lpus: 8
latency_ns: 2000
"""


def test_a_bridge_is_found_by_its_catalog_name() -> None:
    assert read_bridge("spectrum-x") is bridge_spec("spectrum-x")
    with pytest.raises(FileError, match=r"Did you mean spectrum-x\?.*\.yaml"):
        read_bridge("spektrum-x")


def test_the_numbers_of_a_bridge_file_are_assumed_from_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE + "sources:\n  - {field: latency_ns, confidence: B, source: my notes}\n")
    bridge = read_bridge(path)
    assert (bridge.lpu_bytes_per_second, bridge.rack_lpus) == (25_000_000_000, 8)
    found = {s.field: (s.confidence, s.source) for s in bridge.sources}
    assert found["latency_ns"] == ("B", "my notes")
    assert found["rack_lpus"] == ("assumed", f"stated in {path}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("lpu_bytes_per_second: 25_000_000_000", "lpu_bytes_per_second: 0"),
            "mine.yaml:2:1: lpu_bytes_per_second: bridge mine has 0, needs at least 1",
        ),
        (
            ("rack_bytes_per_second: 100_000_000_000", "rack_bytes_per_second: 7"),
            "mine.yaml:3:1: rack_bytes_per_second: bridge mine has 7 for 8 LPUs, needs at least 8",
        ),
        (("latency_ns: 2000", "latency: 2000"), "mine.yaml:5:1: latency: is no key here. Did you mean"),
        (("rack_lpus: 8\n", ""), "mine.yaml:1:1: rack_lpus: is required"),
        (("rack_lpus: 8", "rack_lpus: 8e0"), "mine.yaml:4:1: rack_lpus: "),
        (
            ("latency_ns: 2000\n", "latency_ns: 2000\nsources: [{field: lanes, confidence: A, source: x}]\n"),
            "mine.yaml:6:1: sources: bridge mine: a source for lanes, which bridge mine does not have",
        ),
    ],
)
def test_a_wrong_bridge_file_is_answered_with_line_column_and_key(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE.replace(*change))
    with pytest.raises(FileError) as caught:
        read_bridge(path)
    text = str(caught.value).replace(f"{tmp_path}/", "")
    assert said in text
