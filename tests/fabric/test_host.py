from fractions import Fraction

import pytest

from fabric.host import HostLink, host_call


def test_a_call_is_cycles_at_the_clock_and_bytes_at_the_rate_and_ten_microseconds_each_way() -> None:
    call = host_call(900_000, 900_000_000, 24_000, 48_000)
    micros = [
        Fraction(s) * 10**6
        for s in (call.input_seconds, call.compute_seconds, call.output_seconds, call.seconds)
    ]
    assert micros == [11, 1000, 12, 1023]


def test_times_are_exact_fractions() -> None:
    assert host_call(1, 900_000_000, 1, 0).compute_seconds == Fraction(1, 900_000_000)
    assert host_call(1, 900_000_000, 1, 0).input_seconds == Fraction(1, 24 * 10**9) + Fraction(1, 10**5)


def test_another_link_has_its_own_rate_and_latency() -> None:
    link = HostLink(bytes_per_second=10**9, latency_ns=0)
    assert host_call(0, 1, 10**9, 0, link).seconds == 1


@pytest.mark.parametrize(
    ("numbers", "name"),
    [((-1, 1, 0, 0), "cycles"), ((0, 0, 0, 0), "clock_hz"), ((0, 1, -1, 0), "input_bytes")],
)
def test_a_count_that_cannot_be_is_named(numbers: tuple[int, int, int, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        host_call(*numbers)
    with pytest.raises(ValueError, match="bytes_per_second"):
        host_call(0, 1, 0, 0, HostLink(bytes_per_second=0))
