from itertools import product
from typing import Any

import numpy as np
import pytest

from compiler.errors import OptionError
from fabric.catalog import node_spec
from lpu.nodes.demand import supposed
from lpu.nodes.faults import Misses, faults
from lpu.nodes.persistence import CHANGES, KvOrigin, after, valid

SOC, DENSE = node_spec("ddr5-soc"), supposed()["dense-500b"]


def test_a_page_costs_what_c_000_10_computes() -> None:
    one = faults(SOC, DENSE, "fp16", Misses(page=1))
    assert one
    assert one.page_bytes == 1_966_080
    assert one.cost[0] - 50e-6 == pytest.approx(140e-6, rel=0.01)
    assert one.cost[1] - 100e-6 == pytest.approx(281e-6, rel=0.01)
    block = faults(SOC, DENSE, "fp16", Misses(page=256))
    assert block
    assert block.page_bytes == pytest.approx(503e6, rel=0.001)
    assert block.cost == (pytest.approx(36e-3, rel=0.01), pytest.approx(72e-3, rel=0.01))


@pytest.mark.parametrize(("places", "miss"), [*product((0, 1, 4, 9), (0.0, 0.01, 0.2, 0.9, 1.0))])
def test_the_tail_is_that_of_every_combination_of_misses(places: int, miss: float) -> None:
    chances = np.zeros(places + 1)
    for missed in product((False, True), repeat=places):
        chances[sum(missed)] += np.prod([miss if one else 1 - miss for one in missed])
    how = Misses(places=places, miss=miss)
    assert how.rate == pytest.approx(1 - chances[0])
    assert how.mean == pytest.approx(float(chances @ np.arange(places + 1)))
    assert how.at_most(0.95) == int(np.searchsorted(np.cumsum(chances) + 1e-12, 0.95))


def test_more_misses_lengthen_the_tail_one_after_another() -> None:
    few = faults(SOC, DENSE, "fp8", Misses(places=1, miss=0.5))
    many = faults(SOC, DENSE, "fp8", Misses(places=8, miss=0.5))
    assert few
    assert many
    assert (few.p95, many.p95) == (1, 6)
    assert many.p95_seconds(0.3)[1] - 0.3 == pytest.approx(6 * (few.p95_seconds(0.3)[1] - 0.3))


def test_a_node_without_a_drive_has_no_faults() -> None:
    assert faults(node_spec("gb300-nvl72"), DENSE, "fp8", Misses()) is None


@pytest.mark.parametrize(
    "wrong", [{"places": -1}, {"places": 10**9}, {"miss": 1.5}, {"miss": float("nan")}, {"page": 0}]
)
def test_misses_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"^nodes: --[^\n]+$"):
        Misses(**wrong)


@pytest.mark.parametrize("change", ["weights", "rope", "tokenizer", "kv", "adapter"])
def test_what_made_the_kv_must_be_equal(change: str) -> None:
    assert (after(change, 100, 1000).tokens, after(change, 100, 1000).reason) == (0, f"{change} changed")


def test_a_changed_system_prompt_leaves_nothing_and_the_same_session_all() -> None:
    """C-000-11: "only the system prompt's KV needs recomputation" is wrong for causal attention."""
    assert after("system-prompt", 100, 1000).tokens == 0
    assert after("nothing", 100, 1000).tokens == 1100


def test_another_layout_moves_numbers_and_changes_none() -> None:
    found = after("layout", 100, 1000)
    assert (found.tokens, found.resharded) == (1100, True)


def test_blocks_before_the_first_difference_are_valid() -> None:
    kept, now = list(range(100)), [*range(50), 999, *range(51, 100)]
    assert valid(KvOrigin(), KvOrigin(), kept, now, block=16).tokens == 48
    assert valid(KvOrigin(), KvOrigin(), kept, now, block=1).tokens == 50
    assert valid(KvOrigin(), KvOrigin(), kept, [*kept, 7, 8], block=16).tokens == 100
    assert valid(KvOrigin(), KvOrigin(), kept, kept[:40], block=16).tokens == 32


def test_an_unknown_change_is_refused() -> None:
    assert "weights" in CHANGES
    with pytest.raises(OptionError, match="is no change"):
        after("colour", 1, 1)
    with pytest.raises(OptionError, match="are above"):
        after("weights", 1 << 30, 1)
