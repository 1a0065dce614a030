"""The tensors of a checkpoint whose layers have experts, in place of those of dense FFNs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from models.families.family import CheckpointTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertNames:
    """What a layer's experts are called in a checkpoint.

    block: their module; router: its weights, bias: its bias, shared: the shared expert, shared_gate: the
    weights of its gate, all under the block; both: of shared ones, gates and then ups in one; matrices: gate,
    up and down of an expert, or up and down. every: of all experts, gate and up, and down, each in one
    tensor: [experts, out, k], if turned [experts, k, out].
    """

    block: str = "mlp"
    router: str = "gate.weight"
    bias: str = "gate.e_score_correction_bias"
    shared: str = "shared_experts"
    both: str = ""
    shared_gate: str = "shared_expert_gate.weight"
    matrices: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    every: tuple[str, str] | None = None
    turned: bool = False


class ExpertCounts(NamedTuple):
    """Of a layer: lanes of its input, experts of its router, shared ones, their width.

    biased: the router has a bias; gated: the shared expert has a gate.
    """

    hidden: int
    experts: int
    shared: int
    width: int
    biased: bool = False
    gated: bool = False


def router(ours: str, theirs: str, names: ExpertNames, counts: ExpertCounts) -> Iterator[CheckpointTensor]:
    """The tensors of the router of a layer, at our path and under their block; a gate is its last row."""
    path, name, shape = f"{ours}.router", f"{theirs}.{names.router}", (counts.experts, counts.hidden)
    gate = f"{theirs}.{names.shared_gate}"
    yield CheckpointTensor(
        path=path,
        name=name,
        shape=shape,
        half=True,
        behind=(gate,) if counts.gated else (),
        stored=((gate, (1, counts.hidden)),) if counts.gated else (),
    )
    if counts.biased:
        yield CheckpointTensor(path=f"{path}.bias", name=f"{theirs}.{names.bias}", shape=shape[:1])


def with_experts(
    dense: Iterable[CheckpointTensor], names: ExpertNames, counts: ExpertCounts, first: int = 0
) -> Iterator[CheckpointTensor]:
    """The tensors of a model whose layers have experts from `first` on; shared ones are the last of a layer.

    dense: those of the model without experts.
    """
    for one in dense:
        layer, _, matrix = one.path.rpartition(".")
        number = layer.removeprefix("layers.").removesuffix(".ffn")
        if matrix not in ("gate", "up", "down") or int(number) < first:
            yield one
            continue
        theirs = f"model.layers.{number}.{names.block}"
        if matrix == "gate":
            yield from router(layer, theirs, names, counts)
            yield stack(f"{layer}.gate_up", theirs, names, counts)
        elif matrix == "down":
            yield stack(one.path, theirs, names, counts)


def stack(path: str, theirs: str, names: ExpertNames, counts: ExpertCounts) -> CheckpointTensor:
    """Gate and up (or up alone), or down by its path, of all experts of a layer, shared ones behind."""
    down = path.endswith(".down")
    matrices, width = names.matrices[-1:] if down else names.matrices[:-1], counts.width
    shape = (counts.hidden, width) if down else (width, counts.hidden)
    of_shared = (names.both,) if names.both and not down else matrices
    shared = tuple(f"{theirs}.{names.shared}.{name}.weight" for name in of_shared)
    stored: dict[str, tuple[int, ...]] = {}
    if counts.shared > 1 or names.both:
        wide = counts.shared * width * (2 if names.both and not down else 1)
        stored = dict.fromkeys(shared, (counts.hidden, wide) if down else (wide, counts.hidden))
    if names.every is None:
        numbers = range(counts.experts)
        each = tuple(tuple(f"{theirs}.experts.{i}.{name}.weight" for name in matrices) for i in numbers)
    else:
        whole, rows = f"{theirs}.{names.every[down]}", (shape[0] * len(matrices), shape[1])
        stored[whole] = (counts.experts, *(rows[::-1] if names.turned else rows))
        each = ((whole,),) * counts.experts
    return CheckpointTensor(
        path=path,
        name=each[0][0],
        shape=shape,
        stack=(*each, *(shared,) * counts.shared),
        stored=tuple(stored.items()),
        turned=names.turned,
    )
