"""Programs that are legal and compute something else: the proof refuses every one of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from faults import same
from models_named import of_model
from mutations import bucket, mutated, sources
from pairs import compiled_pair
from shapes import SMALL

from compiler.program.isa import TILE, Op
from compiler.program.program import Program
from lpu.check.check import check
from lpu.link.link import link
from lpu.prove.prove import prove

WIDE = replace(SMALL, max_context=160)
SEEDS = 48


@pytest.fixture(scope="module")
def legal() -> Program:
    """Two buckets on the two chips of `pair`."""
    return of_model(compiled_pair(WIDE, 8, rack="pair", contexts=(80, 160), tp=2, pp=1)[1], WIDE)


def is_legal(program: Program) -> bool:
    return all(check(program, context).ok for context in program.manifest.contexts)


def with_block(program: Program, name: str, change: Callable[[Any], Any]) -> Program:
    blocks = tuple(change(one) if one.name.endswith(name) else one for one in program.blocks)
    return replace(program, blocks=blocks)


def layers_exchanged(program: Program) -> Program:
    calls = list(program.calls)
    one, other = (i for i, call in enumerate(calls) if call.name.startswith("layers."))
    first, second = calls[one], calls[other]
    calls[one], calls[other] = (
        replace(first, tensors=second.tensors),
        replace(second, tensors=first.tensors),
    )
    return replace(program, calls=tuple(calls))


def map_rolled(program: Program) -> Program:
    return with_block(
        program, "head", lambda block: replace(block, maps=(np.roll(block.maps[0], 1), *block.maps[1:]))
    )


def tile_tensor(program: Program) -> Program:
    def change(block: Any) -> Any:
        tensor, tiles = block.loads.tensor.copy(), np.flatnonzero(block.loads.kind == TILE)
        other = next(i for i in tiles if tensor[i] != tensor[tiles[0]])
        tensor[[tiles[0], other]] = tensor[[other, tiles[0]]]
        return replace(block, loads=replace(block.loads, tensor=tensor))

    return with_block(program, "layers.0", change)


def kernels(**changed: Any) -> Callable[[Program], Program]:
    def change(program: Program) -> Program:
        new = [
            replace(one, **{n: f(getattr(one, n)) for n, f in changed.items() if hasattr(one, n)})
            for one in program.manifest.kernels
        ]
        return replace(program, manifest=replace(program.manifest, kernels=tuple(new)))

    return change


def kv_exchanged(program: Program) -> Program:
    for seed in range(50):
        found = sources(program, np.random.default_rng(seed))
        if found is not None and any(
            (block.columns[80].src != before.columns[80].src)[before.columns[80].op == Op.KVW].any()
            for block, before in zip(found.blocks, program.blocks, strict=True)
        ):
            return found
    raise AssertionError("no seed exchanges K and V")


CASES: dict[str, tuple[Callable[[Program], Program], str]] = {
    "kv_exchanged": (kv_exchanged, "is not in the model"),
    "layers_exchanged": (layers_exchanged, "layers."),
    "map_rolled": (map_rolled, ""),
    "tile_tensor": (tile_tensor, ""),
    "block": (kernels(block=lambda v: v + 1), "attention"),
    "width": (kernels(width=lambda v: v - 1), "features"),
    "activation": (kernels(activation=lambda v: "gelu"), "glu(matmul<layers.0.ffn.gate.codes"),
    "eps": (kernels(eps=lambda v: v * 2), "rms_stat"),
    "head_dim": (kernels(head_dim=lambda v: v - 2), ""),
    "vocab": (lambda p: replace(p, manifest=replace(p.manifest, vocab=p.manifest.vocab - 1)), "vocab"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_program_that_computes_something_else_is_refused(name: str, legal: Program) -> None:
    change, words = CASES[name]
    found = prove(change(legal))
    assert not found.ok
    assert words in found.reason


def test_the_program_itself_is_proved(legal: Program) -> None:
    assert is_legal(legal)
    assert prove(legal).ok


def test_heads_exchanged_in_one_bucket_are_legal_in_all_and_refused() -> None:
    """A chip with two KV heads: in each bucket the logits are right, from the next bucket on they are not."""
    program = of_model(compiled_pair(WIDE, 8, rack="pair", contexts=(80, 160), tp=1, pp=1)[1], WIDE)
    made = next(
        found
        for seed in range(50)
        if (found := bucket(program, np.random.default_rng(seed))) is not None
        and any(a is not b for a, b in zip(found.blocks, program.blocks, strict=True))
    )
    assert is_legal(made)
    found = prove(made)
    assert "holds head" in found.reason
    assert "context" in found.reason


def flows(program: Program) -> list[Any]:
    return [
        link(program.manifest, program.loads(), program.expand(context))
        for context in program.manifest.contexts
    ]


def test_no_mutation_passes_both_the_checker_and_the_proof_unless_it_changes_no_dataflow(
    legal: Program,
) -> None:
    before, counts = flows(legal), {"illegal": 0, "refused": 0, "harmless": 0}
    for seed in range(SEEDS):
        made = mutated(legal, seed)
        if made is None:
            continue
        kind, program = made
        if not prove(program).ok:
            counts["refused"] += 1
        elif not is_legal(program):
            counts["illegal"] += 1
        else:
            after = flows(program)
            assert all(same(a, b) for a, b in zip(before, after, strict=True)), (seed, kind)
            counts["harmless"] += 1
    assert counts["refused"] > SEEDS // 3
