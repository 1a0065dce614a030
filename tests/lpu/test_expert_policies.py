"""Policies for slots of experts: bits, the statements of check and proof, and what finds no slot, counted."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from beside import Arrays, bits
from mixtures import MIXTURE, assert_bits, drawn, mixture
from slow import slow_but

from compiler.errors import OptionError
from compiler.options import CompileOptions
from compiler.program.instructions.experts import SlotsKernel
from lpu.check.check import check
from lpu.prove.prove import prove
from lpu.run.error import MachineError
from lpu.run.machine import prepare
from lpu.run.overflow import Dropped, in_words
from lpu.run.streamed.stream import stream
from models.configs.experts import ExpertsConfig
from models.contract.experts.slots import table
from models.kv import empty_cache

ROWS = 3


@cache
def policy(experts: str, config: ExpertsConfig = MIXTURE, batch: int = ROWS) -> Any:
    return mixture(config, "pair", batch, (("tp", 2), ("pp", 1), ("experts", experts)))


QUICK = ("dense",)


@pytest.mark.parametrize("experts", slow_but(QUICK, ("dense", "capacity:6", "drop:7")))
def test_slots_that_suffice_have_the_models_bits_and_the_proof_of_any_input(experts: str) -> None:
    step, program = policy(experts)
    report, verdict = check(program, 80), prove(program)
    assert report.ok
    assert report.bound == verdict.bound == ""
    assert verdict.ok, verdict.reason
    assert "for every input (" in str(verdict)
    machine = assert_bits(step, program, drawn(step))
    assert machine.overflow.found() == ()


def test_dense_has_a_slot_for_each_expert() -> None:
    _, program = policy("dense")
    (kernel,) = [one for one in program.manifest.kernels if isinstance(one, SlotsKernel)]
    assert (kernel.slots, kernel.bounded) == (8, False)


def test_fewer_slots_than_rows_can_choose_are_stated_by_check_and_proof() -> None:
    _, program = policy("capacity:4")
    said = "whose rows choose at most 4 experts of a table"
    report, verdict = check(program, 80), prove(program)
    assert report.ok
    assert str(report).endswith(f"all 8 rules hold, for steps {said}")
    assert verdict.ok, verdict.reason
    assert f"for every input {said} (" in str(verdict)
    assert verdict.to_json()["inputs"] == f"for every input {said}"


def test_a_program_that_does_not_say_so_is_refused() -> None:
    _, program = policy("capacity:4")
    kernels = tuple(
        replace(one, bounded=False) if isinstance(one, SlotsKernel) else one
        for one in program.manifest.kernels
    )
    silent = replace(program, manifest=replace(program.manifest, kernels=kernels))
    assert not check(silent, 80).ok
    assert not prove(silent).ok


def test_a_program_says_it_only_where_slots_may_not_suffice() -> None:
    _, program = policy("exact")
    kernels = tuple(
        replace(one, bounded=True) if isinstance(one, SlotsKernel) else one
        for one in program.manifest.kernels
    )
    report = check(replace(program, manifest=replace(program.manifest, kernels=kernels)), 80)
    assert "says that slots may not suffice, has 6, 6 are enough" in str(report)


def test_a_run_within_its_capacity_has_the_models_bits() -> None:
    """All rows take the same experts, two of four slots."""
    step, program = policy("capacity:4")
    weights = {path: np.array(value) for path, value in drawn(step, 5).items()}
    weights["layers.0.ffn.router.halves"][:] = 0
    machine = assert_bits(step, program, weights)
    assert machine.overflow.found() == ()


def chosen(step: Any, weights: Arrays, tokens: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Which experts each row takes, [rows, experts]: of the model itself, equation by equation."""
    params = {name: jnp.asarray(value) for name, value in weights.items()}
    inputs = (params, jnp.asarray(tokens), jnp.asarray(at), empty_cache(step.cache))
    closed = jax.make_jaxpr(step.fn)(*inputs)
    held = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    held |= dict(zip(closed.jaxpr.invars, jax.tree.leaves(inputs), strict=True))
    for equation in closed.jaxpr.eqns:
        operands = [
            one.val if isinstance(one, jax.extend.core.Literal) else held[one] for one in equation.invars
        ]
        made = equation.primitive.bind(*operands, **equation.params)
        made = made if equation.primitive.multiple_results else [made]
        if equation.primitive.name == "lpu_route":
            return np.asarray(made[0]) != 0
        held |= dict(zip(equation.outvars, made, strict=True))
    raise AssertionError("no equation of the model routes")


