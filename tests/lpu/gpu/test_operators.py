from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import OptionError
from fabric.catalog import gpu_names, gpu_spec
from lpu.gpu import operators as gpu
from lpu.gpu.operators import GemmFormat, KvFormat

H200, R100 = gpu_spec("h200"), gpu_spec("r100")
SPECS = st.sampled_from([gpu_spec(name) for name in gpu_names()])
KV = st.sampled_from(["bf16", "fp16", "fp8"])
COUNT = st.integers(1, 512)
LENGTH = st.integers(1, 262_144)


def test_decode_attention_by_hand() -> None:
    """h200: 11.4 us + 3.2 us x 8 x 8 / 132 + 268.7 MB / 4.32 TB/s."""
    size = 8 * (4 * 64 * 128 + 2 * 8 * 8192 * 128 * 2)
    assert size == 268_697_600
    by_hand = 11.4e-6 + 3.2e-6 * 64 / 132 + size / (4.8e12 * 0.9)
    assert gpu.decode_attention(H200, 8, 8192, 64, 8, 128) == pytest.approx(by_hand, rel=1e-12)
    assert by_hand == pytest.approx(75.150e-6, rel=1e-4)


def test_decode_attention_of_many_heads_per_key_is_bound_by_flops() -> None:
    by_hand = 11.4e-6 + 3.2e-6 / 132 + 4 * 1024 * 128 * 65536 / (989e12 * 0.6)
    assert gpu.decode_attention(H200, 1, 65536, 1024, 1, 128) == pytest.approx(by_hand, rel=1e-12)


def test_decode_mla_by_hand_pads_heads_to_64() -> None:
    flops = 2 * 32 * 64 * 4096 * 1088
    by_hand = (
        14.2e-6 + 7.4e-6 * 32 / 132 + max(32 * 4096 * 576 * 2 / (4.8e12 * 0.91), flops / (989e12 * 0.615))
    )
    assert gpu.decode_mla(H200, 32, 4096, 16) == pytest.approx(by_hand, rel=1e-12)
    assert gpu.decode_mla(H200, 32, 4096, 16) == gpu.decode_mla(H200, 32, 4096, 64)
    assert gpu.decode_mla(H200, 32, 4096, 128) > gpu.decode_mla(H200, 32, 4096, 64)


def test_context_attention_by_hand() -> None:
    by_hand = 13.6e-6 + 2 * 1024**2 * 64 * 128 * (1 + 1240 / 1024) / (989e12 * 0.58)
    assert gpu.context_attention(H200, 1, 1024, 64, 8, 128) == pytest.approx(by_hand, rel=1e-12)


def test_a_prefix_adds_the_products_with_it() -> None:
    flops = 2 * ((4096 + 1024) ** 2 - 4096**2) * 64 * 128 * (1 + 2007 / 1024)
    by_hand = 17.2e-6 + flops / (989e12 * 0.88)
    found = gpu.context_attention(H200, 1, 1024, 64, 8, 128, "fp8", prefix=4096)
    assert found == pytest.approx(by_hand, rel=1e-12)


def test_one_token_of_many_sequences_after_a_prefix_reads_all_its_keys() -> None:
    spec = replace(H200, context_bf16=replace(H200.context_bf16, s_half=0))
    size = 8 * (4 * 64 * 128 + 2 * 8192 * 8 * 128 * 2)
    by_hand = 13.6e-6 + size / (4.8e12 * 0.9)
    assert gpu.context_attention(spec, 8, 1, 64, 8, 128, prefix=8191) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "by_hand"),
    [
        ("bf16", 3.75e-6 + (2 * 10240 * 8192 + 2 * 8192 + 2 * 10240) / (4.8e12 * 0.81)),
        ("w8a16", 3.75e-6 + (10240 * 8192 + 2 * 8192 + 2 * 10240) / (4.8e12 * 0.81)),
        ("fp8", 13.9e-6 + (10240 * 8192 + 8192 + 2 * 10240) / (4.8e12 * 0.82)),
        ("fp8_block", 7.3e-6 + (10240 * 8192 + 8192 + 2 * 10240) / (4.8e12 * 0.80)),
    ],
)
def test_a_product_by_hand(kind: GemmFormat, by_hand: float) -> None:
    assert gpu.gemm(H200, 1, 10240, 8192, kind) == pytest.approx(by_hand, rel=1e-12)


def test_a_large_product_is_bound_by_flops_of_its_format() -> None:
    flops = 2 * 8192**3
    assert gpu.gemm(H200, 8192, 8192, 8192) == pytest.approx(3.75e-6 + flops / (989e12 * 0.78), rel=1e-12)
    assert gpu.gemm(H200, 8192, 8192, 8192, "w8a16") == gpu.gemm(H200, 8192, 8192, 8192)
    fp4 = 10e-6 + flops / (35e15 * 0.35)
    assert gpu.gemm(R100, 8192, 8192, 8192, "nvfp4") == pytest.approx(fp4, rel=1e-12)


def test_a_gpu_without_four_bit_products_says_so() -> None:
    with pytest.raises(OptionError, match="h200 has no 4-bit products, 0 FLOP/s"):
        gpu.gemm(H200, 1, 512, 512, "nvfp4")


def test_small_elementwise_kernels_take_their_launch_and_large_ones_their_bytes() -> None:
    assert gpu.elementwise(H200, 16_384) == 2.5e-6
    assert gpu.elementwise(H200, 16_384, launches=3) == pytest.approx(7.5e-6)
    assert gpu.elementwise(H200, 10**9) == pytest.approx(1e9 / (4.8e12 * 0.9))


