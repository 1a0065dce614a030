from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.catalog import chip_spec
from fabric.chip import stated
from fabric.multicast import multicast_tree, shortest_tree
from fabric.paths import WORDS, hops, shortest_path
from fabric.rack import Rack, build_rack, load_rack
from fabric.topology import RackSpec

Machine = tuple[int, tuple[tuple[int, int, int, int], ...]]
CHIP = chip_spec("tiny").with_numbers("test", lanes=10_000)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Connected machines of no regular form: a random tree and some links more. (chips, links)."""
    chips = draw(st.integers(2, 14))
    pairs = {(draw(st.integers(0, b - 1)), b) for b in range(1, chips)}
    ends = st.integers(0, chips - 1)
    more = draw(st.lists(st.tuples(ends, ends), max_size=20))
    pairs |= {(min(pair), max(pair)) for pair in more if pair[0] != pair[1]}
    lanes = draw(st.sampled_from([1, 8, (1, 8)]))
    return chips, tuple(
        (a, b, draw(st.sampled_from(lanes)) if isinstance(lanes, tuple) else lanes, 10)
        for a, b in sorted(pairs)
    )


def built(chips: int, links: tuple[tuple[int, int, int, int], ...]) -> Rack:
    spec = RackSpec(name="r", chip="tiny", forward_ns=0, chips=chips, links=links)
    return build_rack(replace(spec, sources=stated(spec.numbers(), (), "test")), CHIP)


def best_paths(rack: Rack, a: int, b: int) -> set[tuple[int, ...]]:
    """Every path of fewest hops and, among those, fewest cycles for a message of WORDS words."""
    links = rack.links

    def cycles(path: tuple[int, ...]) -> int:
        rows = [rack.link(x, y) for x, y in pairwise(path)]
        return sum(
            int(links.hop_cycles[r] + -(-WORDS // links.lanes[r]) * links.slot_cycles[r]) for r in rows
        )

    paths = [tuple(path) for path in nx.all_shortest_paths(rack.graph(), a, b)]
    return {path for path in paths if cycles(path) == min(map(cycles, paths))}


@given(machines())
def test_hops_agree_with_networkx_on_any_machine(machine: Machine) -> None:
    rack = built(*machine)
    distance = dict(nx.all_pairs_shortest_path_length(rack.graph()))
    assert hops(rack).tolist() == [[distance[a][b] for b in range(rack.chips)] for a in range(rack.chips)]


@given(machines(), st.integers(0, 13), st.integers(0, 13))
def test_salts_run_through_all_of_the_best_paths_and_no_others(machine: Machine, a: int, b: int) -> None:
    rack = built(*machine)
    a, b = a % rack.chips, b % rack.chips
    every = best_paths(rack, a, b)
    found = {shortest_path(rack, a, b, salt) for salt in range(200)}
    assert found <= every
    assert len(found) == len(every) or len(every) > 20


@pytest.mark.slow
@settings(max_examples=200)
@given(machines(), st.integers(0, 5), st.integers(0, 13), st.lists(st.integers(0, 13), max_size=20))
def test_the_shortest_tree_reaches_each_target_over_a_best_path(
    machine: Machine, salt: int, source: int, targets: list[int]
) -> None:
    rack = built(*machine)
    source, targets = source % rack.chips, [target % rack.chips for target in targets]
    tree = shortest_tree(rack, source, targets, salt)
    path: dict[int, tuple[int, ...]] = {source: (source,)}
    for parent, child in tree:
        assert child not in path
        path[child] = (*path[parent], child)  # the parent came before: a KeyError otherwise
    assert all(path[target] in best_paths(rack, source, target) for target in targets)
    assert {child for _, child in tree} - set(targets) <= {parent for parent, _ in tree}  # no dead ends
    assert [len(one) for one in path.values()] == sorted(len(one) for one in path.values())
    assert tree == shortest_tree(rack, source, list(reversed(targets)), salt)


@pytest.mark.slow
@settings(max_examples=200)
@given(machines(), st.integers(0, 5), st.integers(0, 13), st.lists(st.integers(0, 13), max_size=20))
def test_a_multicast_tree_takes_fewer_links_and_makes_nobody_the_farthest(
    machine: Machine, salt: int, source: int, targets: list[int]
) -> None:
    rack = built(*machine)
    source, targets = source % rack.chips, [target % rack.chips for target in targets]
    tree = multicast_tree(rack, source, targets, salt)
    depth = {source: 0}
    for parent, child in tree:
        assert child not in depth
        rack.link(parent, child)
        depth[child] = depth[parent] + 1
    assert set(targets) <= set(depth)
    assert max(depth.values()) == max((int(hops(rack)[source, target]) for target in targets), default=0)
    assert {child for _, child in tree} - set(targets) <= {parent for parent, _ in tree}  # no dead ends
    assert len(tree) <= len(shortest_tree(rack, source, targets, salt))
    assert tree == multicast_tree(rack, source, list(reversed(targets)), salt)


@pytest.mark.parametrize(
    ("name", "tray", "first", "shortest"),
    [
        ("lpx", 8, 8, 14),
        ("lpx", 8, 248, 14),
        ("lpx-16x16", 16, 16, 16),
        ("lpx-x4", 8, 1016, 14),
        ("groqrack-72", 8, 8, 20),
    ],
)
def test_a_tray_is_entered_once(name: str, tray: int, first: int, shortest: int) -> None:
    rack = load_rack(name)
    targets = range(first, first + tray)

    def entries(find: Callable[..., list[tuple[int, int]]]) -> Counter[tuple[int, int]]:
        trees = [find(rack, source, targets, source) for source in range(tray)]
        return Counter((a, b) for tree in trees for a, b in tree if b in targets and a not in targets)

    assert sum(entries(shortest_tree).values()) == shortest
    assert sum(entries(multicast_tree).values()) == tray
    assert max(entries(multicast_tree).values()) <= tray // 2  # doors share the work


def test_trays_of_a_group_are_entered_once_by_thrifty_trees() -> None:
    """All chips of four trays are targets: the shortest trees enter by both links of every two trays."""
    rack, group = load_rack("lpx"), list(range(32, 64))

    def entries(thrifty: bool) -> Counter[tuple[int, int]]:
        trees = [multicast_tree(rack, 32 + salt, group, salt, thrifty=thrifty) for salt in range(8)]
        assert all({child for _, child in tree} >= set(group) - {32 + i} for i, tree in enumerate(trees))
        depths = [len(shortest_tree(rack, 32 + i, group, i)) for i in range(8)]
        assert [len(tree) for tree in trees] == depths
        return Counter((a, b) for tree in trees for a, b in tree if a // 8 == 4 and b // 8 in (5, 6, 7))

    assert set(entries(False).values()) == {8}
    assert max(entries(True).values()) == 4


def test_targets_forward_before_bystanders_do() -> None:
    rack = load_rack("torus-4x4")
    # From 0 to 5 by 1 or by 4: whichever is a target is the parent.
    for salt in range(8):
        assert multicast_tree(rack, 0, [5, 1], salt) == [(0, 1), (1, 5)]
        assert multicast_tree(rack, 0, [5, 4], salt) == [(0, 4), (4, 5)]


def test_one_bystander_serves_all_whom_it_can() -> None:
    rack = load_rack("lpx")
    # Tray 3 is entered at its gateways 26 and 27, from 5 and 4 of tray 0; 7 has no link to it.
    for salt in range(8):
        tree = multicast_tree(rack, 7, [24, 25, 28, 29, 30], salt)
        assert len(tree) == 7
        assert {parent for parent, _ in tree} in ({7, 4, 27}, {7, 5, 26})
        assert len(multicast_tree(rack, 7, [24, 25, 26, 27, 28, 29, 30], salt)) == 8
        both = shortest_tree(rack, 7, [24, 25, 26, 27, 28, 29, 30], salt)
        assert {parent for parent, _ in both} == {7, 4, 5, 26, 27}


def test_of_paths_with_equally_many_hops_the_widest_is_taken() -> None:
    wide = built(4, ((0, 1, 1, 10), (1, 3, 8, 10), (0, 2, 8, 10), (2, 3, 8, 10)))
    assert shortest_path(wide, 0, 3, 0) == shortest_path(wide, 0, 3, 1) == (0, 2, 3)
    near = built(4, ((0, 1, 1, 10), (1, 3, 1, 10), (0, 2, 1, 10), (2, 3, 1, 11)))
    assert multicast_tree(near, 0, [3]) == [(0, 1), (1, 3)]


def test_salts_spread_over_both_gateways_between_two_trays() -> None:
    rack = load_rack("lpx")
    paths = Counter(shortest_path(rack, 7, 24, salt) for salt in range(64))
    assert paths == {(7, 4, 27, 24): 32, (7, 5, 26, 24): 32}
    trees = Counter(multicast_tree(rack, 7, [24], salt)[0] for salt in range(64))
    assert len(trees) == 2
    assert min(trees.values()) >= 20


@pytest.mark.parametrize("salt", range(4))
def test_messages_of_one_source_take_both_gateways_in_turn(salt: int) -> None:
    rack = load_rack("lpx")
    trees = [multicast_tree(rack, 7, [24, 40], salt, turn=turn) for turn in range(4)]
    assert trees[0] == multicast_tree(rack, 7, [24, 40], salt)
    assert (trees[0], trees[1]) == (trees[2], trees[3])
    assert {len(tree) for tree in trees} == {6}
    doors = [{link for link in tree if link[0] // 8 != link[1] // 8} for tree in trees[:2]]
    assert [len(links) for links in doors] == [2, 2]
    assert doors[0].isdisjoint(doors[1])


def test_equal_groups_of_a_symmetric_rack_get_equal_trees() -> None:
    rack = load_rack("torus-4x4")
    tree = multicast_tree(rack, 0, [6, 9, 10], 3)
    for shift in (4, 8, 12):  # a row further
        moved = multicast_tree(rack, shift, [(t + shift) % 16 for t in (6, 9, 10)], 3)
        assert moved == [((a + shift) % 16, (b + shift) % 16) for a, b in tree]


def test_nothing_to_reach_is_an_empty_tree() -> None:
    rack = load_rack("ring-8")
    assert multicast_tree(rack, 3, []) == []
    assert multicast_tree(rack, 3, [3, 3]) == []
    assert shortest_path(rack, 3, 3) == (3,)


@pytest.mark.parametrize("name", ["lpx", "lpx-x4"])
def test_hops_are_counted_once_and_kept(name: str) -> None:
    rack = load_rack(name)
    first = hops(rack)
    assert hops(rack) is first
    assert not first.flags.writeable
    assert np.array_equal(first, first.T)


def test_more_chips_behind_the_edge_of_a_mesh_change_no_tree() -> None:
    def mesh(rows: int) -> Rack:
        pairs = [(chip, chip + 1) for chip in range(4 * rows) if chip % 4 < 3]
        pairs += [(chip, chip + 4) for chip in range(4 * rows - 4)]
        return built(4 * rows, tuple((a, b, 2, 400) for a, b in pairs))

    less, more = mesh(3), mesh(4)
    for source, targets in ((5, [0, 2, 8, 10]), (1, [4, 6, 9, 11]), (10, [0, 1, 2, 3])):
        for salt in range(8):
            assert multicast_tree(less, source, targets, salt) == multicast_tree(more, source, targets, salt)
