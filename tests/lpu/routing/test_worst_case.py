"""What slots for the worst routing cost: held against programs that have fewer, and against arithmetic."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beside import compiled
from mixtures import MIXTURE

from compiler.analyse.idle import cycles_of
from lpu.inputs.document import FileError
from lpu.report.words import EXACT
from lpu.routing.popularity import UNIFORM, popularity_of
from lpu.routing.replicas import copies, most_over_mean
from lpu.routing.worst_case import RoutingCost, routing

MANY = replace(MIXTURE, name="many", experts=16, hidden=320, ffn=320)


def program(batch: int, experts: str = "exact", rack: str = "pair") -> Any:
    return compiled(MANY, rack, batch=batch, tp=2, pp=1, experts=experts)[1]


def found(batch: int, popularity: str = "uniform") -> RoutingCost:
    made = routing(program(batch), popularity_of(popularity))
    assert made is not None
    return made


def test_one_row_takes_every_slot() -> None:
    made = found(1)
    assert [table.mean for table in made.tables] == [2.0]
    assert made.mean_cycles == made.cycles
    assert made.kind == EXACT


def test_the_mean_of_even_routing_is_the_closed_form() -> None:
    (table,) = found(4).tables
    assert (table.slots, table.needed) == (8, 8)
    assert math.isclose(table.mean, 16 * (1 - (1 - 2 / 16) ** 4))


def test_blocks_scheduled_anew_take_what_a_program_with_so_many_slots_takes() -> None:
    made = found(4)
    fewer = program(4, f"capacity:{made.tables[0].taken}")
    assert made.mean_cycles == fewer.manifest.cycles
    assert made.mean_cycles[80] < made.cycles[80]


def test_a_block_with_all_its_rows_is_scheduled_as_it_was() -> None:
    whole = program(4)
    for call in whole.calls:
        columns = whole.expand_call(call, 80)
        if len(columns):
            everything = np.ones(len(columns), bool)
            cycles = cycles_of(columns, whole.manifest, call.tag, everything)
            assert cycles == whole.blocks[call.block].cycles[80]


def test_uneven_popularity_takes_fewer_slots() -> None:
    even, uneven = found(4).tables[0], found(4, "log-normal:1.5").tables[0]
    assert uneven.mean < even.mean


def test_shares_of_a_log_normal_have_its_gini() -> None:
    """Source: facts moe.md 3.3, Gini = erf(sigma / 2)."""
    shares = np.sort(popularity_of("log-normal:0.7").shares(20_000))
    size = len(shares)
    gini = float((2 * np.arange(1, size + 1) - size - 1) @ shares / size)
    assert math.isclose(gini, math.erf(0.35), rel_tol=0.03)


def test_a_program_without_experts_has_no_routing() -> None:
    from models.catalog import catalog

    plain = compiled(catalog("llama-tiny"), "pair", tp=1, pp=1)[1]
    assert routing(plain) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("log-normal", "is no number from 0 to 10"),
        ("power:-1", "'-1' is no number from 0 to 10"),
        ("nowhere.txt", "cannot be read (FileNotFoundError)"),
    ],
)
def test_another_popularity_is_refused(text: str, says: str) -> None:
    with pytest.raises(FileError) as refused:
        popularity_of(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "says"), [("1 2 x", "could not convert"), ("0 0", "not all 0"), ("1 -2", "must be 0 or more")]
)
def test_counts_that_are_none_are_refused(tmp_path: Path, words: str, says: str) -> None:
    path = tmp_path / "counts.txt"
    path.write_text(words)
    with pytest.raises(FileError, match=says):
        popularity_of(str(path))


def test_counts_are_one_for_each_expert(tmp_path: Path) -> None:
    path = tmp_path / "counts.txt"
    path.write_text("\n".join(["3", "1"] * 8))
    counted = popularity_of(str(path))
    assert counted.kind == "counted"
    assert np.allclose(counted.shares(16)[:2], [3 / 32, 1 / 32])
    with pytest.raises(FileError, match="has 16 counts, the router 8 experts"):
        counted.shares(8)


LOADS = (
    (90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86),
    (20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27),
)
PLACED = (
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
)


@pytest.mark.parametrize("layer", range(2))
def test_copies_are_those_that_eplb_publishes(layer: int) -> None:
    """Source: README of deepseek-ai/EPLB at d52c72d, in facts moe.md 3.2."""
    assert copies(LOADS[layer], 16, 4, 2, 8).tolist() == PLACED[layer]


def test_copies_even_out_the_load_of_whole_experts() -> None:
    alone = most_over_mean(LOADS[0], np.arange(12), 4)
    assert most_over_mean(LOADS[0], copies(LOADS[0], 16, 1, 1, 4), 4) < alone
    whole = found(4, "log-normal:1.5").whole
    assert whole is not None
    assert 1 <= whole.most_with_copies <= whole.most
    assert found(4).whole is None
    assert popularity_of("uniform") is UNIFORM
