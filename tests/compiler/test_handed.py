"""What a block takes from the one before it: relayed with the right opcode, read wherever it is computed."""

import pytest
from drawn import hold_kinds

import compiler.latency
from lpu.check.findings import HazardError

RELAYED = 58  # a block that sends on, to ranks of its own, what came from another group
SPARED = 128  # a sum that the next block reads on fewer ranks than it asks for


def test_input_that_came_from_another_chip_is_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hold_kinds(RELAYED) == "held"
    monkeypatch.setattr(compiler.latency, "arrived", lambda *_: ())
    with pytest.raises(HazardError, match="its opcode must be FORWARD"):
        hold_kinds(RELAYED)


def test_no_chip_computes_what_the_next_block_does_not_read_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hold_kinds(SPARED) == "held"
    monkeypatch.setattr(compiler.latency, "_all_read", lambda _cache, _merged, calls: calls)  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    with pytest.raises(HazardError, match="makes a line that no row reads"):
        hold_kinds(SPARED)
