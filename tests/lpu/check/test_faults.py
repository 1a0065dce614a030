"""Every fault is caught by the checker or the linker, or is provably harmless: the dataflow is the same."""

import numpy as np
import pytest
from faults import FAULTS, same
from faulty import came_to, subject

from lpu.check.check import check_columns
from lpu.link.link import link

SEEDS = 40  # of each kind: two percent of the corpus


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_is_caught_or_provably_harmless(kind: str) -> None:
    words = [came_to(kind, seed) for seed in range(SEEDS)]
    assert words.count("caught") >= SEEDS // 2


def test_a_fault_that_only_moves_data_changes_what_is_linked() -> None:
    """The checker finds swapped tiles by their tags; the linker believes addresses, so its result differs."""
    of = subject()
    faulty = FAULTS["swapped weight tiles"](of.columns, of.program.manifest, np.random.default_rng(0))
    assert not check_columns(faulty.manifest, of.loads, faulty.columns).ok
    assert not same(link(faulty.manifest, of.loads, faulty.columns), of.flow)
