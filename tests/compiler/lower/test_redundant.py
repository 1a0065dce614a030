"""Products that ranks compute by themselves: no rank keeps an input of which it multiplies nothing."""

from pathlib import Path

import numpy as np
import pytest

import compiler.lower.ops.matmul
from lpu import api
from lpu.check.findings import HazardError

LATENT = """
source: "own: latent attention of fewer heads than ranks, its latents wide enough for all of them"
family: deepseek
layers: 1
hidden: 1024
heads: 5
kv_heads: 1
head_dim: 64
q_lora: 768
kv_lora: 512
nope: 32
rope: 32
value: 32
ffn: 352
vocab: 259
rope_theta: 10_000.0
eps: 1.0e-5
"""


def test_latents_are_shared_where_copies_would_leave_ranks_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "latent.yaml"
    path.write_text(LATENT)
    api.compile(path, rack="lpx-tray", tp=8, context=64)
    monkeypatch.setattr(compiler.lower.ops.matmul, "_idle", lambda *_: np.zeros(8, bool))  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    with pytest.raises(HazardError, match="makes a line that no row reads"):
        api.compile(path, rack="lpx-tray", tp=8, context=64)
