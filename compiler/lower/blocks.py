"""Blocks: the graph cut where a single f32 value crosses, so that a pipeline can change chips there."""

from dataclasses import dataclass

from compiler.errors import CompileError
from compiler.graph.graph import Graph, Node, View
from compiler.lower.layout import Demands, is_head_norm
from compiler.program.instructions.host import Wire


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


def cut(graph: Graph) -> tuple[ModelBlock, ...]:
    """The blocks of a graph in order; the last one ends in the token."""
    demands = Demands(graph)
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
        if len(live) == 1 and _crosses(graph, demands, result := min(live)):
            blocks.append(block_of(graph, graph.nodes[begin : node.index + 1], source, result))
            begin, source = node.index + 1, result
    if not graph.nodes or graph.nodes[-1].op != "argmax":
        raise CompileError(
            "capture",
            "model",
            "a decode step must end in argmax over its logits",
            "Return (logits, argmax(logits), cache).",
        )
    return (*blocks, block_of(graph, graph.nodes[begin:], source, graph.token.value))


def _crosses(graph: Graph, demands: Demands, value: int) -> bool:
    """Whether a value can be handed from one group of chips to another: f32, read whole by norms and adds."""
    if graph.values[value].dtype != "float32" or value == graph.logits.value:
        return False
    return all(
        node.op == "add" or (node.op == "rms_norm" and not is_head_norm(demands, node))
        for node, _ in demands.readers(value)
    )


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


def _shape(graph: Graph, view: View, local: dict[int, str]) -> str:
    value = graph.values[view.value]
    return f"{local[view.value]}[{view.start}:{view.width}]{value.shape}{value.dtype}"
