"""The tensors of a checkpoint whose layers have experts, in place of those of dense FFNs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from models.families.family import CheckpointTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertNames:
    """What a layer's experts are called in a checkpoint.

    block: their module; router: its weights, bias: its bias, shared: the shared expert, under the block;
    matrices: gate, up and down of an expert. every: of all experts, gate and up, and down, each in one
    tensor: [experts, out, k], if turned [experts, k, out].
    """

    block: str = "mlp"
    router: str = "gate.weight"
    bias: str = "gate.e_score_correction_bias"
    shared: str = "shared_experts"
    matrices: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    every: tuple[str, str] | None = None
    turned: bool = False


class ExpertCounts(NamedTuple):
    """Of a layer: lanes of its input, experts of its router, shared ones, their width; biased: the router."""

    hidden: int
    experts: int
    shared: int
    width: int
    biased: bool = False


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
            router, shape = f"{layer}.router", (counts.experts, counts.hidden)
            yield CheckpointTensor(path=router, name=f"{theirs}.{names.router}", shape=shape, half=True)
            if counts.biased:
                yield CheckpointTensor(
                    path=f"{router}.bias", name=f"{theirs}.{names.bias}", shape=(counts.experts,)
                )
            yield _stack(replace(one, path=f"{layer}.gate_up"), theirs, names, counts)
        elif matrix == "down":
            yield _stack(one, theirs, names, counts)


def _stack(one: CheckpointTensor, theirs: str, names: ExpertNames, counts: ExpertCounts) -> CheckpointTensor:
    """The matrix of a dense FFN as the stack of its like of all experts, shared ones behind."""
    down = one.path.endswith(".down")
    matrices, width = names.matrices[2:] if down else names.matrices[:2], counts.width
    shape = (counts.hidden, width) if down else (width, counts.hidden)
    shared = tuple(f"{theirs}.{names.shared}.{name}.weight" for name in matrices)
    stored: dict[str, tuple[int, ...]] = {}
    if counts.shared > 1:
        wide = counts.shared * width
        stored = dict.fromkeys(shared, (counts.hidden, wide) if down else (wide, counts.hidden))
    if names.every is None:
        numbers = range(counts.experts)
        each = tuple(tuple(f"{theirs}.experts.{i}.{name}.weight" for name in matrices) for i in numbers)
    else:
        whole, rows = f"{theirs}.{names.every[down]}", (shape[0] * len(matrices), shape[1])
        stored[whole] = (counts.experts, *(rows[::-1] if names.turned else rows))
        each = ((whole,),) * counts.experts
    return replace(
        one,
        name=each[0][0],
        shape=shape,
        stack=(*each, *(shared,) * counts.shared),
        stored=tuple(stored.items()),
        turned=names.turned,
    )
