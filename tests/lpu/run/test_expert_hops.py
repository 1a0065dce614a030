"""Hops of layers with experts: checked, proved, and bit by bit what the model makes of the same message."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
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
from models.contract import ops

DATA = Path(__file__).parents[2] / "models/data"
MODELS = {
    "moe-tiny": "moe-tiny",
    "gpt-oss-tiny": "gpt-oss-tiny",
    "deepseek-tiny": "deepseek-tiny",
    **{name: str(DATA / "variants" / name) for name in ("mixtral", "qwen3-moe", "gpt-oss", "glm4-moe")},
    **{name: str(DATA / "variants" / name) for name in ("minimax-m2", "llama4", "llama4-interleaved")},
    **{name: str(DATA / "latent" / name) for name in ("v3-experts", "kimi-experts", "v2-lite")},
}
WIRES = {"fp16": ("fp16", "f32"), "fp8": ("fp8", "fp16")}


@pytest.mark.parametrize(
    ("name", "wires"),
    slow_but([("moe-tiny", "fp16")], [(name, "fp16") for name in MODELS] + [("moe-tiny", "fp8")]),
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


def test_experts_beside_a_dense_ffn_do_not_cross() -> None:
    with pytest.raises(FileError, match=r"take 3 vectors, each normed by itself; 1 crosses"):
        open_model(DATA / "variants/gemma4-experts", context=(16,), divided=True)
