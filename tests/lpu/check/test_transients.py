"""The checker's search for producers against a line-by-line replay that anybody can follow."""

from typing import Any

import handmade as hand
import numpy as np
import pytest

from compiler.program.isa import COLUMNS, TAGS, Columns, Op
from compiler.program.manifest import Place
from lpu.check import transients as check_memory
from lpu.check.findings import Findings
from lpu.check.operands import Accesses, Operands
from lpu.check.rows import split
from lpu.check.stated import Stated

CHIPS, LINES = 2, 24


def _accesses(random: np.random.Generator, count: int, rows: np.ndarray, time: np.ndarray) -> Accesses:
    start = random.integers(0, LINES - 8, count)
    value = random.integers(0, 4, count)
    return Accesses(
        row=rows,
        chip=random.integers(0, CHIPS, count),
        start=start,
        stop=start + random.integers(1, 9, count),
        time=time,
        tag=np.where(value == 0, -1, (value << 40) + start),
        kind=np.full(count, -1),
    )


def _replay(writes: Accesses, reads: Accesses) -> dict[int, set[int]]:
    """Rows that break rule 2 or 7, found one line at a time."""
    broken: dict[int, set[int]] = {2: set(), 7: set()}
    listed: list[tuple[Any, ...]] = list(zip(*writes, strict=True))
    for row, chip, start, stop, time, tag, _ in zip(*reads, strict=True):
        for line in range(start, stop):
            here = [w for w in listed if w[1] == chip and w[2] <= line < w[3]]
            done = [w for w in here if w[4] <= time]
            if not done:
                broken[2].add(int(row))
                continue
            last = max(done, key=lambda w: w[4])
            wanted = tag + line - start
            if tag < 0 or last[5] < 0 or last[5] + line - last[2] == wanted:
                continue
            known = any(w[5] >= 0 and w[5] + line - w[2] == wanted for w in here)
            broken[2 if known else 7].add(int(row))
    return broken


@pytest.mark.parametrize("batch_lines", [1 << 24, 1])
@pytest.mark.parametrize("seed", range(20))
def test_producers_are_those_of_a_replay(
    seed: int, batch_lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_memory, "_BATCH_LINES", batch_lines)
    random = np.random.default_rng(seed)
    count = 12 + 4 * seed
    writes = _accesses(random, count, np.arange(count), random.permutation(count))
    reads = _accesses(random, count, count + np.arange(count), random.integers(0, 2 * count, count))
    columns = _columns(np.concatenate([writes.time, reads.time]))
    found = Findings(columns)
    stated = Stated.of(hand.manifest(token=Place(0, int(writes.start[0]))))
    check_memory.memory(found, stated, _operands(writes, reads))
    broken = _replay(writes, reads)
    uncovered = not (
        (writes.chip == 0) & (writes.start <= writes.start[0]) & (writes.stop > writes.start[0])
    ).any()
    assert found.counts[2] == len(broken[2]) + uncovered
    assert found.counts[7] == len(broken[7])
    assert found.counts[3] == 0


def _columns(time: np.ndarray) -> Columns:
    fields = {name: np.full(len(time), -1) for name in COLUMNS + TAGS}
    return Columns(**fields | {"op": np.full(len(time), int(Op.ADD)), "t0": time, "t1": time})


def _operands(writes: Accesses, reads: Accesses) -> Operands:
    nothing = reads.take(np.zeros(0, np.int64))
    others = dict.fromkeys(("weights", "kv_reads", "kv_writes", "renewed", "loaded"), nothing)
    return Operands(reads=reads, writes=writes, **others)


def test_split_cuts_every_interval_at_every_end() -> None:
    cuts = split(np.array([2, 4, 7]), np.array([6, 9, 9]), 10)
    assert cuts.interval.tolist() == [0, 0, 1, 1, 1, 2]
    assert cuts.begin.tolist() == [2, 4, 4, 6, 7, 7]
    assert len(np.unique(cuts.segment)) == 4
