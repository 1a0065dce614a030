"""What the KV regions of a program hold at the end of a step: heads, and states, of the model."""

import hashlib
from dataclasses import dataclass

import numpy as np

from compiler.program.instructions.attention import AttentionKernel, LatentAttentionKernel
from compiler.program.instructions.recurrent import StateKernel
from compiler.program.isa import F32_LANES
from lpu.prove.explain import foreign
from lpu.prove.follow.step_proof import Memory, StepProof
from lpu.prove.lines import KVHead, StateLines
from lpu.prove.refused import RefusedError, need


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldHead:
    """What a KV region holds: tokens of one stripe of one head of one layer, and how."""

    layer: int
    head: int
    stripe: int
    stripes: int
    run: int
    key_lanes: int
    head_dim: int
    kv: str
    kv_words: int
    kv_stride: int
    capacity: int
    cached: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldState:
    """What a region of a state holds. state: which of the model's; lanes: sha256 of its channels.

    first, lines: the line of 80 channels that they begin with, and how many there are, where they lie in
    order; lines is 0 where they do not.
    """

    state: int
    lanes: str
    first: int
    lines: int
    kept: int
    cached: int


Regions = dict[tuple[int, int], HeldHead | HeldState]
"""By chip and first word: the interface between proofs of programs with one memory image."""


def regions_of(step: StepProof, memory: Memory, ours: int) -> Regions:
    """The head and layer of every KV region, each stripe of each head once."""
    known, model = step.known, step.model
    layer_of = {pair: i for i, pair in enumerate(zip(model.keys, model.values, strict=True))}
    out: Regions = {}
    copied: set[tuple[int, int]] = set()  # of latents, which every chip with heads keeps
    for place, number in memory.regions.items():
        if isinstance(known.things[number], StateLines):
            out[place] = _state(step, known.things[number], place, ours)
            continue
        head: KVHead = known.things[number]
        layer = layer_of.get((head.keys, head.values), -1)
        if layer < 0:
            layer_k = model.keys.index(head.keys) if head.keys in model.keys else -1
            wrong = head.values if layer_k >= 0 else head.keys
            raise RefusedError(
                foreign(step, wrong, ours, f"the KV region at word {place[1]} of chip {place[0]}")
            )
        kernel = known.kernel(head.kernel)
        assert isinstance(kernel, AttentionKernel)
        copied |= {place} if isinstance(kernel, LatentAttentionKernel) else set()
        out[place] = HeldHead(
            layer=layer,
            head=head.head,
            stripe=head.stripe,
            stripes=kernel.stripes,
            run=kernel.run,
            key_lanes=kernel.key_lanes,
            head_dim=kernel.head_dim,
            kv=kernel.kv,
            kv_words=kernel.kv_words,
            kv_stride=kernel.kv_stride,
            capacity=kernel.capacity,
            cached=kernel.cached,
        )
    names = sorted(
        (one.layer, one.head, one.stripe, place[0] if place in copied else -1)
        for place, one in out.items()
        if isinstance(one, HeldHead)
    )
    need(len(set(names)) == len(names), "a head's keys are appended to two regions")
    return out


def _state(step: StepProof, held: StateLines, place: tuple[int, int], ours: int) -> HeldState:
    """Which of the model's states a region holds, and of which channels."""
    known = step.known
    if held.value not in step.model.states:
        raise RefusedError(
            foreign(step, held.value, ours, f"the state at word {place[1]} of chip {place[0]}")
        )
    kernel = known.kernel(held.kernel)
    assert isinstance(kernel, StateKernel)
    lanes = known.lanes.concatenated(held.lanes)
    first, width = int(lanes[0]) // F32_LANES, known.terms.width(held.value)
    order = np.arange(F32_LANES * first, F32_LANES * first + len(lanes))
    whole = np.array_equal(lanes, np.where(order < width, order, -1))
    return HeldState(
        state=step.model.states.index(held.value),
        lanes=hashlib.sha256(np.ascontiguousarray(lanes, np.int64).tobytes()).hexdigest(),
        first=first,
        lines=len(held.lanes) if whole else 0,
        kept=kernel.kept,
        cached=kernel.cached,
    )


def differ(one: Regions, other: Regions, where: str) -> str:
    """The first region that two programs or contexts use otherwise."""
    for place in sorted({*one, *other}):
        if one.get(place) != other.get(place):
            return (
                f"the KV region at word {place[1]} of chip {place[0]} holds {_head(one.get(place))}, "
                f"in {where} {_head(other.get(place))}"
            )
    return ""


def _head(held: HeldHead | HeldState | None) -> str:
    if held is None:
        return "nothing"
    if isinstance(held, HeldState):
        return f"state {held.state} of the model, channels {held.lanes[:8]}, {held.kept} of {held.cached}"
    return f"head {held.head} of layer {held.layer}, stripe {held.stripe} of {held.stripes} ({held.kv})"
