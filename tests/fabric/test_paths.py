import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.catalog import chip_spec
from fabric.chip import stated
from fabric.paths import hops, multicast_tree, shortest_path
from fabric.rack import build_rack, load_rack
from fabric.topology import RackSpec

CHIP = chip_spec("tiny").with_numbers("test", lanes=10_000)


@st.composite
def racks(draw):
    """Connected racks of no regular form: a random tree and some links more."""
    chips = draw(st.integers(2, 14))
    pairs = {(draw(st.integers(0, b - 1)), b) for b in range(1, chips)}
    ends = st.integers(0, chips - 1)
    more = draw(st.lists(st.tuples(ends, ends), max_size=20))
    pairs |= {(min(pair), max(pair)) for pair in more if pair[0] != pair[1]}
    links = tuple((a, b, 1, 10) for a, b in sorted(pairs))
    spec = RackSpec(name="r", chip="tiny", forward_ns=0, chips=chips, links=links)
    return build_rack(replace(spec, sources=stated(spec.numbers(), (), "test")), CHIP)


@given(racks())
def test_hops_agree_with_networkx_on_any_machine(rack):
    distance = dict(nx.all_pairs_shortest_path_length(rack.graph()))
    assert hops(rack).tolist() == [[distance[a][b] for b in range(rack.chips)] for a in range(rack.chips)]


@given(racks(), st.data())
def test_a_path_has_the_fewest_links_and_salts_run_through_all_of_them(rack, data):
    a = data.draw(st.integers(0, rack.chips - 1))
    b = data.draw(st.integers(0, rack.chips - 1))
    every = {tuple(path) for path in nx.all_shortest_paths(rack.graph(), a, b)}
    found = {shortest_path(rack, a, b, salt) for salt in range(200)}
    assert found <= every
    assert len(found) == len(every) or len(every) > 20
    assert all(rack.link(x, y) >= 0 for path in found for x, y in pairwise(path))


@settings(max_examples=200)
@given(racks(), st.integers(0, 5), st.data())
def test_a_multicast_tree_reaches_each_target_in_the_fewest_hops(rack, salt, data):
    chip = st.integers(0, rack.chips - 1)
    source, targets = data.draw(chip), data.draw(st.lists(chip, max_size=20))
    tree = multicast_tree(rack, source, targets, salt)
    depth = {source: 0}
    for parent, child in tree:
        assert rack.link(parent, child) >= 0
        assert child not in depth
        depth[child] = depth[parent] + 1  # the parent came before: a KeyError otherwise
    assert all(depth[target] == hops(rack)[source, target] for target in targets)
    assert {child for _, child in tree} - set(targets) <= {parent for parent, _ in tree}  # no dead ends
    assert list(depth.values()) == sorted(depth.values())
    assert tree == multicast_tree(rack, source, list(reversed(targets)), salt)


def test_targets_forward_before_bystanders_do():
    rack = load_rack("torus-4x4")
    # From 0 to 5 by 1 or by 4: whichever is a target is the parent.
    for salt in range(8):
        assert multicast_tree(rack, 0, [5, 1], salt) == [(0, 1), (1, 5)]
        assert multicast_tree(rack, 0, [5, 4], salt) == [(0, 4), (4, 5)]


def test_one_bystander_serves_all_whom_it_can():
    rack = load_rack("lpx")
    tree = multicast_tree(
        rack, 7, list(range(24, 32))
    )  # tray 3, entered at its gateways 26 and 27 from 4 and 5
    assert len(tree) == 10
    assert {parent for parent, _ in tree} == {7, 4, 5, 26, 27}
    one = multicast_tree(rack, 7, [24, 25, 28, 29, 30, 31])
    assert len(one) == 8  # one gateway suffices


def test_salts_spread_over_both_gateways_between_two_trays():
    rack = load_rack("lpx")
    paths = Counter(shortest_path(rack, 7, 24, salt) for salt in range(64))
    assert sorted(paths.values()) == [32, 32]
    trees = Counter(multicast_tree(rack, 7, [24], salt)[0] for salt in range(64))
    assert len(trees) == 2
    assert min(trees.values()) >= 20


def test_equal_groups_of_a_symmetric_rack_get_equal_trees():
    rack = load_rack("torus-4x4")
    tree = multicast_tree(rack, 0, [6, 9, 10], 3)
    for shift in (4, 8, 12):  # a row further
        moved = multicast_tree(rack, shift, [(t + shift) % 16 for t in (6, 9, 10)], 3)
        assert moved == [((a + shift) % 16, (b + shift) % 16) for a, b in tree]


def test_nothing_to_reach_is_an_empty_tree():
    rack = load_rack("ring-8")
    assert multicast_tree(rack, 3, []) == []
    assert multicast_tree(rack, 3, [3, 3]) == []
    assert shortest_path(rack, 3, 3) == (3,)


@pytest.mark.parametrize(("name", "seconds"), [("lpx", 0.1), ("lpx-x4", 2.0)])
def test_hops_are_kept_and_fast(name, seconds):
    rack = load_rack(name)
    start = time.perf_counter()
    first = hops(rack)
    assert time.perf_counter() - start < seconds
    assert hops(rack) is first
    assert not first.flags.writeable
    assert np.array_equal(first, first.T)
