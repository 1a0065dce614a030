"""The page of a report in Debian's chromium: it draws, it answers, it is reachable, and nothing leaves it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hostile_names import program

from compiler.program.isa import WORD_BYTES
from lpu import api
from lpu.afd.modes.afd import Afd
from lpu.afd.options import Gpus
from lpu.gpu.request import Request
from lpu.traffic.options import TrafficGpus

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no /usr/bin/chromium here: apt-get install chromium"),
]
POINTS = "document.querySelector('#plot-rows').data.reduce((n, t) => n + t.x.length, 0)"
RACK = "document.querySelector('#plot-rack').data"
SHOTS = os.environ.get("LPU_SHOTS", "")  # a folder for screenshots


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver: Any = pytest.importorskip("playwright.sync_api")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


def until(page: Any, condition: str) -> None:
    """Wait for a condition; asked from outside, as the page's policy forbids what asks from inside."""
    for _ in range(600):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {condition}")


class Opened:
    """A page in the browser: what it asked for and complained of."""

    def __init__(self, browser: Any, path: Path, scheme: str = "light") -> None:
        size = {"width": 1280, "height": 900}
        self.page = browser.new_context(color_scheme=scheme, viewport=size).new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda one: self._said(one.type, one.text))
        self.page.on("pageerror", lambda one: self.complaints.append(str(one)))
        self.page.on("request", lambda one: self.requests.append(one.url))
        self.page.on("dialog", lambda one: self.complaints.append("dialog"))
        self.page.goto(f"file://{path}")
        until(self.page, "document.body.dataset.ready === 'yes'")
        self.page.evaluate("lpu.every()")

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and "GL Driver Message" not in text:  # of a machine without a GPU
            self.complaints.append(text)

    def shot(self, name: str) -> None:
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    path = tmp_path_factory.mktemp("page") / "report.html"
    api.page(api.compile("llama-tiny", rack="quad", tp=2, context=80, check=False), path)
    return Opened(browser, path)


def test_a_page_draws_all_its_figures_and_complains_of_nothing(opened: Opened) -> None:
    opened.shot("tiny")
    drawn = opened.page.evaluate("document.querySelectorAll('.plot .main-svg').length")
    assert drawn >= 2 * opened.page.evaluate("Object.keys(lpu.data.figures).length")
    assert opened.complaints == []
    assert all(url.startswith(("file://", "blob:")) for url in opened.requests)


def test_a_reader_chooses_a_block_filters_zooms_and_reads_the_verbs_numbers(opened: Opened) -> None:
    page = opened.page
    cycles = page.evaluate("lpu.data.report.occupancy[0].cycles")
    assert f"{cycles:,} cycles" in page.inner_text("#answer")
    labels = page.evaluate("[...document.querySelectorAll('#call option')].map((one) => one.label)")
    chosen = next(one for one in labels if one.startswith("layers."))
    page.select_option("#call", label=chosen)
    until(page, "document.body.dataset.rows.startsWith('layers.')")
    every = page.evaluate(POINTS)

    def tints() -> dict[str, str]:
        return dict(
            page.evaluate("document.querySelector('#plot-rows').data.map((t) => [t.name, t.line.color])")
        )

    whole = tints()
    page.select_option("#unit", "critical")
    until(page, f"{POINTS} < {every}")
    assert page.evaluate(POINTS) > 0
    assert tints().items() <= whole.items()  # an opcode keeps its colour where fewer are shown
    wide = page.evaluate("document.querySelector('#plot-rows').layout.xaxis.range")
    page.focus("#zoom-in")
    page.keyboard.press("Enter")
    until(page, f"document.querySelector('#plot-rows').layout.xaxis.range[0] > {wide[0]}")
    chain = page.evaluate(
        "[...document.querySelectorAll('#chain tbody tr')].map((r) => r.cells[4].textContent)"
    )
    assert any(text.endswith(("for planes", "for chains", "for lanes", "for drains")) for text in chain)


