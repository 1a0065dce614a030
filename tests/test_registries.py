"""What is known of an op is one record in each room: no registry may lack what the others have."""

from collections.abc import Iterator
from typing import Any

import pytest

from compiler import timing
from compiler.lower import rules
from compiler.program.instruction_set import INSTRUCTIONS, KERNELS
from compiler.program.isa import TRANSFER, Op
from lpu.check.cycles import CYCLES
from lpu.prove.ops.registry import PROVED
from lpu.run.ops.registry import EXECUTED
from models.contract.ops import OPS

UNITS = INSTRUCTIONS.keys() - {Op.SEND, Op.FORWARD}  # links carry the others: their cycles are the link's
REGISTRIES: dict[str, tuple[dict[Any, Any], Any]] = {
    "compiler.timing": (timing.RULES, UNITS),
    "lpu.check.cycles": (CYCLES, UNITS),
    "lpu.run.ops.registry": (EXECUTED, INSTRUCTIONS.keys()),
    "lpu.prove.ops.registry": (PROVED, INSTRUCTIONS.keys()),
    "compiler.lower.rules": (rules.RULES, OPS.keys()),
    "compiler.program.instruction_set": (
        KERNELS,
        {kernel.family for one in INSTRUCTIONS.values() for kernel in (one.kernel, *one.forms)},
    ),
}


def gaps() -> Iterator[str]:
    """What each registry lacks, or has although nothing else knows of it."""
    for name, (table, wanted) in REGISTRIES.items():
        yield from (f"{name} lacks {key!r}" for key in sorted(wanted - table.keys()))
        yield from (f"only {name} has {key!r}" for key in sorted(table.keys() - wanted))


def test_all_registries_know_the_same_ops_and_opcodes() -> None:
    assert list(gaps()) == []


def test_every_number_is_an_op_of_the_language_and_every_kernel_a_record_of_its_own() -> None:
    assert INSTRUCTIONS.keys() == set(Op)
    assert all(record.op == op for op, record in INSTRUCTIONS.items())
    assert all(record.op == op for op, record in EXECUTED.items())
    assert KERNELS[TRANSFER.family] is type(TRANSFER)


@pytest.mark.parametrize("name", REGISTRIES)
def test_a_record_that_is_missing_or_alone_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table, _ = REGISTRIES[name]
    key = next(key for key in table if key not in (Op.SEND, Op.FORWARD))
    alone: Any = "alone" if isinstance(key, str) else 255
    monkeypatch.setitem(table, alone, table[key])
    monkeypatch.delitem(table, key)
    assert list(gaps()) == [f"{name} lacks {key!r}", f"only {name} has {alone!r}"]
