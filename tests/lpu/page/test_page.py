"""The page of a report, read by a parser: what it says is what the verb says, and nothing in it can act."""

import base64
import gzip
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from hostile_names import HOSTILE, STEERING, program

from compiler.program.isa import WORD_BYTES
from lpu import api
from lpu.cli import app as cli

pytest.importorskip("plotly")
VOID = {"meta", "link", "br", "img", "input", "hr"}
WIDE = 5_000_000  # bytes that a page may have


class Read(HTMLParser):
    """A page as its tags: whether each is closed, ids, addresses, scripts, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.tags.append((tag, held))
        self.ids += [str(held["id"])] if "id" in held else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.said.append(data)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    api.page(api.compile("llama-tiny", rack="quad", tp=2, context=80, check=False), path, again=False)
    return path.read_text()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    api.page(program(), path, check=False)
    return path.read_text()


def data_of(text: str) -> Any:
    found = re.search(r'<script type="text/plain" id="data">([^<]*)</script>', text)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found.group(1))))


def test_every_tag_is_closed_and_every_id_is_its_own(text: str) -> None:
    read = Read(text)
    assert not read.open
    assert len(read.ids) == len(set(read.ids))
    assert len(text) < WIDE


def test_nothing_is_fetched_and_only_the_pages_own_script_may_run(text: str) -> None:
    read = Read(text)
    for _, attributes in read.tags:
        assert (attributes.get("href") or "#").startswith("#")
        assert not {"src", "srcset", "action", "onerror", "onclick"} & set(attributes)
    (policy,) = (a["content"] for tag, a in read.tags if tag == "meta" and "http-equiv" in a)
    assert policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "'unsafe-inline'" not in policy.split("style-src")[0]


def test_every_section_has_a_heading_and_every_figure_a_table(text: str) -> None:
    read = Read(text)
    titles = {f"{attributes['id']}-title" for tag, attributes in read.tags if tag == "section"}
    assert titles <= set(read.ids)
    assert {"rack", "schedule", "memory", "bounds", "sensitivity", "provenance"} <= set(read.ids)
    plots = [attributes for _, attributes in read.tags if attributes.get("class") == "plot"]
    assert all(one["aria-label"] and one["role"] == "group" for one in plots)
    assert sum(tag == "details" for tag, _ in read.tags) == len(plots)


def test_a_page_carries_what_the_verb_prints_in_json(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = api.compile("llama-tiny", rack="quad", tp=2, context=80, check=False)
    api.save_program(made.program, tmp_path / "program")
    assert cli.main(["report", str(tmp_path / "program"), "--json"]) == 0
    assert data_of(text)["report"] == json.loads(capsys.readouterr().out)


def test_the_rows_of_a_page_are_those_of_the_program(text: str) -> None:
    made = api.compile("llama-tiny", rack="quad", tp=2, context=80, check=False).program
    rows = data_of(text)["rows"]
    placed = 0
    for call in rows["calls"]:
        (block,) = [one for one in rows["blocks"] if one["index"] == call["block"]] or [None]
        if block is None:
            continue
        placed += len(block["op"])
        assert block["left_out"] == 0
        assert call["base"] + max(block["t1"]) <= made.manifest.cycles[80]
        waited = sum(wait for _, wait, _ in block["chain"])
        spent = sum(block["t1"][row] - block["t0"][row] for row, _, _ in block["chain"])
        assert waited + spent == block["cycles"]
    assert placed == len(made.expand(80))


@pytest.mark.skipif(which("node") is None, reason="no node here, which runs the script of a page")
def test_the_script_of_a_page_draws_rows_by_unit_by_link_and_by_lane(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(text)
    words = ["node", Path(__file__).parent / "stand_in.js", tmp_path / "page.html", "all", "links", "lanes"]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=120)
    found = json.loads(done.stdout)
    rows = data_of(text)["rows"]
    longest = max(rows["blocks"], key=lambda block: block["cycles"])
    sent = [i for i, peer in enumerate(longest["peer"]) if peer >= 0]
    drawn = {unit: sum(y is not None for y in one["bars"]) // 3 for unit, one in found.items()}
    assert drawn["all"] == len(longest["op"])
    assert drawn["links"] == len(sent) > 0
    assert drawn["lanes"] == sum(longest["lanes"][i] for i in sent)
    names = {
        f"chip {chip} link to {peer} lane {lane}"
        for chip, peer, first, lanes in zip(
            *([longest[key][i] for i in sent] for key in ("chip", "peer", "lane", "lanes")), strict=True
        )
        for lane in range(first, first + lanes)
    }
    assert set(found["lanes"]["lines"]) == names
    assert f"{len(sent)} rows on {len(names)} lanes" in found["lanes"]["said"]


def test_the_same_program_gives_the_same_bytes(tmp_path: Path) -> None:
    made = api.compile("llama-tiny", rack="quad", tp=2, context=80, check=False)
    paths = [tmp_path / "a.html", tmp_path / "b.html"]
    for path in paths:
        api.page(made, path, check=False, again=False)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_hostile_names_are_text(hostile: str) -> None:
    read = Read(hostile)
    assert not read.open
    assert [tag for tag, _ in read.tags].count("script") == 3
    assert not any(tag == "img" for tag, _ in read.tags)
    assert not STEERING & set(hostile)
    assert max(len(word) for one in read.said for word in one.split()) < 420
    packed = json.dumps(data_of(hostile)["figures"])
    assert "<img" not in packed
    assert "<a " not in packed
    assert not any(json.dumps(mark)[1:-1] in packed for mark in STEERING)
    assert HOSTILE not in packed


def test_a_page_is_written_over_a_page_and_over_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = api.compile("llama-tiny", rack="quad", tp=2, context=80, check=False)
    api.save_program(made.program, tmp_path / "program")
    words = ["report", str(tmp_path / "program"), "--no-check", "--no-again", "--html"]
    for _ in range(2):
        assert cli.main([*words, str(tmp_path / "page.html")]) == 0
    (tmp_path / "mine.html").write_text("mine")
    assert cli.main([*words, str(tmp_path / "mine.html")]) == 2
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert cli.main([*words, str(tmp_path / "page.html"), "--context", "81"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_no_curve_of_transients_is_below_zero_or_above_its_region(text: str) -> None:
    made = api.compile("llama-tiny", rack="quad", tp=2, context=80, check=False).program
    most = made.manifest.region_table()[:, 0, 1].max() * WORD_BYTES / 1e3
    for trace in data_of(text)["figures"]["transients"]["data"]:
        assert min(trace["y"]) >= 0
        assert max(trace["y"]) <= most
