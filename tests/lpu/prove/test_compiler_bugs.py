"""Deliberate bugs in lowering, one at a time: programs that pass the checker, and that the proof refuses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from models_named import of_model
from pairs import source
from shapes import SMALL

from compiler.lower.context import Lowering
from compiler.lower.rows import Kernels, RowBuilder
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.isa import Kernel, Op
from compiler.program.program import Program
from fabric.rack import load_rack
from lpu.check.check import check
from lpu.prove.prove import prove
from models.step import family_step

Entries = np.ndarray | None
Maps = Callable[[str, Entries, Entries], tuple[Entries, Entries]]
HEAD = SMALL.head_dim


def compiled() -> Program:
    step = family_step(SMALL, batch=1, context=80)
    return of_model(
        compile_program(source(step, (80,)), load_rack("pair"), CompileOptions(tp=2, pp=1)), SMALL
    )


def rolled(by: int) -> Callable[[np.ndarray], np.ndarray]:
    """Index i becomes i + by, around the end; padding stays."""
    return lambda entries: np.where(entries >= 0, (entries + by) % (entries.max() + 1), -1)


def backwards(entries: np.ndarray) -> np.ndarray:
    return np.where(entries >= 0, entries.max() - entries, -1)


def of_rows(change: Callable[[np.ndarray], np.ndarray], *ends: str) -> Maps:
    def maps(name: str, rows: Entries, columns: Entries) -> tuple[Entries, Entries]:
        return (change(rows) if rows is not None and name.endswith(ends) else rows), columns

    return maps


def of_columns(change: Callable[[np.ndarray], np.ndarray], *ends: str) -> Maps:
    def maps(name: str, rows: Entries, columns: Entries) -> tuple[Entries, Entries]:
        return rows, (change(columns) if columns is not None and name.endswith(ends) else columns)

    return maps


def both(matrix: str) -> tuple[str, str]:
    """The codes of a matrix and their scales."""
    return f"{matrix}.codes", f"{matrix}.exponent"


MAPS: dict[str, Maps] = {
    "rows of q off by one": of_rows(rolled(1), ".q.codes"),
    "heads of o in another order": of_rows(rolled(HEAD), ".o.codes"),
    "rows of down off by one": of_rows(rolled(1), ".down.codes"),
    "rows of the head backwards": of_rows(backwards, "head.codes"),
    "query heads in another order": of_columns(rolled(HEAD), *both(".q")),
    "heads of K in another order": of_columns(rolled(HEAD), *both(".k")),
    "heads of V in another order": of_columns(rolled(HEAD), *both(".v")),
    "columns of gate off by one": of_columns(rolled(1), *both(".gate")),
    "columns of up backwards": of_columns(backwards, *both(".up")),
    "columns of o off by one": of_columns(rolled(1), *both(".o")),
    "columns of down backwards": of_columns(backwards, *both(".down")),
    "columns of the head off by one": of_columns(rolled(1), *both("head")),
    "codes of gate off by one, right scales": of_columns(rolled(1), ".gate.codes"),
    "scales of down off by one": of_columns(rolled(1), ".down.exponent"),
    "attention gain backwards": of_columns(backwards, ".attention.norm.gain"),
    "gain of the FFN off by one": of_columns(rolled(1), ".ffn.norm.gain"),
    "embedding columns backwards": of_columns(backwards, "embed.table"),
}
TENSORS: dict[str, dict[str, str]] = {
    "gate is up": {".gate.codes": ".up.codes", ".gate.exponent": ".up.exponent"},
    "gate and up exchanged": {".gate.": ".up.", ".up.": ".gate."},
    "K and V exchanged": {".k.": ".v.", ".v.": ".k."},
    "scales of gate are those of up": {".gate.exponent": ".up.exponent"},
}
KERNELS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "another eps": {"eps": lambda value: 10 * value},
    "another block of attention": {"block": lambda value: value + 1},
    "gelu for silu": {"activation": lambda value: "gelu"},
    "a feature less in the mean": {"width": lambda value: value - 1},
}
ROWS: dict[str, int] = {"operands of KVW exchanged": Op.KVW, "operands of GLU exchanged": Op.GLU}


def spoil(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """Put one bug into the compiler."""
    slot, index, add = Lowering.slot, Kernels.index, RowBuilder.add

    def bad_slot(low: Lowering, value: int, rows: Entries, columns: Entries) -> int:
        name = low.graph.values[value].name
        if bug in MAPS:
            return slot(low, value, *MAPS[bug](name, rows, columns))
        for old, new in TENSORS.get(bug, {}).items():
            if old in name:
                other = name.replace(old, new)
                value = next(one.index for one in low.graph.values if one.name == other)
                break
        return slot(low, value, rows, columns)

    def bad_index(kernels: Kernels, kernel: Kernel) -> int:
        changed = {n: f(getattr(kernel, n)) for n, f in KERNELS.get(bug, {}).items() if hasattr(kernel, n)}
        return index(kernels, replace(kernel, **changed))

    def bad_add(rows: RowBuilder, op: Any, **fields: Any) -> np.ndarray:
        if bug in ROWS and np.ndim(op) == 0 and op == ROWS[bug]:
            fields["src_tag"], fields["src2_tag"] = fields["src2_tag"], fields["src_tag"]
        return add(rows, op, **fields)

    monkeypatch.setattr(Lowering, "slot", bad_slot)
    monkeypatch.setattr(Kernels, "index", bad_index)
    monkeypatch.setattr(RowBuilder, "add", bad_add)


BUGS = (*MAPS, *TENSORS, *KERNELS, *ROWS)


def test_without_a_bug_it_is_proved_and_there_are_enough_bugs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(set(BUGS)) >= 20
    spoil(monkeypatch, "none")
    program = compiled()
    assert check(program, 80).ok
    assert prove(program).ok


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_passes_the_checker_and_not_the_proof(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, bug)
    program = compiled()
    assert str(check(program, 80)).endswith("all 8 rules hold")
    found = prove(program)
    assert not found.ok
    assert found.reason