def test_all_reduces_of_eight_meet_the_measured_points() -> None:
    for size, seconds in H200.all_reduce.points:
        assert gpu.all_reduce(H200, 8, size) == pytest.approx(seconds, rel=1e-12)
    assert gpu.all_reduce(H200, 8, 0) == 3.0e-6
    middle = (256 * 262_144) ** 0.5
    assert gpu.all_reduce(H200, 8, int(middle)) == pytest.approx((3.0 * 10.1) ** 0.5 * 1e-6, rel=1e-6)
    half = (2_097_152 + 536_870_912) // 2
    assert gpu.all_reduce(H200, 8, half) == pytest.approx((30.5e-6 + 2.05e-3) / 2, rel=1e-6)


def test_a_link_four_times_as_fast_carries_four_times_the_bytes() -> None:
    assert gpu.all_reduce(R100, 8, 4 * 262_144) == pytest.approx(10.1e-6, rel=1e-12)
    assert gpu.all_reduce(R100, 8, 256) == 3.0e-6


def test_other_numbers_of_gpus_take_the_nccl_floor_and_the_bytes_of_a_ring() -> None:
    assert gpu.all_reduce(H200, 1, 10**6) == 0
    assert gpu.all_reduce(H200, 2, 0) == 6.0e-6
    assert gpu.all_reduce(H200, 3, 0) == 9.5e-6
    assert gpu.all_reduce(H200, 4, 900_000) == pytest.approx(9.5e-6 + 1.5 * 900_000 / 450e9, rel=1e-12)
    assert gpu.all_reduce(R100, 16, 0) == 16.0e-6


def test_a_window_is_the_most_keys_that_count() -> None:
    full = gpu.decode_attention(H200, 4, 4096, 64, 8, 128)
    assert gpu.decode_attention(H200, 4, 65536, 64, 8, 128, window=4096) == full
    assert gpu.decode_attention(H200, 4, 4096, 64, 8, 128, window=65536) == full
    assert gpu.decode_attention(H200, 4, 4096, 64, 8, 128, window=0) == full


def test_the_split_limit_slows_one_sequence_of_one_head_and_no_wide_batch() -> None:
    def both(batch: int) -> list[float]:
        return [gpu.decode_attention(H200, batch, 131_072, 8, 1, 128, split_limit=on) for on in (False, True)]

    free, capped = both(1)
    assert free == pytest.approx(26.96e-6, rel=1e-3)
    assert capped - 11.4e-6 == pytest.approx(67.1e6 / 1.7e12, rel=0.01)
    assert len(set(both(4))) == 1


@given(spec=SPECS, kv=KV, batch=COUNT, kv_len=LENGTH, more=COUNT, heads=st.sampled_from([1, 8, 16]))
def test_decode_never_gets_shorter_with_batch_or_context(
    spec: gpu.GpuSpec, kv: KvFormat, batch: int, kv_len: int, more: int, heads: int
) -> None:
    now = gpu.decode_attention(spec, batch, kv_len, 8 * heads, heads, 128, kv)
    assert gpu.decode_attention(spec, batch + more, kv_len, 8 * heads, heads, 128, kv) > now
    assert gpu.decode_attention(spec, batch, kv_len + more, 8 * heads, heads, 128, kv) > now
    latent = gpu.decode_mla(spec, batch, kv_len, heads, kv)
    assert gpu.decode_mla(spec, batch + more, kv_len, heads, kv) > latent
    assert gpu.decode_mla(spec, batch, kv_len + more, heads, kv) > latent


@given(spec=SPECS, kv=KV, batch=COUNT, tokens=COUNT, prefix=LENGTH, more=COUNT)
def test_prefill_never_gets_shorter_with_batch_tokens_or_prefix(
    spec: gpu.GpuSpec, kv: KvFormat, batch: int, tokens: int, prefix: int, more: int
) -> None:
    now = gpu.context_attention(spec, batch, tokens, 64, 8, 128, kv, prefix)
    assert gpu.context_attention(spec, batch + more, tokens, 64, 8, 128, kv, prefix) > now
    assert gpu.context_attention(spec, batch, tokens + more, 64, 8, 128, kv, prefix) > now
    assert gpu.context_attention(spec, batch, tokens, 64, 8, 128, kv, prefix + more) > now


@given(spec=SPECS, gpus=st.integers(1, 72), size=st.integers(0, 2**31), more=COUNT)
def test_products_and_all_reduces_never_get_shorter_with_size(
    spec: gpu.GpuSpec, gpus: int, size: int, more: int
) -> None:
    assert gpu.all_reduce(spec, gpus, size + more) >= gpu.all_reduce(spec, gpus, size) * (1 - 1e-12)
    now = gpu.gemm(spec, more, 4096, 4096, "w8a16")
    assert gpu.gemm(spec, more + 1, 4096, 4096, "w8a16") > now
    assert gpu.gemm(spec, more, 4097, 4096, "w8a16") > now


@pytest.mark.parametrize("call", [
    lambda: gpu.decode_attention(H200, 0, 1, 8, 8, 128),
    lambda: gpu.decode_mla(H200, 1, 0, 8),
    lambda: gpu.context_attention(H200, 1, 0, 8, 8, 128),
    lambda: gpu.gemm(H200, 1, 1, 0),
    lambda: gpu.all_reduce(H200, 0, 8),
])  # fmt: skip
def test_a_count_of_nothing_is_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(OptionError, match="is 0, the least is 1"):
        call()
