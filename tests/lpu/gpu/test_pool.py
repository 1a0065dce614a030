from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import CapacityError, OptionError
from fabric.catalog import gpu_spec
from lpu.gpu import operators as gpu
from lpu.gpu.breakdown import Breakdown, OpTime
from lpu.gpu.pool import GpuPool
from lpu.gpu.table import GpuTable
from lpu.validate.cases.gpu.operators import catalog_bench
from models.catalog import catalog

H200, R100 = gpu_spec("h200"), gpu_spec("r100")
LLAMA, QWEN = catalog("llama-3.1-70b"), catalog("qwen3-32b")
ONE, EIGHT = GpuPool(spec=H200), GpuPool(spec=H200, gpus=8)
ATTENTION = ["norm", "qkv", "rope_append", "attention", "o", "add_ffn_norm"]
FFN = ["gate_up", "activation", "down"]


def names(breakdown: Breakdown) -> list[str]:
    return [op.name for op in breakdown.ops]


def test_the_attention_half_of_a_layer_on_eight_gpus_by_hand() -> None:
    """Llama 3.1 70B, batch 16, 8192 keys: one KV head and 8 query heads on each GPU, fp8 KV."""
    found = EIGHT.attention_layer(LLAMA, 16, 8192, "fp8")
    by_hand = (
        3 * 2.5e-6
        + gpu.gemm(H200, 16, (8 + 2) * 128, 8192, "w8a16")
        + gpu.decode_attention(H200, 16, 8192, 8, 1, 128, "fp8")
        + gpu.gemm(H200, 16, 8192, 8 * 128, "w8a16")
        + gpu.all_reduce(H200, 8, 16 * 8192 * 2)
    )
    assert found.seconds == pytest.approx(by_hand, rel=1e-12)
    assert names(found) == [*ATTENTION[:5], "o_all_reduce", "add_ffn_norm"]


def test_the_ffn_of_a_layer_by_hand() -> None:
    by_hand = (
        gpu.gemm(H200, 4, 2 * 3584, 8192, "w8a16")
        + 2.5e-6
        + gpu.gemm(H200, 4, 8192, 3584, "w8a16")
        + gpu.all_reduce(H200, 8, 4 * 8192 * 2)
    )
    assert EIGHT.ffn_layer(LLAMA, 4).seconds == pytest.approx(by_hand, rel=1e-12)


def test_one_gpu_launches_nine_kernels_a_layer_and_several_eleven() -> None:
    def launches(pool: GpuPool) -> int:
        return pool.attention_layer(LLAMA, 1, 1024).launches + pool.ffn_layer(LLAMA, 1).launches

    assert (launches(ONE), launches(EIGHT)) == (9, 11)
    assert names(ONE.attention_layer(LLAMA, 1, 1024)) + names(ONE.ffn_layer(LLAMA, 1)) == ATTENTION + FFN
    assert "qk_norm" in names(ONE.attention_layer(QWEN, 1, 1024))


def test_a_step_is_embedding_layers_and_head() -> None:
    layer = EIGHT.attention_layer(LLAMA, 2, 4096).seconds + EIGHT.ffn_layer(LLAMA, 2).seconds
    ends = EIGHT.embed(LLAMA, 2).seconds + EIGHT.head(LLAMA, 2).seconds
    step = EIGHT.step(LLAMA, 2, 4096)
    assert step.seconds == pytest.approx(80 * layer + ends, rel=1e-12)
    assert step.launches == 1 + 80 * 11 + 4
    assert names(step)[-4:] == ["final_norm", "head", "argmax", "argmax_all_reduce"]


def test_a_prefill_ends_with_the_head_of_one_token_per_sequence() -> None:
    layer = EIGHT.prefill_layer(LLAMA, 2048, prefix=1024, batch=3)
    whole = EIGHT.prefill(LLAMA, 2048, prefix=1024, batch=3)
    ends = EIGHT.embed(LLAMA, 3 * 2048).seconds + EIGHT.head(LLAMA, 3).seconds
    assert whole.seconds == pytest.approx(80 * layer.seconds + ends, rel=1e-12)
    (attention,) = (op.seconds for op in layer.ops if op.name == "attention")
    assert attention == gpu.context_attention(H200, 3, 2048, 8, 1, 128, prefix=1024)
    (norm,) = (op.seconds for op in layer.ops if op.name == "norm")
    assert norm == pytest.approx(4 * 3 * 2048 * 8192 * 2 / (4.8e12 * 0.9))


def test_kv_heads_are_copied_where_there_are_fewer_than_gpus() -> None:
    wide = GpuPool(spec=R100, gpus=16)
    assert (EIGHT.heads(LLAMA), wide.heads(LLAMA)) == ((8, 1), (4, 1))
    assert wide.kv_bytes(LLAMA, 1, 1000) == 2 * EIGHT.kv_bytes(LLAMA, 1, 1000)


