"""The tensors of a checkpoint with experts that sigmoid scores choose, in place of those of dense FFNs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from models.configs.scored import ScoredExperts
from models.families.family import CheckpointTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertNames:
    """What a layer's experts are called in a checkpoint.

    block: their module; matrices: gate, up and down of an expert; bias: of the router, under the block.
    """

    block: str = "mlp"
    matrices: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    bias: str = "gate.e_score_correction_bias"


def with_experts(
    dense: Iterable[CheckpointTensor], config: ScoredExperts, names: ExpertNames
) -> Iterator[CheckpointTensor]:
    """The tensors of the model, in its order; shared experts are the last. dense: those without experts."""
    gate, up, down = names.matrices
    for one in dense:
        layer, _, matrix = one.path.rpartition(".")
        number = layer.removeprefix("layers.").removesuffix(".ffn")
        if matrix not in ("gate", "up", "down") or int(number) < config.dense:
            yield one
            continue
        theirs = f"model.layers.{number}.{names.block}"
        each = [f"{theirs}.experts.{i}" for i in range(config.experts)]
        each += [f"{theirs}.shared_experts"] * config.shared
        merged = max(config.shared, 1)
        if matrix == "gate":
            router, shape = f"{layer}.router", (config.experts, config.hidden)
            yield CheckpointTensor(path=router, name=f"{theirs}.gate.weight", shape=shape, half=True)
            if config.score == "sigmoid":
                yield CheckpointTensor(
                    path=f"{router}.bias", name=f"{theirs}.{names.bias}", shape=(config.experts,)
                )
            both = tuple((f"{name}.{gate}.weight", f"{name}.{up}.weight") for name in each)
            shape = (config.expert_ffn, config.hidden)
            yield replace(
                one, path=f"{layer}.gate_up", name=both[0][0], shape=shape, stack=both, merged=(merged, 0)
            )
        elif matrix == "down":
            stack = tuple((f"{name}.{down}.weight",) for name in each)
            shape = (config.hidden, config.expert_ffn)
            yield replace(one, name=stack[0][0], shape=shape, stack=stack, merged=(merged, 1))
