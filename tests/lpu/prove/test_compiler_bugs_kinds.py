"""Deliberate bugs in lowering experts, latents, windows and states: legal, and refused by the proof."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from models_named import of_model
from pairs import source
from shapes import SMALL
from slow import slow_but

from compiler.lower.context import Lowering
from compiler.lower.rows import Kernels, RowBuilder
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.isa import Kernel, Op
from compiler.program.program import Program
from fabric.rack import load_rack
from lpu.check.check import check
from lpu.prove.prove import prove
from models.catalog import catalog
from models.config import TransformerConfig
from models.configs.hybrid import HybridConfig
from models.step import family_step

Entries = np.ndarray | None
Change = Callable[[np.ndarray], np.ndarray]
MODELS: dict[str, TransformerConfig] = {
    "experts": replace(catalog("moe-tiny"), vocab=100, layers=1, experts=4),
    "grouped": replace(catalog("deepseek-tiny"), vocab=100, layers=2, ffn=64, experts=8, chosen=2),
    "latent": replace(catalog("mla-tiny"), vocab=100, layers=1, ffn=64),
    "windows": replace(
        SMALL, layers=1, vocab=100, ffn=64, window=10, attention_block=16, attention_cap=5.0,
        attention_scale=0.2, sinks=True,
    ),
    "span": replace(SMALL, layers=1, vocab=100, ffn=64, span=12, kinds=("span",), attention_block=16),
    "states": HybridConfig(
        name="states", family="hybrid", layers=1, hidden=96, heads=1, kv_heads=1, head_dim=2, ffn=1,
        vocab=100, tied=False, rope_theta=1e4, eps=1e-5, max_context=80, source="made up for tests",
        pattern=("M",), channels=160, states=12, ssm_heads=10, groups=2, step_low=0.01, step_high=0.2,
    ),
}  # fmt: skip
MODELS["squared"] = replace(
    MODELS["states"], pattern=("E",), squared=True, experts=4, chosen=2, expert_ffn=160, score="sigmoid"
)
SPAN = 40


def rolled(by: int) -> Change:
    """Index i becomes i + by, around the end; padding stays."""
    return lambda entries: np.where(entries >= 0, (entries + by) % (entries.max() + 1), -1)


def half_turned(entries: np.ndarray) -> np.ndarray:
    """The first half of all indices is the second."""
    size = int(entries.max()) + 1
    return np.where(entries >= 0, (entries + size // 2) % size, -1)


def backwards(entries: np.ndarray) -> np.ndarray:
    return np.where(entries >= 0, entries.max() - entries, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One bug: maps of tensors whose names end so, other tensors, numbers of kernels, exchanged operands."""

    model: str
    rows: dict[str, Change] = field(default_factory=dict[str, Change])
    columns: dict[str, Change] = field(default_factory=dict[str, Change])
    tensors: dict[str, str] = field(default_factory=dict[str, str])
    kernels: dict[str, Any] = field(default_factory=dict[str, Any])
    exchanged: int = -1


def _both(matrix: str, change: Change) -> dict[str, Change]:
    return {f"{matrix}.codes": change, f"{matrix}.exponent": change}