def test_the_transients_of_a_chosen_chip_are_those_of_its_blocks(opened: Opened) -> None:
    page = opened.page
    until(page, "document.body.dataset.chip !== undefined")
    rows = page.evaluate("document.querySelector('#plot-live').data[0].y")
    assert rows == ["chip 0", "chip 1"]  # of tp 2
    page.select_option("#live-chip", "1")
    until(page, "document.body.dataset.chip === '1'")
    shown = page.evaluate("Math.max(...document.querySelector('#plot-one-chip').data[0].y)")
    row = page.evaluate("Math.max(...document.querySelector('#plot-live').data[0].z[1])")
    packed = page.evaluate("Object.values(lpu.data.rows.live).flat()")
    assert shown == row == max(max(words) for rank, _, words in packed if rank == 1) * WORD_BYTES / 1000
    assert f"at most {shown:,.1f} kB" in page.inner_text("#live-said")
    told = page.evaluate(
        "[...document.querySelectorAll('#live-chips tbody tr')].map((r) => r.cells[3].textContent)"
    )
    assert float(told[1].replace(",", "")) == pytest.approx(shown, abs=1e-3)
    events = page.evaluate("[...document.querySelectorAll('#live-table tbody tr')].length")
    assert events >= sum(len(words) for rank, _, words in packed if rank == 1)  # blocks run more than once


def test_chips_are_coloured_by_what_is_chosen_and_the_page_goes_dark(opened: Opened) -> None:
    page = opened.page
    page.select_option("#metric", "SRAM used, %")
    until(
        page, "document.querySelector('#plot-rack').data.some((t) => t.meta === 'SRAM used, %' && t.visible)"
    )
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    opened.shot("tiny-dark")
    assert opened.complaints == []


def serious_faults(opened: Opened) -> list[str]:
    """What axe finds that keeps somebody from reading the page."""
    axe: Any = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(opened.page).response["violations"]
    bad = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in bad]


def test_no_serious_accessibility_fault_is_found(opened: Opened) -> None:
    assert serious_faults(opened) == []


@pytest.mark.parametrize("kind", ["report", "difference"])
def test_hostile_names_run_nothing_and_ask_for_nothing(browser: Any, kind: str, tmp_path: Path) -> None:
    longer = api.compile("llama-tiny", rack="quad", tp=4, context=80, check=False)
    made = program() if kind == "report" else api.diff(program(), longer)
    api.page(made, tmp_path / "page.html", check=False)
    opened = Opened(browser, tmp_path / "page.html")
    opened.shot(f"hostile-{kind}")
    assert opened.page.evaluate("window.ran === undefined")
    assert opened.page.evaluate("document.querySelectorAll('img, .plot a[href]').length") == 0
    assert all(url.startswith(("file://", "blob:")) for url in opened.requests)
    assert opened.complaints == []
    assert serious_faults(opened) == []


def told() -> dict[str, Any]:
    """What pages of every other kind are made from, by name."""
    tiny: dict[str, Any] = {"rack": "quad", "context": 80, "check": False}
    request = Request(prompt_tokens=12, new_tokens=3, batch=2)
    traffic = (
        "requests: 300\narrivals: {kind: poisson, rate: 9000}\n"
        "input: {kind: normal, mean: 40, sd: 9, most: 60}\noutput: {kind: exponential, mean: 9, most: 18}\n"
    )
    drawn = Path(mkdtemp()) / "drawn.yaml"
    drawn.write_text(traffic)
    return {
        "70b": lambda: api.compile("llama-3.1-70b", context=8192, tp=8, check=False),
        "throughput": lambda: api.compile("llama-tiny", tp=2, objective="throughput", **tiny),
        "prefill": lambda: api.compile("llama-tiny", tp=2, prefill=8, **tiny),
        "afd": lambda: api.afd("llama-tiny", request, mode=Afd(), rack="pair", gpus=Gpus(gpus=1)),
        "replay": lambda: api.replay(drawn, "llama-tiny", rack="quad", gpus=TrafficGpus(gpus=0), check=False),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["70b", "throughput", "prefill", "afd", "replay"])
def test_a_page_of_every_kind_draws_complains_of_nothing_and_is_reachable(
    browser: Any, kind: str, tmp_path: Path
) -> None:
    made = told()[kind]()
    api.page(made, tmp_path / "report.html", check=False)
    opened = Opened(browser, tmp_path / "report.html")
    opened.shot(kind)
    drawn = opened.page.evaluate("document.querySelectorAll('.plot .main-svg').length")
    assert drawn >= opened.page.evaluate("Object.keys(lpu.data.figures).length")
    assert opened.complaints == []
    assert all(url.startswith(("file://", "blob:")) for url in opened.requests)
    assert serious_faults(opened) == []
    if kind in ("afd", "replay"):
        assert opened.page.evaluate("lpu.data.report") == json.loads(json.dumps(made.to_json()))
    else:
        cycles = opened.page.evaluate("lpu.data.report.occupancy[0].cycles")
        assert cycles == next(iter(api.report(made).occupancy)).cycles
        assert (tmp_path / "report.html").stat().st_size < 5_000_000
