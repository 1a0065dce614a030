import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lpu import api
from lpu.cli import app as cli
from lpu.energy.cost import cost, gpu_cost
from lpu.energy.energy import DYNAMIC, STATIC, of_events, step_energy
from lpu.energy.events import events
from lpu.energy.prices import parse_bands, prices
from lpu.energy.profile import profile
from lpu.energy.spread import Spread
from lpu.inputs.document import FileError
from lpu.report.occupancy import occupancy

NONE = {event: 0 for _, event, _, _ in DYNAMIC}


@pytest.fixture(scope="module")
def program() -> Any:
    return api.compile("llama-tiny", rack="quad", tp=4, context=128, check=False).program


def test_a_token_on_paper() -> None:
    """70.6 G FP8 products and bytes, 256 chips for 143 us: facts energy_cost.md 6.2."""
    counts = NONE | {"macs_fp8": 70_600_000_000, "installed_bytes": 70_600_000_000}
    joules = {term.name: term.joules.mid for term in of_events(counts, 256, 143e-6, prices()).terms}
    assert joules["products, fp8"] == pytest.approx(70.6e9 * 65e-15)  # 4.6 mJ
    assert round(1e3 * joules["products, fp8"], 1) == 4.6
    assert round(1e3 * joules["SRAM, weights and KV"]) == 17
    assert round(joules["chips at rest"], 1) == 3.8


def test_events_are_those_of_the_program(program: Any) -> None:
    manifest, shown = program.manifest, occupancy(program, 128)
    found = events(program.expand(128), manifest).totals()
    assert found["macs_fp8"] + found["macs_fp16"] == shown.macs
    assert found["installed_bytes"] == shown.weight_bytes + shown.kv_bytes
    assert found["link_bytes"] == sum(link.moved_bytes for link in shown.links) > 0
    assert found["stream_bytes"] > 2 * found["link_bytes"]
    assert found["host_bytes"] == 0


@pytest.mark.parametrize("name", sorted({price for *_, price, _ in DYNAMIC} | {price for _, price in STATIC}))
def test_doubling_a_price_moves_exactly_its_terms(program: Any, name: str) -> None:
    asked = prices()
    before = step_energy(program, 128, asked)
    after = step_energy(program, 128, asked.with_bands(**{name: asked[name].times(2)}))
    for a, b in zip(before.terms, after.terms, strict=True):
        assert b.joules == (a.joules.times(2) if a.price == name else a.joules)
        assert b.count == a.count


@pytest.mark.parametrize("event", sorted(NONE))
def test_doubling_a_count_moves_exactly_its_terms(event: str) -> None:
    counts = dict.fromkeys(NONE, 10**9)
    before = of_events(counts, 4, 1e-5, prices()).terms
    after = of_events(counts | {event: 2 * 10**9}, 4, 1e-5, prices()).terms
    names = {name for name, counted, *_ in DYNAMIC if counted == event}
    for a, b in zip(before, after, strict=True):
        assert b.joules == (a.joules.times(2) if a.name in names else a.joules)


def test_sums_are_totals_and_bands_ascend(program: Any) -> None:
    step = step_energy(program, 128)
    assert step.joules.mid == pytest.approx(sum(term.joules.mid for term in step.terms), rel=1e-12)
    for band in (*(term.joules for term in step.terms), step.joules, step.watts, cost(step, prices()).usd):
        assert band.low <= band.mid <= band.high


def test_cost_moves_with_its_own_inputs(program: Any) -> None:
    step, asked = step_energy(program, 128), prices()
    before = cost(step, asked)
    for name, of in (("capex_usd", "capex"), ("usd_per_kwh", "electricity"), ("pue", "electricity")):
        after = cost(step, asked.with_bands(**{name: asked[name].times(2)}))
        for term in ("capex", "electricity"):
            assert getattr(after, term).mid == pytest.approx(getattr(before, term).mid * (1 + (term == of)))
    longer = cost(step, asked.with_bands(life_years=asked["life_years"].times(2)))
    assert longer.capex.mid == pytest.approx(before.capex.mid / 2)
    by_hand = gpu_cost(asked.gpu("h200"), 8, 1000, asked).electricity.mid
    assert by_hand == pytest.approx(8 * 1.1 * 1.2 * 0.08 / 3.6)


def test_the_profile_integrates_to_the_energy_of_the_step(program: Any) -> None:
    asked, manifest = prices(), program.manifest
    step, found = step_energy(program, 128, asked), profile(program, 128, asked)
    assert len(found.watts) == manifest.cycles[128]
    assert found.watts.sum() / manifest.clock_hz == pytest.approx(step.joules.mid, rel=1e-6)
    assert found.beyond(found.peak_watts - 1)
    assert not found.beyond(found.peak_watts)
    lines = found.csv(7).splitlines()
    assert len(lines) <= 8
    means = np.array([float(line.split(",")[1]) for line in lines[1:]])
    assert found.watts.min() <= means.min() <= means.max() <= found.watts.max()


@pytest.mark.parametrize(
    "text",
    ["static_w", "static_w=a", "static_w=3,2,1", "static_w=1,2", "static_w=-1", "static_w=nan", "statik=1"],
)
def test_a_bad_price_is_one_clear_line(program: Any, text: str) -> None:
    with pytest.raises(FileError, match=r"^energy: [^\n]*$"):
        api.energy(program, changed=[text])


def test_one_number_is_a_band_of_equal_bounds() -> None:
    assert parse_bands(["pue=1_000"]) == {"pue": Spread(1000, 1000, 1000)}


def test_the_command_line(program: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api.save_program(program, str(tmp_path / "p"))
    folder, table = str(tmp_path / "p"), str(tmp_path / "t.csv")
    assert cli.main(["energy", folder, "--profile", table, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["steps"][0]["joules"]["mid"] == pytest.approx(step_energy(program, 128).joules.mid)
    assert all(price["source"] for price in body["prices"])
    assert Path(table).read_text().startswith("cycle,watts\n0,")
    assert cli.main(["energy", folder, "--power-cap", "1"]) == 1
    assert cli.main(["energy", folder, "--power-cap", "-1"]) == 2
    assert cli.main(["report", folder]) == 0
    assert "energy (modelled)" in capsys.readouterr().out
