"""What the verb `nodes` asks for: the nodes there are, a model on them, the matrix, what persists."""

from collections.abc import Sequence
from pathlib import Path

from compiler.errors import CompileError, OptionError
from fabric.catalog import node_names
from fabric.node import NodeSpec
from fabric.rack import Rack
from lpu.folder import Progress, quiet
from lpu.gpu.served.shape import shapes
from lpu.inputs.document import FileError
from lpu.inputs.files import read_model, read_node, read_rack
from lpu.inputs.open import config_in, open_model
from lpu.nodes.compare import Compared, RackBeside, on_nodes, on_rack
from lpu.nodes.demand import NodeDemand, of_config, of_shape, supposed
from lpu.nodes.faults import Misses
from lpu.nodes.matrix import Matrix96
from lpu.nodes.matrix import matrix as whole_matrix
from lpu.nodes.options import FORMATS, Cold, NodeLoad
from lpu.nodes.roofline import NodeWork
from models.catalog import catalog_names
from models.config import DEFAULT_FAMILY

PATHS = ("vera-rubin", "vera-rubin-1gpu", "ddr5-soc")
MOST_CONTEXT, MOST_BATCH = 1 << 30, 1 << 16


def nodes_of(text: str | None, usual: Sequence[str] = ()) -> tuple[NodeSpec, ...]:
    """Nodes by names or files with commas between; None: the usual ones, or all. Raises FileError."""
    names = text.split(",") if text is not None else (usual or node_names())
    found = tuple(read_node(name.strip()) for name in names)
    held = [one.name for one in found]
    for name in held:
        if held.count(name) > 1:
            raise FileError(f"nodes: --nodes names {name} twice")
    return found


def demand_of(model: str | Path) -> NodeDemand:
    """A supposed or served model by name, or a dense one as `open_model` takes it. Raises FileError."""
    name = str(model)
    if name in supposed():
        return supposed()[name]
    file = None if name in shapes() else read_model(model)
    if file is None:
        return of_shape(shapes()[name])
    config = config_in(file)
    if config is None or config.family != DEFAULT_FAMILY:
        what = "a module of its own" if config is None else f"of family {config.family!r}"
        known = ", ".join((*supposed(), *shapes()))
        raise FileError(
            f"nodes: {name} is {what}, of which no rooflines are stated. Take a dense model, or {known}."
        )
    return of_config(config)


def nodes_compare(
    model: str | Path,
    load: NodeLoad | None = None,
    cold: Cold | None = None,
    progress: Progress = quiet,
) -> Compared:
    """A model on single nodes and on a rack of LPUs. Raises FileError or OptionError.

    What a rack cannot compile is refused in its row, by the reason; so is a node that is too small.
    """
    asked, misses = load or NodeLoad(), _misses(cold)
    _check(asked)
    demand = demand_of(model)
    served = NodeWork(context=asked.context, batch=asked.batch, weights=asked.weights, kv=asked.kv)
    beside = None
    if asked.rack != "none":
        rack = read_rack(asked.rack)
        beside = _beside(model, rack, served, progress)
    return Compared(
        model=demand,
        load=served,
        nodes=on_nodes(nodes_of(asked.nodes), demand, served, misses, asked.duty),
        rack=beside,
    )


def nodes_matrix(nodes: str | None = None, cold: Cold | None = None, duty: float = 1.0) -> Matrix96:
    """The 96 points of reference 000 section 15 on nodes, by default on its two paths."""
    _check(NodeLoad(duty=duty))
    return whole_matrix(nodes_of(nodes, PATHS), _misses(cold), duty)


def _beside(model: str | Path, rack: Rack, load: NodeWork, progress: Progress) -> RackBeside:
    """The model on a rack; why not, where it has no program."""
    name = str(model)
    known = supposed().keys() | (shapes().keys() - set(catalog_names()))
    why = f"{name} is known by its sizes alone, a program needs a model." if name in known else ""
    if load.kv == "fp4":
        why = f"{rack.chip.name} keeps KV in fp16 or fp8, not in fp4."
    if why:
        return RackBeside(rack=rack.name, chip=rack.chip.name, load=load, error=f"{rack.name}: {why}")
    try:
        opened = open_model(model, batch=load.batch, context=load.context, kv=load.kv, weights="seed:0")
    except (CompileError, FileError) as error:
        return RackBeside(rack=rack.name, chip=rack.chip.name, load=load, error=f"{rack.name}: {error}")
    return on_rack(opened, rack, load, progress)


def _check(asked: NodeLoad) -> None:
    if not 0 < asked.duty <= 1:
        raise OptionError(
            "nodes", f"--duty {asked.duty:g}", "is no share of the time", "Give above 0 up to 1."
        )
    if not (1 <= asked.context <= MOST_CONTEXT and 1 <= asked.batch <= MOST_BATCH):
        raise FileError(f"nodes: --context takes 1 to {MOST_CONTEXT:_}, --batch 1 to {MOST_BATCH:_}.")
    for flag, value in (("--weights", asked.weights), ("--kv", asked.kv)):
        if value not in FORMATS:
            raise OptionError(
                "nodes", f"{flag} {value}", "is no format", f"Take one of {', '.join(FORMATS)}."
            )


def _misses(cold: Cold | None) -> Misses:
    asked = cold or Cold()
    return Misses(places=asked.places, miss=asked.miss, page=asked.page)
