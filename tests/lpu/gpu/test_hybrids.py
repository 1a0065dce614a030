"""What GPUs launch for hybrids: by the word of a layer, states beside KV."""

import pytest

from compiler.errors import OptionError
from fabric.catalog import bridge_spec, gpu_spec
from lpu.gpu import operators as gpu
from lpu.gpu.families.registry import layers_of
from lpu.gpu.pool import GpuPool
from lpu.gpu.share import shares
from lpu.inputs.open import open_model
from models.catalog import catalog
from models.config import TransformerConfig

H200 = gpu_spec("h200")
ONE, EIGHT = GpuPool(spec=H200), GpuPool(spec=H200, gpus=8)


def config_of(name: str) -> TransformerConfig:
    found = open_model(name, context=1024, weights="none").config
    assert found is not None
    return found


JAMBA, MAMBA, NANO = (config_of(n) for n in ("jamba-1.5-mini", "mamba2-2.7b", "nemotron-3-nano-30b-a3b"))
FALCON, QWEN = config_of("falcon-h1-7b"), config_of("qwen3.5-35b-a3b")


def test_a_state_takes_the_same_time_at_any_context_and_is_read_and_written() -> None:
    short, long = (ONE.step(MAMBA, 64, context).seconds for context in (1024, 1 << 20))
    assert short == long
    words = sum(kept * channels for kept, channels in MAMBA.kept)  # type: ignore[attr-defined]
    assert words == 128 * 5120 + 3 * (5120 + 256)
    (states,) = [op for op in ONE.attention_layer(MAMBA, 64, 1024, kind="M").ops if op.name == "states"]
    assert states.seconds == gpu.elementwise(H200, 0) + gpu.elementwise(H200, 2 * 4 * 64 * words)
    assert states.launches == 2


def test_a_layer_has_the_operators_of_its_word() -> None:
    def names(config: TransformerConfig, kind: str) -> list[str]:
        half, rest = ONE.attention_layer(config, 1, 4096, kind=kind), ONE.ffn_layer(config, 1, kind)
        return [op.name for op in (*half.ops, *rest.ops)]

    assert names(NANO, "M") == ["norm", "in", "gate_norm", "out", "states"]
    assert names(NANO, "A") == ["norm", "qkv", "rope_append", "o", "attention"]
    assert names(NANO, "E")[:4] == ["ffn_norm", "router", "choice", "experts"]
    assert "attention and states" in names(FALCON, "PF")
    assert {"low_b_c", "steps"} < set(names(JAMBA, "MF"))
    assert "qk_norm" in names(QWEN, "AE")
    assert sum(layers_of(NANO).kinds(NANO).values()) == NANO.layers


def test_weights_are_those_that_are_published_and_kv_has_the_states() -> None:
    for config in (JAMBA, MAMBA, NANO, FALCON, QWEN):
        assert ONE.weight_bytes(config) == pytest.approx(config.parameters(), rel=0.16)
    assert ONE.kv_bytes(MAMBA, 3, 8) == ONE.kv_bytes(MAMBA, 3, 80_000) == 3 * MAMBA.state_bytes()  # type: ignore[attr-defined]
    token = ONE.kv_bytes(JAMBA, 1, 2) - ONE.kv_bytes(JAMBA, 1, 1)
    assert token == 4 * 2 * 8 * 128 * 2


def test_what_is_handed_over_is_kv_of_attention_and_states_of_mixers() -> None:
    kept = NANO.kept_bytes(2)
    assert len(kept) == 23 + 6
    assert sum(state for _, _, state in kept) == NANO.state_bytes()  # type: ignore[attr-defined]
    assert {token for _, token, state in kept if not state} == {2 * 2 * 128 * 2}
    assert all(token and state for _, token, state in FALCON.kept_bytes(2))
    assert catalog("llama-tiny").kept_bytes(2) == tuple((layer, 2 * 4 * 32 * 2, 0) for layer in range(4))


def test_heads_of_mixers_and_of_attention_must_divide() -> None:
    about = H200, 8, bridge_spec("spectrum-x")
    assert [one.pool.gpus for one in shares(MAMBA, *about)] == [1, 2, 4, 8]
    assert [one.pool.gpus for one in shares(FALCON, *about)] == [1, 2, 4]  # 12 heads, 24 of mixers
    assert EIGHT.prefill(MAMBA, 4096).seconds < ONE.prefill(MAMBA, 4096).seconds


def test_what_nobody_counts_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match="has 49 FFNs elsewhere, whose weights nobody counted"):
        ONE.weight_bytes(NANO, ffns=3)
    with pytest.raises(OptionError, match="80 heads of mixers do not divide over 3 GPUs"):
        GpuPool(spec=H200, gpus=3).attention_layer(MAMBA, 1, 8)


def test_what_comes_before_a_hop_is_the_mixer_or_attention_of_its_layer() -> None:
    (share,) = shares(JAMBA, H200, 1, bridge_spec("spectrum-x"))
    halves = {kind: share.attention(3, 4096, kind).seconds for kind in set(JAMBA.pattern)}  # type: ignore[attr-defined]
    want = [round(halves[kind] * 1e12) for kind in JAMBA.pattern]  # type: ignore[attr-defined]
    assert share.before_hops(3, 4096) == pytest.approx(want, abs=1)
    assert len({*want}) > 1
