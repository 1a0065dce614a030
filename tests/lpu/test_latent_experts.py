"""Latent attention with experts on chips: sigmoid routers, groups, a shared expert, a dense layer before."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from beside import compiled
from mixtures import assert_bits, drawn
from models_named import of_model
from slow import slow_but

from compiler.program.instructions.experts import RankKernel, ShareKernel
from compiler.program.isa import Op
from compiler.program.program import Program
from compiler.timing import timing
from fabric.rack import load_rack
from lpu.check.check import check
from lpu.prove.prove import prove
from models.catalog import catalog
from models.configs.latent import LatentExpertsConfig
from models.contract.experts.route import score_route, score_share


def tiny() -> LatentExpertsConfig:
    """DeepSeek-V3 in seconds."""
    found = catalog("deepseek-tiny")
    assert isinstance(found, LatentExpertsConfig)
    return replace(found, layers=2, max_context=80)


TINY = tiny()
MANY = replace(TINY, name="many", dense=0, layers=1, experts=80, chosen=3, groups=1, keep=1, scale=1.5)
CASES: dict[str, tuple[LatentExpertsConfig, str, int, dict[str, Any]]] = {
    "one chip": (TINY, "pair", 1, {"tp": 1}),
    "columns of two chips, three rows": (TINY, "pair", 3, {"tp": 2}),
    "2d": (TINY, "quad", 2, {"tp": 4, "layout": "2d"}),
    "rows": (replace(TINY, renormalise=False), "quad", 1, {"tp": 4, "layout": "row"}),
    "the shared expert in a line of its own": (MANY, "quad", 1, {"tp": 4}),
    "no shared expert": (replace(MANY, shared=0), "quad", 1, {"tp": 2}),
}


@cache
def mixed(name: str) -> Any:
    """(step, program) of a case, with its numbers in the manifest."""
    config, rack, batch, options = CASES[name]
    step, program = compiled(config, rack, contexts=(80,), batch=batch, pp=1, **options)
    return step, of_model(program, config)


QUICK = ("the shared expert in a line of its own",)


@pytest.mark.parametrize("name", slow_but(QUICK, CASES))
def test_bits_equal_the_model_and_the_program_is_proved(name: str) -> None:
    step, program = mixed(name)
    assert check(program, 80).ok
    found = prove(program)
    assert found.ok, found.reason
    assert_bits(step, program, drawn(step))


@pytest.mark.slow
@pytest.mark.parametrize("renormalise", [True, False])
def test_shares_by_expert_are_the_weights_that_the_router_gives(renormalise: bool) -> None:
    rng = np.random.default_rng(3)
    s = jnp.asarray(rng.uniform(0, 1, (7, 16)).astype(np.float32))
    bias = jnp.asarray(rng.normal(size=16).astype(np.float32))
    found = score_route(s, bias, 5, groups=4, keep=2, scale=2.5, renormalise=renormalise)
    chosen = (found.ids[..., None] == jnp.arange(16)).any(axis=-2)
    shares = np.asarray(score_share(s, chosen, scale=2.5, renormalise=renormalise))
    assert np.array_equal(np.take_along_axis(shares, np.asarray(found.ids), -1), np.asarray(found.weights))
    assert (shares[~np.asarray(chosen)] == 0).all()


def _kernels(kind: type, **changes: Any) -> Callable[[Program], Program]:
    def mutate(program: Program) -> Program:
        kernels = [replace(k, **changes) if isinstance(k, kind) else k for k in program.manifest.kernels]
        return replace(program, manifest=replace(program.manifest, kernels=tuple(kernels)))

    return mutate


def _block(program: Program) -> int:
    return next(
        i for i, b in enumerate(program.blocks) if any((c.op == Op.RANK).any() for c in b.columns.values())
    )


def _bias_and_scales_exchanged(program: Program) -> Program:
    """The slots of both vectors of a router, the one for the other."""
    at, blocks = _block(program), list(program.blocks)
    call = next(call for call in program.calls if call.block == at)
    one, other = (
        next(i for i, tensor in enumerate(call.tensors) if tensor.endswith(f"router.{name}"))
        for name in ("exponent", "bias")
    )
    tensor = blocks[at].loads.tensor
    swapped = np.where(tensor == one, other, np.where(tensor == other, one, tensor))
    blocks[at] = replace(blocks[at], loads=replace(blocks[at].loads, tensor=swapped))
    return replace(program, blocks=tuple(blocks))


MUTANTS: dict[str, Callable[[Program], Program]] = {
    "another scale": _kernels(ShareKernel, scale=2.0),
    "scores not shared out as such": _kernels(ShareKernel, scores=False),
    "not renormalised": _kernels(ShareKernel, renormalise=False),
    "no shared expert": _kernels(ShareKernel, shared=0),
    "more groups kept": _kernels(RankKernel, keep=3),
    "no groups": _kernels(RankKernel, groups=1, keep=1),
    "softmax": _kernels(RankKernel, sigmoid=False),
    "bias and scales exchanged": _bias_and_scales_exchanged,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_no_mutant_is_proved(name: str) -> None:
    _, program = mixed("columns of two chips, three rows")
    assert not prove(MUTANTS[name](program)).ok


@pytest.mark.parametrize(
    "name", ["scores not shared out as such", "no shared expert", "softmax", "groups that do not fit"]
)
def test_the_checker_finds_routers_that_disagree(name: str) -> None:
    mutants = MUTANTS | {"groups that do not fit": _kernels(RankKernel, groups=5)}
    _, program = mixed("columns of two chips, three rows")
    assert not check(mutants[name](program), 80).ok


def test_sigmoids_and_groups_take_cycles() -> None:
    chip = load_rack("lpx").chip
    soft = RankKernel(experts=256, chosen=8, first=0)
    plain, sigmoid, grouped = (
        timing(Op.RANK, 1, kernel, chip, 1)
        for kernel in (
            soft,
            replace(soft, sigmoid=True),
            replace(soft, sigmoid=True, groups=8, keep=4),
        )
    )
    assert int(plain[0]) == 64  # 80 x 256 pairs in 320 lanes
    assert int(sigmoid[0]) == 64 + 7
    assert int(grouped[0]) == 2 * 64 + 7
    assert int(grouped[1] - grouped[0] - plain[1] + plain[0]) == 2 * chip.lane_reduce_cycles
