"""What a block takes from the one before it: relayed with the right opcode, read wherever it is computed."""

from pathlib import Path
from typing import Any

import pytest
from drawn import hold_kinds

import compiler.latency
import compiler.template_cache
import compiler.throughput.stage
from lpu import api
from lpu.check.findings import HazardError
from lpu.prove.refused import RefusedError

RELAYED = 58  # a block that sends on, to ranks of its own, what came from another group
SPARED = 128  # a sum that the next block reads on fewer ranks than it asks for


def test_input_that_came_from_another_chip_is_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hold_kinds(RELAYED) == "held"
    monkeypatch.setattr(compiler.template_cache, "arrived", lambda *_: ())  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    with pytest.raises(HazardError, match="its opcode must be FORWARD"):
        hold_kinds(RELAYED)


def test_no_chip_computes_what_the_next_block_does_not_read_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hold_kinds(SPARED) == "held"
    monkeypatch.setattr(compiler.latency, "_all_read", lambda _cache, _merged, calls: calls)  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    with pytest.raises(HazardError, match="makes a line that no row reads"):
        hold_kinds(SPARED)


WIDE = """
source: "own: two layers as wide as those of qwen2.5-7b, whose sums are dealt in tiles over eight chips"
layers: 2
hidden: 3584
heads: 28
kv_heads: 4
head_dim: 128
ffn: 18944
vocab: 640
rope_theta: 10000.0
eps: 1.0e-5
"""


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_input_that_was_summed_beside_its_owner_is_forwarded_too(
    objective: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text(WIDE)
    how: dict[str, Any] = {"rack": "lpx-tray", "tp": 8, "context": 64, "objective": objective}
    api.compile(path, **how)
    for room in (compiler.template_cache, compiler.throughput.stage):
        monkeypatch.setattr(room, "arrived", lambda *_: ())  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    with pytest.raises((HazardError, RefusedError), match=r"must be FORWARD|before layers\.0\.ffn is done"):
        api.compile(path, **how)
