import numpy as np
import pytest
from renumbered import RACKS

from fabric.canonical import Table, canonical_order
from fabric.rack import Rack

PETERSEN = [(i, j) for i in range(5) for j in ((i + 1) % 5, i + 5)]
STAR = [(5 + i, 5 + (i + 2) % 5) for i in range(5)]


def of(pairs: list[tuple[int, int]], chips: int) -> Table:
    table = np.zeros((chips, chips), np.int64)
    for a, b in pairs:
        table[a, b] = table[b, a] = 1
    return table


def wired(rack: Rack) -> Table:
    return np.where(rack.links.index >= 0, rack.links.lanes[rack.links.index], 0)


def form(table: Table) -> list[list[int]]:
    order = canonical_order(table)
    assert order is not None
    assert sorted(order.tolist()) == list(range(len(table)))
    return table[order][:, order].tolist()


FULL = [(a, b) for a in range(9) for b in range(a)]
CUBE = [(a, a ^ bit) for a in range(16) for bit in (1, 2, 4, 8)]
TABLES = {
    "petersen": of(PETERSEN + STAR, 10),
    "all to all": of(FULL, 9),
    "cube": of(CUBE, 16),
    "two rings": of([(i, (i + 1) % 4) for i in range(4)] + [(4 + i, 4 + (i + 1) % 4) for i in range(4)], 8),
    **{name: wired(rack()) for name, rack in RACKS.items()},
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_one_form_however_its_chips_are_numbered(name: str) -> None:
    table = TABLES[name]
    for seed in range(3):
        mixed = np.random.default_rng(seed).permutation(len(table))
        assert form(table[mixed][:, mixed]) == form(table)


def test_tables_that_are_not_the_same_have_other_forms() -> None:
    ring = of([(i, (i + 1) % 8) for i in range(8)], 8)
    assert form(ring) != form(TABLES["two rings"])  # every chip sees the same in both
    assert len({str(form(table)) for table in TABLES.values()}) == len(TABLES)


def test_a_search_that_would_take_too_long_says_so() -> None:
    assert canonical_order(TABLES["cube"], work=1000) is None
