"""The tensors of the checkpoints of hybrid decoders, as Hugging Face folders hold them.

Constants that a model multiplies the results of its matrices with (muP, Granite's multipliers) are multiplied
into those matrices when they are loaded: no op of a step computes them.
Source of names: transformers 5.24, modeling_ of the model_types here.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from models.configs.hybrid import ATTENTION, BOTH, EXPERTS, FFN, MIXER, HybridConfig
from models.families.expert_tensors import ExpertCounts, router, stack
from models.families.family import HEAD, LM_HEAD, TABLE, CheckpointTensor
from models.families.hybrid.mixers import mixer
from models.families.hybrid.names import NAMES, Names
from models.families.hybrid.pieces import Rows, matrix
from models.rope import lane_order


def tensors(config: HybridConfig) -> Iterator[CheckpointTensor]:
    """The tensors of a checkpoint, in the order of the model."""
    names = NAMES[config.names]
    gain = partial(_gain, width=config.hidden, plus=names.plus)
    yield matrix(config, TABLE, names.table, (config.vocab, config.hidden), "embed")
    for i, word in enumerate(config.pattern):
        theirs = names.layer.format(i)
        for part in word:
            if part in (ATTENTION, BOTH):
                yield gain(f"layers.{i}.attention.norm", f"{theirs}.{names.norm}")
                yield from _attention(config, f"layers.{i}.attention", f"{theirs}.{names.attention}")
            if part in (MIXER, BOTH):
                ours = f"layers.{i}.mixer"
                if part == MIXER:
                    yield gain(f"{ours}.norm", f"{theirs}.{names.norm}")
                yield from mixer(config, names, ours, f"{theirs}.{names.mixer}")
            if part == FFN:
                yield gain(f"layers.{i}.ffn.norm", f"{theirs}.{names.ffn_norm}")
                yield from _ffn(config, names, f"layers.{i}.ffn", f"{theirs}.{names.ffn}")
            if part == EXPERTS:
                ours = f"layers.{i}.experts"
                yield gain(f"{ours}.norm", f"{theirs}.{names.ffn_norm}")
                yield from _experts(config, names, ours, theirs if names.apart else f"{theirs}.{names.ffn}")
    yield gain("norm", names.last)
    head = names.table if config.tied else LM_HEAD
    yield matrix(config, HEAD, head, (config.vocab, config.hidden), "head")


def _gain(
    path: str, name: str, *, width: int, plus: float, lanes: tuple[int, int] | None = None
) -> CheckpointTensor:
    """The gain of a norm. lanes: of a head, and those of it that turn."""
    return CheckpointTensor(
        path=f"{path}.gain", name=f"{name}.weight", shape=(width,), plus=plus, lanes=lanes
    )


def _attention(config: HybridConfig, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    hidden, q = config.hidden, config.heads * config.head_dim
    kv, plus = config.kv_heads * config.head_dim, NAMES[config.names].plus
    turned = None if config.turned_lanes is None else (config.head_dim, config.turned_lanes)
    if config.attention_gate:
        at, shape = f"{theirs}.q_proj.weight", (2 * q, hidden)
        for part, name in enumerate(("q", "gate")):
            made = partial(_of_pairs, part, config.head_dim, turned if name == "q" else None)
            yield CheckpointTensor(path=f"{ours}.{name}", name=at, shape=shape, made=(made, (q, hidden)))
    else:
        yield matrix(config, f"{ours}.q", f"{theirs}.q_proj.weight", (q, hidden), "q", lanes=turned)
    yield matrix(config, f"{ours}.k", f"{theirs}.k_proj.weight", (kv, hidden), "k", lanes=turned)
    yield matrix(config, f"{ours}.v", f"{theirs}.v_proj.weight", (kv, hidden), "v")
    for name in ("q_norm", "k_norm") if config.qk_norm else ():
        yield _gain(f"{ours}.{name}", f"{theirs}.{name}", width=config.head_dim, plus=plus, lanes=turned)
    yield matrix(config, f"{ours}.o", f"{theirs}.o_proj.weight", (hidden, q), "o")


def _of_pairs(part: int, head_dim: int, turned: tuple[int, int] | None, values: Rows) -> Rows:
    """Of each head the queries (part 0) or the gates that lie behind them, the queries in RoPE's order."""
    own = values.reshape(-1, 2, head_dim, values.shape[1])[:, part]
    own = own if turned is None else own[:, lane_order(*turned)]
    return np.ascontiguousarray(own).reshape(-1, values.shape[1])


def _ffn(config: HybridConfig, names: Names, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    ffn, hidden = config.ffn, config.hidden
    for i, name in enumerate(("gate", "up")):
        if config.squared and name == "gate":
            continue
        if names.gate_up:
            at = f"{theirs}.{names.gate_up}.weight"
            yield matrix(config, f"{ours}.{name}", at, (2 * ffn, hidden), name, rows=(i * ffn, ffn))
        else:
            yield matrix(config, f"{ours}.{name}", f"{theirs}.{name}_proj.weight", (ffn, hidden), name)
    yield matrix(config, f"{ours}.down", f"{theirs}.{names.down}.weight", (hidden, ffn), "down")


def _beside_latents(config: HybridConfig, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    """The ways into latents and back, and the FFN beside them."""
    hidden, latent, ffn = config.hidden, config.latent, config.shared_ffn
    for path, name, shape in (
        ("into", "fc1_latent_proj", (latent, hidden)),
        ("out", "fc2_latent_proj", (hidden, latent)),
        ("shared_up", "shared_experts.up_proj", (ffn, hidden)),
        ("shared_down", "shared_experts.down_proj", (hidden, ffn)),
    ):
        yield matrix(config, f"{ours}.{path}", f"{theirs}.{name}.weight", shape, path)


def _experts(config: HybridConfig, names: Names, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    """A router and the experts of a layer, and the gate of the shared one, if there is one."""
    counts = ExpertCounts(
        config.hidden,
        config.experts,
        config.shared,
        config.expert_ffn,
        biased=config.score == "sigmoid",
        gated=config.shared_gate,
    )
    yield from router(ours, theirs, names.experts, counts)
    if config.latent:
        yield from _beside_latents(config, ours, theirs)
        counts = counts._replace(hidden=config.latent)
    yield stack(f"{ours}.{'up' if config.squared else 'gate_up'}", theirs, names.experts, counts)
    yield replace(stack(f"{ours}.down", theirs, names.experts, counts), factor=config.factor("down"))
