"""GPUs whose decode steps an engine serves: the same terms as whole served steps, operator by operator."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compiler.errors import OptionError
from fabric.catalog import gpu_spec
from lpu.cli import app as cli
from lpu.gpu.pool import GpuPool
from lpu.gpu.served.engine import engine, engines
from lpu.gpu.served.shape import shape_of
from lpu.gpu.served.step import Serving, served_step
from lpu.gpu.table import GpuTable
from models.catalog import catalog

H200, LLAMA = gpu_spec("h200"), catalog("llama-3.1-70b")


def pool(name: str | None, gpus: int = 8) -> GpuPool:
    return GpuPool(spec=H200, gpus=gpus, gemm="bf16", engine=None if name is None else engine(name))


@pytest.mark.parametrize("name", sorted(engines()))
@pytest.mark.parametrize("gpus", [4, 8])
def test_a_step_by_operators_is_the_served_step_but_for_small_kernels(name: str, gpus: int) -> None:
    batch, prompt, outputs = 16, 4096, 512
    found = {op.name: op.seconds for op in pool(name, gpus).step(LLAMA, batch, prompt + outputs // 2).ops}
    how = Serving(gpus=gpus, batch=batch, prompt=prompt, outputs=outputs)
    terms = served_step(H200, shape_of(LLAMA), how, engine(name)).terms
    assert found["attention"] == pytest.approx(terms["attention"])
    assert found["host"] == pytest.approx(terms["step_ms"] + terms["sequence_us"])
    assert found["gaps"] == pytest.approx(
        terms["layer_us"] / 2
    )  # of the last half; the other has its own line
    products = sum(found[op] for op in ("qkv", "o", "gate_up", "down", "head"))
    assert products == pytest.approx(terms["products"], rel=0.01)
    reduced = found["o_all_reduce"] + found["ffn_all_reduce"]
    assert reduced == pytest.approx(terms["all_reduce"] + terms["collective_us"])


def test_doubling_a_number_of_an_engine_moves_the_step_by_its_operators() -> None:
    one = pool("vllm")
    before = one.step(LLAMA, 16, 4096)
    for name in (
        "step_ms",
        "sequence_us",
        "layer_us",
        "products",
        "attention",
        "all_reduce",
        "collective_us",
    ):
        own = one.engine
        assert own is not None
        twice = replace(own, numbers=own.numbers | {name: 2 * own.numbers[name]})
        after = replace(one, engine=twice).step(LLAMA, 16, 4096)
        assert after.seconds > before.seconds, name
    assert before.band == engine("vllm").unseen


def test_prompts_and_embeddings_are_not_an_engines() -> None:
    for name in engines():
        assert pool(name).prefill(LLAMA, 2048).seconds == pool(None).prefill(LLAMA, 2048).seconds
        assert pool(name).embed(LLAMA, 4).seconds == pool(None).embed(LLAMA, 4).seconds


def test_without_an_engine_a_step_is_what_it_was() -> None:
    ops = [op.name for op in pool(None).step(LLAMA, 1, 128).ops]
    assert "gaps" not in ops
    assert "host" not in ops


def test_an_engine_and_a_table_are_two_answers() -> None:
    with pytest.raises(OptionError, match="a table its own times"):
        GpuPool(spec=H200, engine=engine("vllm"), table=GpuTable(path=Path("t.csv"), points=()))


def test_the_command_line_takes_an_engine_with_its_band(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["afd", "llama-tiny", "--mode", "afd", "--batch", "2", "--gpus", "1", "--rack", "quad",
             "--no-check", "--prompt-tokens", "64", "--new-tokens", "4", "--json"]  # fmt: skip
    found: dict[str, Any] = {}
    for name in ("none", "sglang"):
        assert cli.main([*words, *(["--engine", name] if name != "none" else [])]) == 0
        found[name] = json.loads(capsys.readouterr().out)
    assert found["sglang"]["gpu_band"] == engine("sglang").unseen  # llama-tiny was not fitted
    assert "decode steps by sglang (band +-81 %)" in found["sglang"]["machine"]["gpus"]
    assert found["sglang"]["turns"][0]["tpot_seconds"] != found["none"]["turns"][0]["tpot_seconds"]
    assert found["sglang"]["turns"][0]["ttft_seconds"] == found["none"]["turns"][0]["ttft_seconds"]
    assert cli.main([*words, "--engine", "ollama"]) == 2
    assert "vllm" in capsys.readouterr().err