@pytest.mark.parametrize(("gpus", "spec"), [(3, H200), (6, H200), (24, R100)])
def test_gpus_that_do_not_divide_the_heads_are_refused_in_one_line(gpus: int, spec: gpu.GpuSpec) -> None:
    with pytest.raises(OptionError, match=f"64 query and 8 KV heads do not divide over {gpus} GPUs") as error:
        GpuPool(spec=spec, gpus=gpus).step(LLAMA, 1, 1024)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("gpus", [0, 9])
def test_a_pool_is_one_nvlink_domain(gpus: int) -> None:
    with pytest.raises(OptionError, match=f"gpus: is {gpus}, one NVLink domain of h200 has 8. Take 1 to 8"):
        GpuPool(spec=H200, gpus=gpus)


def test_weights_in_bf16_on_one_gpu_are_two_bytes_per_parameter() -> None:
    pool = replace(ONE, gemm="bf16")
    for config in (LLAMA, QWEN):
        assert pool.weight_bytes(config) == 2 * config.parameters()


def test_weights_without_ffns_are_what_an_attention_pool_holds() -> None:
    ffn = ONE.weight_bytes(LLAMA) - ONE.weight_bytes(LLAMA, ffns=0)
    assert ffn == 80 * 3 * 8192 * 28672


def test_kv_bytes_by_hand() -> None:
    assert ONE.kv_bytes(LLAMA, 4, 8192) == 2 * 80 * 8 * 128 * 2 * 4 * 8192
    assert EIGHT.kv_bytes(LLAMA, 4, 8192, "fp8") == 2 * 80 * 8 * 128 * 4 * 8192


def test_what_does_not_fit_is_refused_with_both_numbers_and_a_remedy() -> None:
    weights, kv = ONE.weight_bytes(LLAMA), ONE.kv_bytes(LLAMA, 64, 8192)
    line = r"1 x h200: needs 243\.4 GB \(weights 71\.6, KV 171\.8\), 126\.9 GB are usable \(90 %\)\. Take"
    with pytest.raises(CapacityError, match=line):
        ONE.require_fit(weights, kv)
    EIGHT.require_fit(EIGHT.weight_bytes(LLAMA), EIGHT.kv_bytes(LLAMA, 64, 8192))
    ONE.require_fit(ONE.memory_bytes, 0)
    with pytest.raises(CapacityError):
        ONE.require_fit(ONE.memory_bytes, 1)


def test_a_whole_step_prints_its_band() -> None:
    for pool in (GpuPool(spec=R100, gpus=4), EIGHT):
        assert "us +-30 %, modelled" in str(pool.step(LLAMA, 1, 8192))
    assert GpuPool(spec=R100).step(LLAMA, 1, 8192).to_json()["band"] == 0.3


@given(batch=st.integers(1, 256), kv_len=st.integers(1, 100_000), more=st.integers(1, 1000))
def test_a_step_never_gets_shorter_with_batch_or_context(batch: int, kv_len: int, more: int) -> None:
    for pool in (EIGHT, GpuPool(spec=R100, gpus=4)):
        now = pool.step(LLAMA, batch, kv_len).seconds
        assert pool.step(LLAMA, batch + more, kv_len).seconds > now
        assert pool.step(LLAMA, batch, kv_len + more).seconds > now


def test_a_breakdown_is_of_one_basis_or_says_both() -> None:
    modelled = Breakdown(ops=(OpTime(name="a", seconds=1.0),), band=0.25)
    measured = Breakdown(ops=(OpTime(name="b", seconds=2.0, basis="measured"),))
    both = modelled.then(measured.times(3))
    assert (modelled.basis, measured.basis, both.basis) == ("modelled", "measured", "measured and modelled")
    assert (both.seconds, both.launches, both.band) == (7.0, 4, 0.25)
    assert "7,000,000.0 us +-25 %, measured and modelled" in str(both)
    assert [op["kind"] for op in both.to_json()["ops"]] == ["modelled", "measured"]


def test_a_table_is_used_where_it_has_the_point_and_the_result_says_so() -> None:
    table = catalog_bench().table
    pool = replace(EIGHT, gemm="bf16", table=table)
    layer = pool.attention_layer(LLAMA, 1, 131_072)
    assert {op.name: op.basis for op in layer.ops if op.basis == "measured"} == {"attention": "measured"}
    assert layer.basis == "measured and modelled"
    assert next(op.seconds for op in layer.ops if op.name == "attention") == pytest.approx(51.808e-6)
    assert pool.attention_layer(LLAMA, 1, 131_073).basis == "modelled"
    empty = replace(EIGHT, table=GpuTable(path=Path("t.csv"), points=()))
    assert empty.step(LLAMA, 1, 1024) == EIGHT.step(LLAMA, 1, 1024)
