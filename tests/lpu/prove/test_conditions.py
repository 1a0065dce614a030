"""No condition of a rule is idle: of each, some row is accepted as soon as this one alone is left out."""

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from proof_early import APPENDED
from proof_experts import SUMS
from proof_rows import Changes, Setting
from proof_rules import RULES

from compiler.program.isa import Op
from lpu.prove import known, lanes
from lpu.prove.ops import attention, experts, host, matmul, recurrent, taken, vector
from lpu.prove.ops.registry import PROVED
from lpu.prove.refused import RefusedError, need
from lpu.prove.rule import RowOperands

MODULES: tuple[ModuleType, ...] = (attention, experts, host, matmul, recurrent, taken, vector, known, lanes)
Place = tuple[str, int]
BACKED: dict[str, str] = {
    "reads no fp16 weights": "what is not there has no fields",
    "words beside a line, not": "they are counted again as they are read",
    "reads no KV region": "what is not there has no fields",
    "takes a message, this is no hop": "by a row of test_rules.py",
    "gives an answer, this is no hop": "by a row of test_rules.py",
    "moves KV or weights: no row of a step": "by a row of test_rules.py",
    "its operand has no lines": "the lines were counted by `of_kind`",
    "has no lines": "nothing has no first",
    "lines where a product has": "lines and scales are gone through side by side",
    "its operand has another number of lines": "lines that are not there cannot be read",
    "lanes in a line of": "a map cannot be shorter than what it holds",
}
"""Conditions that something else backs up wherever they fail, and what."""


def conditions() -> dict[tuple[str, int, int], str]:
    """The text of every condition, by file, first and last line."""
    out: dict[tuple[str, int, int], str] = {}
    for module in MODULES:
        path = Path(str(module.__file__))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "need":
                out[path.name, node.lineno, node.end_lineno or node.lineno] = ast.unparse(node.args[1])
    return out


class Left:
    """Stands in for `need`; leaves out the condition of one place, and notes which one failed."""

    def __init__(self) -> None:
        self.out: Place | None = None
        self.failed: Place | None = None

    def __call__(self, holds: bool, reason: str) -> None:
        frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        place = Path(frame.f_code.co_filename).name, frame.f_lineno
        if not holds and place != self.out:
            self.failed = place
            need(holds, reason)


Make = Callable[[Setting], tuple[RowOperands, Changes]]
ROWS: list[tuple[Op, Make]] = [
    *RULES.items(),
    *((Op.WB, make) for make in SUMS.values()),
    *((Op.KVW, make) for make in APPENDED.values()),
]


def accepted(op: Op, make: Make, words: str) -> bool:
    setting = Setting()
    good, changes = make(setting)
    try:
        PROVED[op].rule(setting.known, replace(good, **changes[words]))
    except (RefusedError, ArithmeticError, LookupError, ValueError, TypeError, AssertionError):
        return False
    return True


def alone(left: Left) -> Iterator[Place]:
    """Places of conditions without which a row that they refuse is accepted."""
    for op, make in ROWS:
        for words in make(Setting())[1]:
            left.out = left.failed = None
            assert not accepted(op, make, words), (op, words)
            if left.failed is not None:
                left.out = left.failed
                if accepted(op, make, words):
                    yield left.out


def test_of_every_condition_some_row_is_refused_by_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    left = Left()
    for module in MODULES:
        monkeypatch.setattr(module, "need", left)
    found = set(alone(left))
    stated = conditions()
    idle = {
        text
        for (file, first, last), text in stated.items()
        if not any(name == file and first <= at <= last for name, at in found)
    }
    unbacked = [text for text in idle if not any(words in text for words in BACKED)]
    assert not unbacked
    assert len(found) > len(stated) / 2
