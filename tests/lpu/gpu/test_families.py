"""What GPUs launch for layers that are not a Llama's: windows, two geometries, latents, experts."""

from dataclasses import replace
from math import ceil

import pytest

from fabric.catalog import bridge_spec, gpu_spec
from lpu.gpu import operators as gpu
from lpu.gpu.experts.kernel import ExpertShape, expert_seconds
from lpu.gpu.families.llama import in_reach
from lpu.gpu.families.registry import layers_of
from lpu.gpu.latent import latent_seconds
from lpu.gpu.pool import GpuPool
from lpu.gpu.share import shares
from models.catalog import catalog

H200 = gpu_spec("h200")
OSS, V3, K2 = catalog("gpt-oss-120b"), catalog("deepseek-v3"), catalog("kimi-k2")
GEMMA, LLAMA4 = catalog("gemma-4-31b"), catalog("llama-4-maverick")
ONE, EIGHT = GpuPool(spec=H200), GpuPool(spec=H200, gpus=8)


def named(pool: GpuPool, name: str, *about: object) -> float:
    return sum(op.seconds for op in pool.attention_layer(*about).ops if op.name == name)  # type: ignore[arg-type]


def test_layers_are_counted_by_kind() -> None:
    assert layers_of(OSS).kinds(OSS) == {"window": 18, "full": 18}
    assert layers_of(V3).kinds(V3) == {"dense": 3, "full": 58}
    assert sum(layers_of(LLAMA4).kinds(LLAMA4).values()) == 48
    assert {kind.endswith(" dense") for kind in layers_of(LLAMA4).kinds(LLAMA4)} == {True, False}


def test_a_window_bounds_the_keys_of_a_query_and_of_the_cache() -> None:
    full, window = (named(ONE, "attention", OSS, 8, 32_768, "bf16", kind) for kind in ("full", "window"))
    assert full == gpu.decode_attention(H200, 8, 32_768, 64, 8, 64)
    assert window == gpu.decode_attention(H200, 8, 128, 64, 8, 64)
    assert ONE.kv_bytes(OSS, 1, 32_768) == 2 * 2 * 8 * 64 * 18 * (32_768 + 128)
    assert in_reach(OSS, "window", 100) == 100


def test_a_prompt_in_a_window_meets_no_more_pairs_than_there_are() -> None:
    whole = gpu.context_attention(H200, 1, 8192, 64, 8, 128)
    assert gpu.context_attention(H200, 1, 8192, 64, 8, 128, reach=8192) == whole
    assert gpu.context_attention(H200, 1, 8192, 64, 8, 128, reach=1024) < whole / 3


def test_global_layers_of_gemma_4_have_their_own_heads() -> None:
    about = GEMMA, 4, 8192, "bf16", "full"
    wide = GEMMA.geometry("full")  # type: ignore[attr-defined]
    assert named(ONE, "attention", *about) == gpu.decode_attention(
        H200, 4, 8192, wide.heads, wide.kv_heads, wide.head_dim
    )
    assert [op.name for op in ONE.ffn_layer(GEMMA, 1).ops] == ["gate_up", "activation", "down", "post_norm"]


def test_latent_attention_splits_heads_and_copies_latents() -> None:
    assert named(EIGHT, "attention", V3, 4, 8192, "fp8") == latent_seconds(
        H200, 4, 8192, 16, "fp8", replayed=False
    )
    assert EIGHT.kv_bytes(V3, 1, 8192, "fp8") == 8 * ONE.kv_bytes(V3, 1, 8192, "fp8") == 8 * 61 * 576 * 8192
    names = [op.name for op in EIGHT.attention_layer(V3, 1, 8192).ops]
    assert names == [
        *("norm", "q_kv_down", "latent_norms", "q_up", "absorb", "rope_append", "attention", "expand"),
        *("o", "o_all_reduce", "add_ffn_norm"),
    ]


def test_experts_lie_over_the_gpus_of_all_replicas() -> None:
    every = {one.pool.gpus: one for one in shares(V3, H200, 16, bridge_spec("spectrum-x"))}
    pool = every[8].pool
    assert (pool.ranks, every[8].shares_experts) == (16, True)
    times = {op.name: op.seconds for op in pool.ffn_layer(V3, 4).ops}
    shape = ExpertShape(hidden=7168, inter=2048, experts=256, topk=8, ranks=16)
    assert times["experts"] == expert_seconds(H200, shape, 8, "fp8", held=4)
    assert {"router", "choice", "dispatch", "combine", "gate_up", "ffn_all_reduce"} < set(times)
    assert "dispatch" not in {op.name for op in EIGHT.ffn_layer(V3, 4).ops}
    experts = 58 * 3 * 7168 * 2048 * 256
    assert 2 * pool.weight_bytes(V3) - 2 * pool.weight_bytes(V3, ffns=3) == pytest.approx(experts, rel=0.02)


def test_weights_of_published_models_are_what_they_publish() -> None:
    for config in (OSS, V3, K2):
        norms_and_tables = config.vocab * config.hidden  # the table is fp16, a byte more of each number
        assert ONE.weight_bytes(config) - norms_and_tables == pytest.approx(config.parameters(), rel=0.02)


def test_experts_that_do_not_divide_are_there_twice() -> None:
    config = replace(K2, layers=K2.layers)
    pool = GpuPool(spec=H200, gpus=8, replicas=9)
    mixture = layers_of(config).mixture(config, "full")
    assert mixture is not None
    assert pool.resident(mixture) == ceil(384 / 72) == 6
