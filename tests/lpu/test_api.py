import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx

from compiler.options import CompileOptions
from lpu import api
from lpu.certify.equivalence import equivalence, ulp_distance
from lpu.decode.decoders import flipped, plain_decode, reference_decode
from lpu.decode.generate import generate, replay
from lpu.inputs.document import FileError
from models.catalog import catalog
from models.families.llama import Llama

ONE_LAYER = dataclasses.replace(catalog("llama-tiny"), layers=1)


def own(*, batch: int, context: int, kv: Any) -> nnx.Module:
    return Llama(ONE_LAYER, batch=batch, context=context, kv=kv)


@pytest.fixture(scope="module")
def pair_of_prompts() -> api.Compiled:
    return api.compile(own, rack="quad", batch=2, context=(4, 16), options=CompileOptions(tp=2))


def test_a_module_of_ones_own_is_compiled_and_runs_with_equal_bits(pair_of_prompts: api.Compiled) -> None:
    done = api.run(pair_of_prompts, [[5, 6], [7, 8, 9, 10]], tokens=3)
    same = generate(reference_decode(pair_of_prompts.model), done.generation.prompts, 3, 2)
    assert done.generation.digest == same.digest
    assert done.generation.tokens == same.tokens
    assert done.buckets == (4, 4, 4, 4, 16, 16)
    assert [len(rows) for rows in done.generation.logits] == [4, 6]
    known = pair_of_prompts.program.manifest.cycles
    assert sum(done.cycles) == 4 * known[4] + 2 * known[16]


def test_each_sequence_of_a_batch_is_as_it_is_alone(pair_of_prompts: api.Compiled) -> None:
    together = api.run(pair_of_prompts, [[5, 6], [7, 8, 9, 10]], tokens=3).generation
    for i, prompt in enumerate(together.prompts):
        alone = api.run(pair_of_prompts, [prompt], tokens=3).generation
        assert alone.tokens[0] == together.tokens[i]
        assert np.array_equal(alone.logits[0], together.logits[i])


def test_a_flipped_bit_of_a_weight_changes_the_digest(pair_of_prompts: api.Compiled) -> None:
    wrong = replace(pair_of_prompts.model, weights=flipped(pair_of_prompts.model.weights))
    clean, corrupt = (
        api.run(pair_of_prompts.program, [[5]], tokens=1, model=model)
        for model in (pair_of_prompts.model, wrong)
    )
    assert clean.generation.digest != corrupt.generation.digest


def test_what_is_given_overrides_the_file_and_the_default_context_fits(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("model: llama-tiny\nweights: seed:3\nbatch: 4\ncontext: [16, 32]\nkv: fp8\n")
    model = api.open_model(file, batch=2)
    assert (model.step.batch, model.contexts, model.step.kv) == (2, (16, 32), "fp8")
    assert model.about.weights == "seed:3"
    assert api.open_model("llama-tiny").contexts == (256,)
    assert api.open_model("smollm-135m").contexts == (1024,)


def test_the_manifest_names_config_weights_and_shapes_and_nothing_of_this_machine(tmp_path: Path) -> None:
    first, again, other = (
        api.open_model("llama-tiny", context=(16,), weights=w).about for w in ("seed:0", "seed:0", "seed:1")
    )
    assert first == again
    assert first.config is not None
    assert first.config["hidden"] == 256
    assert first.weights_digest != other.weights_digest
    assert first.parameters == other.parameters
    assert str(tmp_path) not in str(first)


def test_a_saved_program_opens_its_model_again(tmp_path: Path) -> None:
    made = api.compile("llama-tiny", rack="quad", context=(16,), weights="seed:2")
    api.save_program(made.program, tmp_path / "p")
    loaded = api.load_program(tmp_path / "p")
    assert loaded.manifest.digest == made.program.manifest.digest
    assert (
        api.run(loaded, ["a"], tokens=2).generation.digest == api.run(made, ["a"], tokens=2).generation.digest
    )
    with pytest.raises(FileError, match=r"weights_digest is .*, the program was compiled for"):
        api.run(loaded, ["a"], tokens=2, weights="seed:3")


def test_plain_f32_is_near_and_replays_the_same_tokens(pair_of_prompts: api.Compiled) -> None:
    run = api.run(pair_of_prompts, [[5, 6], [7]], tokens=3).generation
    near = replay(plain_decode(pair_of_prompts.model), run, 2)
    assert near.tokens == run.tokens
    report = equivalence(run, near, ("contract", "plain f32"))
    assert 0 < report.relative_error_mean <= report.relative_error_max < 2e-2
    assert sum(report.ulps) == 7 * 259
    assert equivalence(run, run, ("a", "a")).ulps[0] == 7 * 259


def test_ulps_are_counted_through_zero() -> None:
    a = np.array([1, -0.0, 1e-45, -2], np.float32)
    b = np.array([np.nextafter(np.float32(1), np.float32(2)), 0, -1e-45, -2], np.float32)
    assert ulp_distance(a, b).tolist() == [1, 0, 2, 0]


def test_a_model_file_without_a_context_takes_the_longest_that_the_model_has(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text("model: llama-tiny\n")
    assert api.open_model(file).contexts == (256,)
    file.write_text("model: llama-tiny\ncontext: 64\n")
    assert api.open_model(file).contexts == (64,)
