"""Hops of layers with experts: checked, proved, and bit by bit what the model makes of the same message."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hopped import hopped
from mixtures import drawn
from models_named import of_model
from slow import slow_but

from compiler.hops import compile_hops
from compiler.options import CompileOptions
from fabric.catalog import bridge_spec
from fabric.rack import load_rack
from lpu.afd.gpu_pieces import GpuPieces
from lpu.check.check import check
from lpu.decode.decoders import Tensors, reference_params
from lpu.inputs.document import FileError
from lpu.inputs.open import open_model
from lpu.prove.prove import prove
from lpu.run.hop import prepare_hops
from models.configs.gpt_oss import GptOssConfig
from models.contract import ops

DATA = Path(__file__).parents[2] / "models/data"
MODELS = {
    "moe-tiny": "moe-tiny",
    "gpt-oss-tiny": "gpt-oss-tiny",
    "deepseek-tiny": "deepseek-tiny",
    **{name: str(DATA / "variants" / name) for name in ("mixtral", "qwen3-moe", "gpt-oss", "glm4-moe")},
    **{name: str(DATA / "variants" / name) for name in ("minimax-m2", "llama4", "llama4-interleaved")},
    **{name: str(DATA / name) for name in ("families/olmo2", "families/granite", "variants/granite-moe")},
    **{name: str(DATA / "latent" / name) for name in ("v3-experts", "kimi-experts", "v2-lite")},
}
ROUNDED = (
    "moe-tiny",
    "gpt-oss-tiny",
    "gpt-oss",
    "families/olmo2",
    "families/granite",
    "variants/granite-moe",
)
WIRES = {"fp16": ("fp16", "f32"), "fp8": ("fp8", "fp16")}


@pytest.mark.parametrize(
    ("name", "wires"),
    slow_but(
        [
            ("moe-tiny", "fp16"),
            ("gpt-oss-tiny", "fp8"),
            ("families/olmo2", "fp8"),
            ("families/granite", "fp8"),
        ],
        [(name, "fp16") for name in MODELS] + [(name, "fp8") for name in ROUNDED],
    ),
)
def test_hops_of_experts_are_proved_and_give_the_bits_of_the_model(name: str, wires: str) -> None:
    down, up = WIRES[wires]
    model = open_model(MODELS[name], batch=2, context=(16,), ffn_down=down, ffn_up=up)
    options = CompileOptions(tp=2)
    program, _ = compile_hops(model.source(), load_rack("quad"), options, bridge_spec("spectrum-x"))
    assert check(program, 1).ok
    assert prove(program).ok
    pieces = GpuPieces(model.step, [list(hop.nodes) for hop in program.manifest.hops])
    here, machine = pieces.local(reference_params(model)), prepare_hops(program, Tensors(model))
    random = np.random.default_rng(0)
    for number, hop in enumerate(machine.hops):
        sent = jnp.asarray(random.standard_normal((2, hop.inputs.width)).astype(np.float16))
        sent = ops.round8(sent) if down == "fp8" else sent
        got, want = np.asarray(machine.step(number, sent)), np.asarray(here(number, sent))
        assert got.tobytes() == want.tobytes(), hop.name


@pytest.mark.parametrize(("hidden", "tp"), slow_but([(400, 3)], [(80, 2), (240, 4), (400, 3)]))
def test_a_sum_of_an_odd_number_of_lines_goes_back_in_fp16(hidden: int, tp: int) -> None:
    config = GptOssConfig(
        name="odd-oss", layers=1, hidden=hidden, heads=2, kv_heads=1, head_dim=32, ffn=64, vocab=240,
        tied=False, rope_theta=1e4, eps=1e-5, max_context=80, source="made up for tests", experts=4, chosen=2,
        ffn_up="fp16",
    )  # fmt: skip
    step, program, _ = hopped(config, "quad", 2, tp=tp)
    assert check(program, 1).ok
    assert prove(of_model(program, replace(config, ffn_down="fp16"))).ok
    weights = {path: np.array(value) for path, value in drawn(step).items()}
    params = {path: jnp.asarray(value) for path, value in weights.items()}
    here = GpuPieces(step, [list(hop.nodes) for hop in program.manifest.hops]).local(params)
    sent = jnp.asarray(np.random.default_rng(0).standard_normal((2, hidden)).astype(np.float16))
    got = np.asarray(prepare_hops(program, weights).step(0, sent))
    assert got.dtype == np.float16
    assert got.tobytes() == np.asarray(here(0, sent)).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rack", "tp"), [("deepseek-v3", "lpx", 32), ("kimi-k2", "lpx", 64)])
def test_a_hop_of_a_model_at_full_size_is_checked_and_proved(name: str, rack: str, tp: int) -> None:
    model = open_model(name, batch=16, context=(1024,), ffn_down="fp16", ffn_up="fp16", divided=True)
    options = CompileOptions(tp=tp)
    program, found = compile_hops(
        model.source(), load_rack(rack), options, bridge_spec("spectrum-x"), layers=1
    )
    assert found.weight_bytes > 11e9
    assert check(program, 1).ok
    assert prove(program).ok


def test_experts_beside_a_dense_ffn_do_not_cross() -> None:
    with pytest.raises(FileError, match=r"3 vectors, each normed by itself; 1 crosses .* lpu compile"):
        open_model(DATA / "variants/gemma4-experts", context=(16,), divided=True)