def test_what_finds_no_slot_stops_a_run_or_is_left_out_and_counted() -> None:
    step, stops = policy("capacity:2")
    _, drops = policy("drop:2")
    weights = drawn(step)
    tokens, at = np.arange(3, 3 + ROWS, dtype=np.int32), np.zeros(ROWS, np.int32)
    picked = chosen(step, weights, tokens, at)
    distinct = np.flatnonzero(picked.any(axis=0))
    left_out = distinct[2:]
    assert len(left_out) > 0
    machine = prepare(stops, weights)
    with pytest.raises(
        MachineError, match=rf"its rows choose {len(left_out)} experts more than a table has slots"
    ):
        machine.step(machine.start(), tokens, at)
    machine = prepare(drops, weights)
    found = machine.step(machine.start(), tokens, at)
    assert machine.overflow.found() == (
        Dropped(call="layers.0", steps=1, experts=len(left_out), choices=int(picked[:, left_out].sum())),
    )
    params = {name: jnp.asarray(value) for name, value in weights.items()}
    logits, _, _ = jax.jit(step.fn)(params, jnp.asarray(tokens), jnp.asarray(at), empty_cache(step.cache))
    hurt = picked[:, left_out].any(axis=1)
    same = np.array([bits(found.logits[i]) == bits(logits[i]) for i in range(ROWS)])
    assert (same == ~hurt).all()
    assert f"of {len(left_out)} experts in 1 tables of steps" in in_words(machine.overflow.found())
    machine.start()
    assert machine.overflow.found() == ()


def test_a_streamed_program_must_have_enough_slots() -> None:
    step, program = policy("capacity:2")
    with pytest.raises(MachineError, match="streaming does not count experts without a slot"):
        stream(program, drawn(step))


@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_last_experts_come_first_where_they_must(first: int) -> None:
    weights = jnp.asarray(np.eye(6, dtype=np.float32)[[0, 3, 5, 4]])
    ids = table(weights, 3, first).ids.tolist()
    assert ids == [*[4, 5][2 - first :], 0, 3, 4][:3]


def test_more_slots_than_rows_choose_are_no_more_rows() -> None:
    (one, other) = (policy(name)[1] for name in ("exact", "capacity:7"))
    assert one.manifest.kernels == other.manifest.kernels


@pytest.mark.parametrize(
    ("experts", "says"),
    [
        ("replicate", "every chip of a group has a part of every expert already"),
        ("capacity", "'capacity' is unknown. Choose one of exact, dense, capacity:N, drop:N."),
        ("capacity:0", "is unknown"),
        ("drop:-2", "is unknown"),
        ("dense:3", "is unknown"),
    ],
)
def test_another_policy_is_refused_by_name(experts: str, says: str) -> None:
    with pytest.raises(OptionError) as refused:
        CompileOptions(experts=experts)
    assert says in str(refused.value)


def test_slots_for_less_than_a_row_are_refused() -> None:
    with pytest.raises(OptionError, match="with 1 slots: is less than the 2 experts that each row takes"):
        policy("capacity:1")


def test_a_model_without_experts_takes_no_policy() -> None:
    from beside import compiled

    from models.catalog import catalog

    with pytest.raises(OptionError, match=r"--experts dense: .* has no experts"):
        compiled(catalog("llama-tiny"), "pair", tp=1, pp=1, experts="dense")
