"""Case 6: link bandwidths and diameters of racks of 9 and 17 nodes, counted on their links."""

from itertools import combinations
from typing import TYPE_CHECKING, Any

from fabric.rack import Rack
from lpu.validate.cases.point import Kind, PublishedPoint
from lpu.validate.cases.tsp.machine import PublishedMachine

if TYPE_CHECKING:
    import networkx as nx

CASE = 6
CHIP_GB_PER_S, BISECTION_GB_PER_S = 235, 853
PAST_DEAD_GB_PER_S = (427, 256, 128, 43)  # past 0, 1, 2, 3 dead nodes
DIAMETERS = {9: 3, 17: 5}  # by nodes
TOLERANCE = 2.0  # percent


def points(machine: PublishedMachine) -> tuple[PublishedPoint, ...]:
    """One link rate, fitted to the first of the four figures with dead nodes, and what follows from it."""
    small, large = machine.rack(9), machine.rack(17)
    out = [
        _bandwidth(machine, "links of one chip, both ways", CHIP_GB_PER_S, 2 * chip_lanes(small)),
        _bandwidth(machine, "bisection, 72 chips", BISECTION_GB_PER_S, bisection_lanes(small)),
    ]
    for dead, published in enumerate(PAST_DEAD_GB_PER_S):
        name = f"past {dead} dead node{'s' if dead != 1 else ''} of a ring"
        out.append(_bandwidth(machine, name, published, lanes_past(large, dead), "anchor" if dead else "fit"))
    for (nodes, published), rack in zip(DIAMETERS.items(), (small, large), strict=True):
        out.append(
            PublishedPoint(
                case=CASE,
                name=f"diameter, {rack.chips} chips",
                kind="anchor" if nodes == 9 else "fit",  # the port rule was chosen for the second
                unit="hops",
                published=published,
                modelled=diameter(rack),
                tolerance_percent=0,
            )
        )
    return tuple(out)


def diameter(rack: Rack) -> int:
    """The most hops between two chips."""
    import networkx as nx

    return int(nx.diameter(rack.graph()))


def chip_lanes(rack: Rack) -> int:
    """Lanes that leave one chip; the chip with fewest, should they differ."""
    return min(int(lanes) for _, lanes in rack.graph().out_degree(weight="lanes"))


def bisection_lanes(rack: Rack) -> int:
    """The fewest lanes, one way, between any half of the nodes and the rest; nodes stay whole."""
    graph = node_graph(rack)
    edges = list(graph.edges(data="lanes"))
    halves = combinations(graph.nodes, len(graph) // 2)
    return min(sum(lanes for a, b, lanes in edges if a in half and b not in half) for half in halves)


def lanes_past(rack: Rack, dead: int) -> int:
    """Lanes, one way, from the nodes before `dead` neighbouring nodes to the nodes after them, by max flow.

    As many nodes on each side as a link reaches: others have no link over the gap. The way round the rest of
    the ring is not counted, nor is it in the published figure.
    """
    import networkx as nx

    reach = rack.spec.levels[1].reach
    ring = list(node_graph(rack).nodes)
    before, after = ring[:reach], ring[reach + dead : 2 * reach + dead]
    graph: nx.DiGraph[Any] = nx.DiGraph()
    graph.add_edges_from(node_graph(rack).subgraph(before + after).edges(data=True))
    graph.add_edges_from(("before", node) for node in before)  # no capacity: unlimited
    graph.add_edges_from((node, "after") for node in after)
    return int(nx.maximum_flow_value(graph, "before", "after", capacity="lanes"))


def node_graph(rack: Rack) -> "nx.DiGraph[int]":
    """The nodes of a rack, numbered around the ring, and the lanes of all links between two of them."""
    import networkx as nx

    node_of = {chip: number for number, chips in enumerate(rack.levels[0].groups) for chip in chips}
    out: nx.DiGraph[int] = nx.DiGraph()
    out.add_nodes_from(range(len(rack.levels[0].groups)))
    for a, b, lanes in rack.graph().edges(data="lanes"):
        first, second = node_of[a], node_of[b]
        if first != second:
            known = out.get_edge_data(first, second, {"lanes": 0})["lanes"]
            out.add_edge(first, second, lanes=known + lanes)
    return out


def _bandwidth(
    machine: PublishedMachine, name: str, published: int, lanes: int, kind: Kind = "anchor"
) -> PublishedPoint:
    return PublishedPoint(
        case=CASE,
        name=name,
        kind=kind,
        unit="GB/s",
        published=published,
        modelled=float(machine.bytes_per_second(lanes)) / 1e9,
        tolerance_percent=TOLERANCE,
    )
