"""Every number of every kernel says something: with another one a program is refused."""

from dataclasses import fields, replace
from typing import Any

import pytest
from subjects import DECODE, FOLDERS, folder_of

from compiler.program.instructions.attention import AttentionKernel
from compiler.program.instructions.experts import RankKernel, ShareKernel, SlotsKernel
from compiler.program.isa import Kernel
from compiler.program.manifest import Step
from compiler.program.program import Program
from lpu.prove.prove import prove

SILENT: dict[tuple[str, str], str] = {
    ("rstat", "each"): "where lines end, which lines say themselves; the checker holds it",
    ("rope", "stride"): "how the table lies; the checker holds it",
    ("attention", "run"): "of a head in one region",
    ("latent", "run"): "of a head in one region",
    ("rank", "groups"): "of a softmax, which knows no groups",
    ("rank", "keep"): "of a softmax, which knows no groups",
    ("share", "scale"): "of a softmax, which is not scaled",
    ("slots", "bounded"): "the verdict says for which inputs it holds, and `lpu check` counts slots",
    **{
        (family, name): "of early blocks in DDR5, where there are none"
        for family in ("attention", "latent")
        for name in ("reservoir", "host_slot")
    },
}
"""What a proof does not look at, and why."""
WORDS = {"silu": "gelu", "gelu": "silu", "fp16": "fp8", "fp8": "fp16", "f32": "f16", "f16": "f32"}
KINDS = [name for name in FOLDERS if name not in ("moves", "waves", "hops")]


def others(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, max(value - 1, 0), 1]
    return [WORDS.get(value, "silu")] if isinstance(value, str) else [2 * value or 1.5]


def is_silent(kernel: Kernel, name: str) -> bool:
    if (kernel.family, name) not in SILENT:
        return False
    if isinstance(kernel, AttentionKernel) and name != "run":
        return kernel.early == 0
    if isinstance(kernel, RankKernel):
        return not kernel.sigmoid
    return not isinstance(kernel, ShareKernel) or not kernel.scores


def says_the_same(program: Program, kernel: Any, name: str) -> bool:
    """Whether a chunk, or a run of a stripe, holds all tokens still; or the router has as many shared."""
    longest, every = max(program.manifest.contexts), program.manifest.kernels
    if name == "chunk":
        return kernel.chunk >= longest
    if name == "stripes":
        return kernel.run >= longest
    shared = {one.shared for one in every if isinstance(one, ShareKernel)}
    return isinstance(kernel, SlotsKernel) and name == "shared" and shared == {kernel.shared}


def used(program: Program) -> list[int]:
    """The first kernel of each family that rows have; of attention all, as layers differ in it."""
    rows = {
        int(aux)
        for block in program.blocks
        for columns in block.columns.values()
        for op, aux in zip(columns.op, columns.aux, strict=True)
        if op > 1
    }
    every = program.manifest.kernels
    first = {every[at].family: at for at in sorted(rows, reverse=True)}
    return sorted({*first.values(), *(at for at in rows if "attention" in every[at].family)})


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_with_another_number_is_refused(kind: str) -> None:
    program = folder_of(kind)[0][DECODE]
    assert isinstance(program.manifest.body, Step)
    kernels = program.manifest.kernels
    accepted: list[tuple[str, str, Any, Any]] = []
    for at in used(program):
        one = kernels[at]
        for name in (field.name for field in fields(one) if not is_silent(one, field.name)):
            was = getattr(one, name)
            for value in {other: None for other in others(was) if other != was}:
                changed = (*kernels[:at], replace(one, **{name: value}), *kernels[at + 1 :])
                other = replace(program, manifest=replace(program.manifest, kernels=changed))
                if prove(other).ok and not says_the_same(program, replace(one, **{name: value}), name):
                    accepted.append((one.family, name, was, value))
    assert not accepted
