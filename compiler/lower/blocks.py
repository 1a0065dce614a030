"""Blocks: the graph cut where a single f32 value crosses, so that a pipeline can change chips there."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from compiler.errors import CompileError
from compiler.graph.graph import Graph, Node, View, width
from compiler.lower.layout import Demands, natural
from compiler.lower.rule import Handed
from compiler.lower.rules import demands_of, rule_of
from compiler.program.instructions.host import Wire

Chips = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBlock:
    """A run of nodes: reads the value `source` (-1: the step's inputs), leaves the value `result`.

    `params` are its parameters in order of first use; `kind` is equal for blocks that differ in names only.
    wire: of a hop, the format in which the source comes over the host lanes; None for other blocks.
    """

    name: str
    nodes: tuple[Node, ...]
    source: int
    result: int
    params: tuple[int, ...]
    kind: str
    wire: Wire | None = None

    def __str__(self) -> str:
        ops = " ".join(node.op for node in self.nodes)
        return f"{self.name:<24} {len(self.params):3} parameters, value {self.source} -> {self.result}: {ops}"


def cut(graph: Graph) -> tuple[ModelBlock, ...]:
    """The blocks of a graph in order; the last one ends in the token."""
    demands = demands_of(graph)
    last_use = {value.index: -1 for value in graph.values}
    for node in graph.nodes:
        for view in node.inputs:
            last_use[view.value] = node.index
    for view in (graph.logits, graph.token):
        last_use[view.value] = len(graph.nodes)
    blocks: list[ModelBlock] = []
    begin, source = 0, -1
    live: set[int] = set()
    for node in graph.nodes:
        live |= {v for v in node.outputs if last_use[v] > node.index}
        live = {v for v in live if last_use[v] > node.index}
        if len(live) == 1 and _crosses(demands, result := min(live)):
            blocks.append(block_of(graph, graph.nodes[begin : node.index + 1], source, result))
            begin, source = node.index + 1, result
    if not graph.nodes or not rule_of(graph.nodes[-1]).picks_token:
        raise CompileError(
            "capture",
            "model",
            "a decode step must end in argmax over its logits",
            "Return (logits, argmax(logits), cache).",
        )
    return (*blocks, block_of(graph, graph.nodes[begin:], source, graph.token.value))


def _crosses(demands: Demands, value: int) -> bool:
    """Whether a value can be handed from one group of chips to another: f32, and all readers allow it."""
    graph = demands.graph
    if graph.values[value].dtype != "float32" or value == graph.logits.value:
        return False
    return all(demands.rule(node).handed(demands, node) is not None for node, _ in demands.readers(value))


def block_of(
    graph: Graph,
    nodes: tuple[Node, ...],
    source: int,
    result: int,
    *,
    name: str = "",
    wire: Wire | None = None,
) -> ModelBlock:
    """The block of these nodes, named after the first that has a path unless `name` is given."""
    local: dict[int, str] = {source: "in"}
    params: list[int] = []
    words: list[str] = [f"take {wire}"] if wire else []
    for node in nodes:
        reads = []
        for view in node.inputs:
            value = graph.values[view.value]
            if view.value not in local:
                if value.kind == "node":
                    raise CompileError(
                        "capture",
                        f"{node.path}: {node.op}",
                        "it reads a value of an earlier block besides the residual",
                        "Let one f32 residual alone carry state between blocks.",
                    )
                if value.kind == "param":
                    params.append(view.value)
                local[view.value] = f"{value.kind}{len(local)}"
            reads.append(_shape(graph, view, local))
        for out in node.outputs:
            local[out] = f"v{len(local)}"
        words.append(f"{node.op}({','.join(reads)}){sorted(node.attributes.items())!r}")
    paths = [node.path for node in nodes if node.path]
    return ModelBlock(
        name=name or (paths[0] if paths else f"nodes {nodes[0].index}..{nodes[-1].index + 1}"),
        nodes=nodes,
        source=source,
        result=result,
        params=tuple(params),
        kind=";".join(words),
        wire=wire,
    )


def layer_of(block: ModelBlock) -> str:
    """The path, up to its last number, that all nodes of a block have in common: "layers.3"; or empty."""
    paths = [node.path.split(".") for node in block.nodes if node.path]
    same = [len(set(parts)) == 1 for parts in zip(*paths, strict=False)]
    common = paths[0][: [*same, False].index(False)] if paths else []
    numbered = [i for i, part in enumerate(common) if part.isdecimal()]
    return ".".join(common[: numbered[-1] + 1]) if numbered else ""


def _shape(graph: Graph, view: View, local: dict[int, str]) -> str:
    value = graph.values[view.value]
    return f"{local[view.value]}[{view.start}:{view.width}]{value.shape}{value.dtype}"


def input_lines(
    demands: Demands, block: ModelBlock, ranks: int, k_parts: int
) -> Bool[np.ndarray, "ranks lines"]:
    """The lines of its input that a block reads on each rank, so that nothing is sent that nobody reads.

    The first block reads the token (one line) wherever it looks up columns of the embedding.
    """
    values = demands.graph.values
    if block.source < 0:
        total = width(values[block.nodes[0].outputs[0]])
        return np.isin(np.arange(ranks), natural(total, ranks)[0])[:, None]
    owner, _ = natural(width(values[block.source]), ranks)
    need = np.zeros((ranks, len(owner)), bool)
    for node, _ in demands.readers(block.source):
        if demands.rule(node).handed(demands, node) is Handed.WHOLE:
            need[demands.multipliers(node.outputs[0], ranks, k_parts)] = True
        else:
            need[owner, np.arange(len(owner))] = True
            need |= node.outputs[0] != block.result and demands.adds_everywhere(node)
    return need


def kv_heads(demands: Demands, block: ModelBlock) -> list[int]:
    """The KV heads of each node of a block that keeps KV."""
    rules = [(node, demands.rule(node).kv_heads) for node in block.nodes]
    return [heads(demands.graph, node) for node, heads in rules if heads is not None]