BUGS: dict[str, Bug] = {
    "gate and up of experts exchanged": Bug(model="experts", columns=_both(".gate_up", half_turned)),
    "rows of every expert's down off by one": Bug(model="experts", rows={".down.codes": rolled(1)}),
    "columns of every expert's down backwards": Bug(model="experts", columns=_both(".down", backwards)),
    "scales of gate on up": Bug(model="experts", columns={".gate_up.exponent": half_turned}),
    "input of experts from the end": Bug(model="experts", rows={".gate_up.codes": backwards}),
    "router's rows backwards": Bug(model="experts", rows={".router.halves": backwards}),
    "experts chosen by the scores of their neighbours": Bug(
        model="experts", columns={".router.halves": rolled(1)}
    ),
    "router's powers of the next expert": Bug(model="experts", columns={".router.exponent": rolled(1)}),
    "the shares of chosen experts as they are": Bug(model="experts", kernels={"renormalise": False}),
    "gelu in experts": Bug(model="experts", kernels={"activation": "gelu"}),
    "router's bias dropped": Bug(model="grouped", kernels={"sigmoid": False, "scores": False}),
    "router's bias of the next expert": Bug(model="grouped", columns={".router.bias": rolled(1)}),
    "bias for powers": Bug(model="grouped", tensors={".router.bias": ".router.exponent"}),
    "groups of experts ignored": Bug(model="grouped", kernels={"groups": 1, "keep": 1}),
    "a group more": Bug(model="grouped", kernels={"keep": 3}),
    "shares not scaled": Bug(model="grouped", kernels={"scale": lambda s: 1.0 if s == 2.5 else s}),
    "columns of experts without a gate off by one": Bug(model="squared", columns=_both(".up", rolled(1))),
    "scales of experts without a gate turned": Bug(model="squared", columns={".up.exponent": half_turned}),
    "latents in another order": Bug(model="latent", columns=_both(".kv_a", backwards)),
    "latents of another rank": Bug(model="latent", rows={".expand.codes": rolled(1)}),
    "the next head's matrix of latents": Bug(model="latent", columns=_both(".q_nope", rolled(32))),
    "the next head's turned queries": Bug(model="latent", columns=_both(".q_rope", rolled(32))),
    "the next head's values": Bug(model="latent", rows={".o.codes": rolled(32)}),
    "norm of queries backwards": Bug(model="latent", columns={".q_norm.gain": backwards}),
    "scores of latents twice as large": Bug(model="latent", kernels={"sigma": lambda sigma: 2 * sigma}),
    "latents in a window": Bug(model="latent", kernels={"window": 3}),
    "a cap on scores of latents": Bug(model="latent", kernels={"cap": 2.0}),
    "a window that is one too short": Bug(model="windows", kernels={"window": lambda w: w - 1}),
    "no cap on scores": Bug(model="windows", kernels={"cap": 0.0}),
    "scores as of other heads": Bug(model="windows", kernels={"scale": 0.0}),
    "no sinks": Bug(model="windows", kernels={"sinks": False}),
    "sinks of the other heads": Bug(model="windows", columns={".sinks": rolled(1)}),
    "a span that is one too long": Bug(model="span", kernels={"span": lambda s: s + 1}),
    "the first tap for the second": Bug(model="states", tensors={".conv_x.tap1": ".conv_x.tap0"}),
    "taps of the next channel": Bug(model="states", columns={".conv_bc.tap2": rolled(1)}),
    "no bias of a convolution": Bug(model="states", kernels={"biased": False}),
    "D for decays": Bug(model="states", tensors={".step.decay": ".step.through"}),
    "decays of the next channel": Bug(model="states", columns={".step.decay": rolled(1)}),
    "time steps not clamped": Bug(model="states", kernels={"high": 1e9}),
    "time steps clamped higher": Bug(model="states", kernels={"low": 0.02}),
    "B and C exchanged": Bug(model="states", columns=_both(".bc", half_turned)),
    "values gate their gates": Bug(model="states", exchanged=Op.GATE),
}  # fmt: skip
QUICK = ("gate and up of experts exchanged", "latents in a window", "no bias of a convolution")


def compiled(model: str) -> Program:
    config = MODELS[model]
    step = family_step(config, batch=1, context=SPAN)
    options = CompileOptions(tp=2, pp=1)
    return of_model(compile_program(source(step, (SPAN,)), load_rack("pair"), options), config)


def spoil(monkeypatch: pytest.MonkeyPatch, bug: Bug) -> None:
    """Put one bug into the compiler."""
    slot, index, add = Lowering.slot, Kernels.index, RowBuilder.add

    def mapped(entries: Entries, name: str, changes: dict[str, Change]) -> Entries:
        change = next((one for end, one in changes.items() if name.endswith(end)), None)
        return entries if entries is None or change is None else change(entries)

    def bad_slot(low: Lowering, value: int, rows: Entries, columns: Entries) -> int:
        name = low.graph.values[value].name
        for old, new in bug.tensors.items():
            if old in name:
                other = name.replace(old, new)
                value = next(one.index for one in low.graph.values if one.name == other)
        return slot(low, value, mapped(rows, name, bug.rows), mapped(columns, name, bug.columns))

    def bad_index(kernels: Kernels, kernel: Kernel) -> int:
        changed = {
            name: new(getattr(kernel, name)) if callable(new) else new
            for name, new in bug.kernels.items()
            if hasattr(kernel, name)
        }
        return index(kernels, replace(kernel, **changed))

    def bad_add(rows: RowBuilder, op: Any, **fields: Any) -> np.ndarray:
        if np.ndim(op) == 0 and op == bug.exchanged:
            fields["src_tag"], fields["src2_tag"] = fields["src2_tag"], fields["src_tag"]
        return add(rows, op, **fields)

    monkeypatch.setattr(Lowering, "slot", bad_slot)
    monkeypatch.setattr(Kernels, "index", bad_index)
    monkeypatch.setattr(RowBuilder, "add", bad_add)


@pytest.mark.parametrize("model", slow_but(["latent"], MODELS))
def test_without_a_bug_it_is_proved_and_there_are_enough_bugs(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {bug.model for bug in BUGS.values()} == {*MODELS}
    assert len(BUGS) >= 20
    spoil(monkeypatch, Bug(model=model))
    program = compiled(model)
    assert check(program, SPAN).ok
    found = prove(program)
    assert found.ok, found.reason


@pytest.mark.parametrize("name", slow_but(QUICK, BUGS))
def test_a_bug_passes_the_checker_and_not_the_proof(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, BUGS[name])
    program = compiled(BUGS[name].model)
    assert check(program, SPAN).ok
    found = prove(program)
    assert not found.ok
    assert found.reason
