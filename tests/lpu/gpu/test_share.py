"""GPUs beside a rack: replicas, bytes over their NICs, what fits."""

from dataclasses import replace
from fractions import Fraction
from math import ceil

import pytest
from hopped import BRIDGE
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import CapacityError, OptionError
from fabric.catalog import gpu_spec
from lpu.gpu.share import GpuShare, fastest, shares
from models.catalog import catalog

H200 = gpu_spec("h200")
LLAMA = catalog("llama-3.1-70b")


def of(gpus: int, heads: int = 64, kv_heads: int = 8) -> GpuShare:
    return shares(replace(LLAMA, heads=heads, kv_heads=kv_heads), H200, gpus, BRIDGE)[-1]


@pytest.mark.parametrize(
    ("gpus", "heads", "kv_heads", "tp", "replicas"),
    [
        (1, 64, 8, 1, 1),
        (8, 64, 8, 8, 1),
        (72, 64, 8, 8, 9),
        (7, 64, 8, 1, 7),
        (12, 64, 8, 4, 3),
        (16, 4, 1, 4, 4),
        (8, 24, 6, 2, 4),
    ],
)
def test_the_largest_replica_is_of_gpus_that_the_heads_divide_over(
    gpus: int, heads: int, kv_heads: int, tp: int, replicas: int
) -> None:
    found = of(gpus, heads, kv_heads)
    assert (found.pool.gpus, found.replicas, found.gpus) == (tp, replicas, gpus)
    found.attention(1, 16)  # the heads do divide over them


def test_no_gpus_are_refused() -> None:
    with pytest.raises(OptionError, match="--gpus: is 0, needs at least 1"):
        of(0)


@given(batch=st.integers(1, 100), gpus=st.integers(1, 40))
def test_a_batch_is_dealt_out_and_the_fullest_replica_counts(batch: int, gpus: int) -> None:
    found = of(gpus)
    assert found.rows(batch) == ceil(batch / found.replicas)
    assert found.idle(batch) == sum(number >= batch for number in range(found.replicas))


@given(rows=st.integers(1, 64), width=st.integers(1, 1 << 16), gpus=st.sampled_from([1, 2, 8, 24, 64]))
def test_bytes_go_over_all_nics_of_a_replica_and_copies_as_often_as_there_are_gpus(
    rows: int, width: int, gpus: int
) -> None:
    found, batch = of(gpus), rows
    own = width * found.rows(batch)  # bytes of the fullest replica
    nics = found.pool.gpus * 50_000_000_000
    assert found.wire(batch * width, batch) == ceil(Fraction(own * 10**12, nics))
    assert found.copied(batch * width, batch) == ceil(Fraction(own * 10**12, 50_000_000_000))


def test_wires_by_hand() -> None:
    """1600 bytes of 4 sequences, 50 GB/s: 32 ns over one NIC, 4 ns over eight; half of it in each of two."""
    assert of(1).wire(1600, 4) == of(1).copied(1600, 4) == 32_000
    assert of(8).wire(1600, 4) == 4_000
    assert of(8).copied(1600, 4) == 32_000
    assert of(16).wire(1600, 4) == 2_000
    assert of(1).latency == 4_000_000


def test_what_does_not_fit_names_the_replicas() -> None:
    of(1).require_fit(1, 1024)
    with pytest.raises(CapacityError, match=r"gpu: 1 x h200: needs .* Take more GPUs"):
        of(1).require_fit(64, 65536)
    with pytest.raises(
        CapacityError, match=r"each of 7 replicas of 1 x h200: needs .* Take more GPUs to a replica"
    ):
        of(7).require_fit(64, 65536)
    of(8).require_fit(32, 65536)


def test_gpus_can_be_dealt_in_every_way_that_the_heads_divide_over() -> None:
    assert [one.pool.gpus for one in shares(LLAMA, H200, 8, BRIDGE)] == [1, 2, 4, 8]
    assert [one.pool.gpus for one in shares(LLAMA, H200, 8, BRIDGE, tp=4)] == [4]
    with pytest.raises(OptionError, match=r"--gpu-tp 3: 8 GPUs .* can be dealt 1, 2, 4, 8 to a replica"):
        shares(LLAMA, H200, 8, BRIDGE, tp=3)


def test_the_fastest_way_is_the_fastest_of_those_that_fit() -> None:
    every = shares(LLAMA, H200, 8, BRIDGE)
    times = [one.prefill(8192, 0, 8) for one in every]
    assert fastest(every, lambda one: one.prefill(8192, 0, 8), 8, 8192).prefill(8192, 0, 8) == min(times)
    alone = fastest(every, lambda one: one.pool.gpus, 32, 65536)
    assert alone.pool.gpus > 1  # one GPU cannot hold its share of the KV beside all weights
    with pytest.raises(CapacityError, match="Take more GPUs"):
        fastest(every, lambda one: one.pool.gpus, 512, 65536)
    assert fastest(every, lambda one: one.pool.gpus, 32, 32768, ffns=0).pool.gpus == 1
