"""The published case of a volatile header: met as the GPU is, not met by a GPU that is twice as fast."""

from fabric.catalog import gpu_spec
from lpu.validate.cases.gpu.preamble import BLOCK, computed_again, points, prefill_ms


def test_the_prefill_behind_a_changed_header_takes_what_was_published() -> None:
    assert [point.passed for point in points()] == [True, True, True, None]
    assert 500 < points()[2].modelled < 800
    assert prefill_ms(gpu_spec("b200"), computed_again(header=False)) < 10  # of the 168 ms


def test_a_gpu_of_twice_the_speed_does_not() -> None:
    spec = gpu_spec("b200")
    fast = spec.with_numbers("a test", flops_bf16=2 * spec.flops_bf16, flops_fp4=2 * (spec.flops_fp4 or 0))
    assert points(gpu=fast)[2].passed is False


def test_without_the_header_all_blocks_but_the_last_are_found() -> None:
    assert computed_again(header=False) == BLOCK
