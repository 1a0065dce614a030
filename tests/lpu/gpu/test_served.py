from dataclasses import replace

import pytest

from fabric.catalog import gpu_spec
from lpu.gpu.served.engine import NAMES, engine, engines
from lpu.gpu.served.fit import fit
from lpu.gpu.served.shape import named, shape_of, shapes
from lpu.gpu.served.step import Serving, bodies, served_step
from lpu.inputs.document import FileError
from lpu.validate.cases.gpu.step_rows import step_rows
from models.catalog import catalog

HOW = Serving(gpus=2, batch=16, prompt=1024, outputs=1024)


def test_doubling_a_number_of_an_engine_moves_exactly_its_term() -> None:
    spec, shape, by = gpu_spec("h200"), named("qwen3-235b-a22b"), engine("vllm")
    before = served_step(spec, shape, HOW, by).terms
    for name in NAMES:
        after = served_step(
            spec, shape, HOW, replace(by, numbers=by.numbers | {name: 2 * by.numbers[name]})
        ).terms
        assert after == before | {name: 2 * before[name]}


def test_the_numbers_of_an_engine_are_those_that_its_rows_give() -> None:
    mine = [row for row in step_rows() if row.engine == "sglang" and not row.left_out]
    found = fit([bodies(row.spec, row.shape, row.how) for row in mine], [row.seconds for row in mine])
    assert found == pytest.approx(engine("sglang").numbers, abs=1e-3)
    assert engine("sglang").rows == len(mine)


def test_a_step_has_the_band_of_its_engine_or_the_wider_one_of_its_gpu() -> None:
    shape = named("llama-3.1-70b")
    by = engine("trtllm")
    assert "llama-3.1-70b" not in by.models
    assert by.band < gpu_spec("r100").band < by.unseen
    assert [by.band_of(name) for name in ("llama-3.1-8b", "llama-3.1-70b")] == [by.band, by.unseen]
    bands = {
        (gpu, name): served_step(gpu_spec(gpu), named(name), HOW, by).band
        for gpu in ("h200", "r100")
        for name in ("llama-3.1-8b", "llama-3.1-70b")
    }
    assert list(bands.values()) == [by.band, by.unseen, gpu_spec("r100").band, by.unseen]
    low, high = served_step(gpu_spec("h200"), shape, HOW, engine("vllm")).bounds
    assert low < served_step(gpu_spec("h200"), shape, HOW, engine("vllm")).seconds < high


@pytest.mark.parametrize("name", sorted(shapes()))
@pytest.mark.parametrize("gpu", ["h100", "b200", "gb300", "r100"])
def test_every_stated_model_has_a_step_that_grows_with_the_batch(name: str, gpu: str) -> None:
    times = [
        served_step(
            gpu_spec(gpu), named(name), replace(HOW, gpus=8, batch=batch, gemm="fp8"), engine("trtllm")
        )
        for batch in (1, 8, 64)
    ]
    assert [one.seconds for one in times] == sorted(one.seconds for one in times)


def test_a_model_of_the_catalog_is_its_stated_shape() -> None:
    assert replace(shape_of(catalog("llama-3.1-8b")), name="") == replace(shapes()["llama-3.1-8b"], name="")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(FileError, match="vllm"):
        engine("ollama")
    with pytest.raises(FileError, match="gpt-oss-120b"):
        named("gpt-6")
    assert set(engines()) == {"vllm", "trtllm", "sglang"}
