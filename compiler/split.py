"""Split: which modules of a model run on the LPUs, one hop per layer, and what crosses there and back.

A hop is what a module does from its first matmul to its last (and the rounding to fp16 that may follow it):
norms, residual sums and attention with its KV stay on the GPUs. One value crosses each way.
Source: facts/afd.md sections 0 and 3.3.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from compiler.errors import LESS_KV, CapacityError, CompileError, OptionError
from compiler.graph.graph import Graph, Node, bytes_of, flops, intensity, width
from compiler.lower.rules import rule_of
from compiler.options import SPLITS
from compiler.program.instructions.host import Wire
from fabric.rack import Rack

ROLES = ("attention", "ffn", "embed", "head")  # last parts of module paths: scopes below them are theirs
BYTES = {"fp8": 1, "fp16": 2, "f32": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class HopGraph:
    """What the LPUs do for one layer.

    nodes: indices into the graph's nodes. input, output: the values that cross down and up, in the formats
    wire_down ("fp16" or "fp8") and wire_up ("f32" or "fp16"); bytes are for the rows of the graph.
    """

    name: str
    nodes: tuple[int, ...]
    input: int
    output: int
    wire_down: Wire
    wire_up: Wire
    down_bytes: int
    up_bytes: int
    weight_bytes: int
    flops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The hops in order, and what stays on the GPUs: nodes, bytes of weights and of the KV cache."""

    hops: tuple[HopGraph, ...]
    rows: int
    gpu_nodes: tuple[int, ...]
    gpu_weight_bytes: int
    kv_bytes: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights of all hops."""
        return sum(hop.weight_bytes for hop in self.hops)

    def __str__(self) -> str:
        lines = [
            f"split: {len(self.hops)} hops of {self.rows} rows",
            f"  LPUs: {_gb(self.weight_bytes)} of weights",
            f"  GPUs: {len(self.gpu_nodes)} nodes, {_gb(self.gpu_weight_bytes)} of weights, "
            f"{_gb(self.kv_bytes)} of KV",
        ]
        lines += [
            f"  {hop.name:<20} {len(hop.nodes)} nodes, {hop.weight_bytes / 1e6:.1f} MB, "
            f"down {hop.down_bytes} B {hop.wire_down}, up {hop.up_bytes} B {hop.wire_up}"
            for hop in self.hops[:20]
        ]
        more = len(self.hops) - 20
        return "\n".join([*lines, f"  ... and {more} more"] if more > 0 else lines)


def split(
    graph: Graph,
    *,
    by: str = "role",
    role: str = "ffn",
    threshold: float | None = None,
    layers: int | None = None,
) -> Split:
    """The hops of a graph: modules of a role, or those of at least `threshold` FLOP per byte.

    layers: that have a hop, the last ones; None: all. Raises CompileError if the modules are not one per
    layer, hold a KV cache, or exchange more than one value each way; OptionError for options that make no
    sense.
    """
    if by not in SPLITS or (by == "intensity") != (threshold is not None):
        raise OptionError(
            "options",
            f"by {by}, threshold {threshold}",
            f"by is one of {', '.join(SPLITS)}, and a threshold goes with intensity alone",
            "Give by='intensity' with a threshold, or a role.",
        )
    modules: dict[str, list[Node]] = {}
    for node in graph.nodes:
        modules.setdefault(module_of(node.path, (*ROLES, role)), []).append(node)
    if threshold is None:
        chosen = [name for name in modules if name.rpartition(".")[2] == role]
        if held := [name for name in chosen if _holds_kv(graph, modules[name])]:
            raise CompileError(
                "split",
                f"module {held[0]}",
                "it holds a KV cache, which stays on the GPUs in this mode",
                "Use --mode pd, or choose another role.",
            )
        what = f"role {role}"
    else:
        chosen = _intense(graph, modules, threshold)
        what = f"threshold {threshold:g} FLOP/byte"
    _one_per_layer(chosen, modules, what)
    if layers is not None and not 1 <= layers <= len(chosen):
        raise OptionError(
            "split",
            f"--lpu-layers {layers}",
            f"the model has {len(chosen)} layers, 1 to {len(chosen)} of them can be on LPUs",
            "Give such a number, or leave it out.",
        )
    chosen = chosen[-(layers or len(chosen)) :]
    hops = tuple(_hop(graph, name, modules[name]) for name in chosen)
    away = {index for hop in hops for index in hop.nodes}
    stays = [node for node in graph.nodes if node.index not in away]
    return Split(
        hops=hops,
        rows=graph.batch,
        gpu_nodes=tuple(node.index for node in stays),
        gpu_weight_bytes=bytes_of(graph, stays, "param"),
        kv_bytes=bytes_of(graph, stays, "cache"),
    )


def require_fit(split: Split, rack: Rack, gpus: int = 0, gpu_memory_bytes: int = 0) -> None:
    """Raise CapacityError unless the weights of each side (and the KV of the GPUs) fit there.

    rack: all LPUs together. Padding and transients come on top: compiling finds what they take.
    gpus: that hold the rest together, `gpu_memory_bytes` each; 0 leaves them out.
    """
    there = rack.chips * rack.chip.sram_bytes
    if split.weight_bytes > there:
        error = CapacityError(
            "split",
            f"rack {rack.name}",
            f"the hops need {split.weight_bytes} bytes of weights, its {rack.chips} chips have {there}",
            "Use a rack of more chips (several racks), or split off less of the model.",
        )
        error.chips = -(-split.weight_bytes // rack.chip.sram_bytes)
        raise error
    needs, there = split.gpu_weight_bytes + split.kv_bytes, gpus * gpu_memory_bytes
    if gpus and needs > there:
        raise CapacityError(
            "split",
            f"{gpus} GPUs",
            f"weights and KV need {needs} bytes ({split.kv_bytes} of them KV), the GPUs have {there}",
            f"Use more GPUs{LESS_KV}.",
        )


def module_of(path: str, roles: Iterable[str]) -> str:
    """The module that a path lies in: up to the first part that is a role, or all of it."""
    parts = path.split(".")
    ends = [i for i, part in enumerate(parts) if part in roles]
    return ".".join(parts[: ends[0] + 1]) if ends else path


def _intense(graph: Graph, modules: dict[str, list[Node]], threshold: float) -> list[str]:
    """The modules of layers (embedding and head are none) that reach the threshold."""
    found = {name: intensity(graph, nodes) for name, nodes in modules.items() if "." in name}
    chosen = [name for name, value in found.items() if value >= threshold]
    kept = {name: value for name, value in found.items() if _holds_kv(graph, modules[name])}
    if held := [name for name in chosen if name in kept]:
        most = max(kept.values())
        others = max((value for name, value in found.items() if name not in kept), default=0.0)
        remedy = f"a threshold above {most:.2f}."
        if others <= most:
            remedy = f"a role: modules without a KV cache have at most {others:.2f}, no threshold parts them."
        raise CompileError(
            "split",
            f"module {held[0]}",
            f"its {found[held[0]]:.2f} FLOP/byte reach the threshold {threshold:g}, and it holds a KV cache, "
            "which stays on the GPUs in this mode",
            f"Use --mode pd or {remedy}",
        )
    if not chosen:
        most = max(found.values(), default=0.0)
        raise CompileError(
            "split",
            "model",
            f"no module of a layer reaches the threshold {threshold:g} FLOP/byte, the most is {most:.2f}",
            f"Give a threshold of {most:.2f} or less, or more rows.",
        )
    return chosen


def _one_per_layer(chosen: list[str], modules: dict[str, list[Node]], what: str) -> None:
    layers = dict.fromkeys(name.rpartition(".")[0] for name in (*modules, *chosen))
    if any(layers):
        layers.pop("", None)
    count = {layer: [name for name in chosen if name.rpartition(".")[0] == layer] for layer in layers}
    wrong = [layer for layer, names in count.items() if len(names) != 1]
    if not chosen or wrong:
        layer = wrong[0] if wrong else ""
        raise CompileError(
            "split",
            f"layer {layer}" if layer else "model",
            f"{what} selects {len(count.get(layer, []))} of its modules "
            f"({', '.join(count.get(layer, [])) or 'none'}), a layer has 1 hop",
            "Use --mode pd, or choose what is there once in every layer."
            if what == "role ffn"
            else "Choose what is there once in every layer, such as role ffn.",
        )


def _hop(graph: Graph, name: str, module: list[Node]) -> HopGraph:
    products = [node.index for node in module if _holds_weights(graph, node)]
    if not products:
        raise CompileError(
            "split", f"module {name}", "it holds 0 matmuls, a hop needs 1", "Choose modules with weights."
        )
    nodes = [node for node in module if products[0] <= node.index <= products[-1]]
    down, up = _crossing(graph, nodes)
    for node in module[module.index(nodes[-1]) + 1 :]:
        if len(up) > 1 and not _crossing(graph, [*nodes, node])[0].difference(down):
            nodes.append(node)  # it adds what products made, so that one value crosses
            down, up = _crossing(graph, nodes)
    nodes += _rounding(graph, nodes[-1])
    down, up = map(sorted, _crossing(graph, nodes))
    for values, way in ((down, "down to"), (up, "up from")):
        if len(values) != 1:
            names = ", ".join(_name(graph, value) for value in values) or "none"
            raise CompileError(
                "split",
                f"module {name}",
                f"{len(values)} values cross {way} the LPUs ({names}), 1 can",
                "Let its matmuls read one fp16 value and end in one; of a known model state ffn_down: fp16.",
            )
    source, result = graph.values[down[0]], graph.values[up[0]]
    if source.dtype != "float16":
        raise CompileError(
            "split",
            f"module {name}",
            f"{_name(graph, source.index)} crosses down as {source.dtype}, must be float16",
            "Round it first (rms_norm and round8 return fp16).",
        )
    eights = {value for node in graph.nodes if rule_of(node).rounds_to == "fp8" for value in node.outputs}
    wire_down: Wire = "fp8" if source.index in eights else "fp16"
    wire_up: Wire = "fp16" if result.dtype == "float16" else "f32"
    return HopGraph(
        name=name,
        nodes=tuple(node.index for node in nodes),
        input=source.index,
        output=result.index,
        wire_down=wire_down,
        wire_up=wire_up,
        down_bytes=graph.batch * width(source) * BYTES[wire_down],
        up_bytes=graph.batch * width(result) * BYTES[wire_up],
        weight_bytes=bytes_of(graph, nodes, "param"),
        flops=flops(graph, nodes),
    )


def _crossing(graph: Graph, nodes: list[Node]) -> tuple[set[int], set[int]]:
    """The values that nodes read of others, and those that others read of them."""
    inside = {node.index for node in nodes}
    made = {value for node in nodes for value in node.outputs}
    read = {view.value for node in nodes for view in node.inputs}
    used = {view.value for node in graph.nodes if node.index not in inside for view in node.inputs}
    down = {value for value in read - made if graph.values[value].kind != "param"}
    return down, made & (used | {graph.logits.value, graph.token.value})


def _holds_weights(graph: Graph, node: Node) -> bool:
    """Whether a node multiplies by a matrix, or by a stack of them."""
    read = [graph.values[view.value] for view in node.inputs]
    return any(value.kind == "param" and len(value.shape) > 1 for value in read)


def _rounding(graph: Graph, last: Node) -> list[Node]:
    """The rounding to fp16 that alone reads what a node makes, if there is one."""
    readers = [node for node in graph.nodes if any(view.value in last.outputs for view in node.inputs)]
    return readers if len(readers) == 1 and rule_of(readers[0]).rounds_to == "fp16" else []


def _holds_kv(graph: Graph, nodes: Iterable[Node]) -> bool:
    return any(graph.values[view.value].kind == "cache" for node in nodes for view in node.inputs)


def _name(graph: Graph, value: int) -> str:
    """A value as people know it: its name, or what makes it."""
    for node in graph.nodes:
        if value in node.outputs:
            return f"{node.op} of {node.path or 'the model'} (%{value})"
    return graph.values[value].name or f"%{value}"


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
