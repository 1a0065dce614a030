import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from compiler.options import CompileOptions
from compiler.program.manifest import ModelIdentity
from lpu import api
from lpu.certify.certificate import REFERENCE, TWICE, BitsCompared, Certificate
from lpu.certify.certify import variants
from lpu.certify.child import Child, children
from lpu.certify.equivalence import difference
from lpu.cli import app as cli
from lpu.cli.options import OneStep
from lpu.cli.verb import Only
from lpu.decode.generate import Generation
from lpu.inputs.document import FileError
from lpu.inputs.files import ModelFile

HERE = Path(__file__).parents[1]
OWN = ["own_models:one_layer", "--rack", "lpx-tray", "--tp", "4", "--context", "16", "--tokens", "2"]
NAMES = [
    REFERENCE,
    TWICE,
    "layout row",
    "layout 2d",
    "placement round-robin",
    "placement random",
    "placement random, seed 1",
    "one thread, hash seed 1",
    "two threads, hash seed 2",
]


@pytest.fixture(autouse=True)
def own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder from which this process and its children import `own_models`."""
    monkeypatch.chdir(HERE)
    monkeypatch.syspath_prepend(str(HERE))


def certify(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    code = cli.main(["certify", *OWN, "--json", *words])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


@pytest.mark.slow
def test_the_bits_are_equal_every_way_and_the_certificate_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, body, err = certify(capsys, "-o", str(tmp_path / "c.json"))
    found = {one["name"]: one for one in body["comparisons"]}
    assert (code, err, body["bits_equal"]) == (0, "", True)
    assert list(found) == NAMES
    assert {name for name, one in found.items() if one["equal"] is not True} <= {"two threads, hash seed 2"}
    assert {one["logits_sha256"] for one in found.values() if one["equal"]} == {body["logits_sha256"]}
    assert found["one thread, hash seed 1"]["program_sha256"] == body["program_sha256"]
    assert body["numerical_equivalence"]["top1_agreement"] > 0.5
    assert body["versions"]["jax"]
    written = json.loads((tmp_path / "c.json").read_text())
    assert len(written.pop("sha256")) == 64
    assert written == body


@pytest.mark.slow
def test_every_comparison_notices_one_flipped_bit_of_a_weight(capsys: pytest.CaptureFixture[str]) -> None:
    code, body, err = certify(capsys, "--corrupt", "all", "--no-plain")
    verdicts = {one["name"]: one["equal"] for one in body["comparisons"]}
    assert (code, body["bits_equal"]) == (1, False)
    assert list(verdicts) == NAMES
    assert {name for name, equal in verdicts.items() if equal is not False} <= {"two threads, hash seed 2"}
    assert err.startswith("error: certify: ")
    assert "single-device reference" in err


@pytest.mark.parametrize("name", NAMES)
def test_one_comparison_that_differs_is_named_and_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    found = [BitsCompared(name=other, equal=other != name, detail="") for other in NAMES]
    monkeypatch.setattr("lpu.api.certify", lambda *_, **__: certificate(found))
    code, body, err = certify(capsys)
    assert (code, body["bits_equal"]) == (1, False)
    assert err == f"error: certify: 1 of {len(NAMES)} comparisons differ: {name}.\n"


def certificate(found: Sequence[BitsCompared]) -> Certificate:
    return Certificate(
        model=ModelIdentity(name="m", weights="seed:0"),
        rack="quad",
        options=CompileOptions(),
        inputs_sha256="",
        program_sha256="",
        logits_sha256="",
        prompts=((1,),),
        tokens=((2,),),
        cycles_per_token={16: 100},
        clock_hz=10**9,
        chip="lp30",
        rows_checked=1,
        versions={},
        comparisons=tuple(found),
        numerical_equivalence=None,
        quantisation=None,
    )


def test_without_reference_or_second_run_nothing_is_certified() -> None:
    equal = [BitsCompared(name=name, equal=True, detail="") for name in NAMES]
    assert certificate(equal).ok
    for missing in (REFERENCE, TWICE):
        left = [replace(one, equal=None) if one.name == missing else one for one in equal]
        assert not certificate(left).ok
    assert certificate(
        [replace(one, equal=None) if one.name.startswith("two threads") else one for one in equal]
    ).ok


def test_a_difference_names_sequence_step_and_logit_even_of_a_sign_of_zero() -> None:
    logits = np.zeros((3, 5), np.float32)
    run = Generation(
        prompts=((1,),), tokens=((2, 3, 4),), logits=(logits,), positions=(0, 1, 2), seconds=(0.0,) * 3
    )
    other = logits.copy()
    other[1, 4] = -0.0
    assert difference(run, run) == ""
    assert "1 of 15 logits of sequence 0 differ, the first at step 1, logit 4: 0.0 and -0.0" in difference(
        run, replace(run, logits=(other,))
    )
    assert "tokens" in difference(run, replace(run, tokens=((2, 3, 5),)))


def test_variants_change_one_thing_and_raise_tp_where_a_group_is_too_small() -> None:
    names = dict(variants(CompileOptions(tp=8, layout="row", placement="random"), 8))
    assert list(names) == [
        "layout column",
        "layout 2d",
        "placement contiguous",
        "placement round-robin",
        "placement random, seed 1",
    ]
    assert {one.tp for one in names.values()} == {8}
    assert [name for name, _ in variants(CompileOptions(tp=1, pp=3), 8)] == [
        "layout column (tp 4)",
        "layout row (tp 4)",
        "layout 2d (tp 4)",
        "placement round-robin (tp 2)",
        "placement random (tp 2)",
        "placement random, seed 1 (tp 2)",
    ]
    assert {one.tp for _, one in variants(CompileOptions(tp=1), 1)} == {1}


def test_a_python_callable_or_rack_is_not_compared_in_other_processes() -> None:
    for file, rack in ((None, "quad"), (ModelFile(model="llama-tiny"), None)):
        for child in children(file, rack, CompileOptions(), [[1]], 2):
            assert "no name" in child.run().reason


def test_a_child_gets_every_option_of_a_program_that_runs_one_step_at_a_time() -> None:
    few = CompileOptions(tp=2, pp=1, cp=1, layout="row", seed=1)
    asked = replace(few, spill=0, step_limit=9.0, cold=0.5)
    child = children(ModelFile(model="llama-tiny"), "quad", asked, [[1]], 1)[0]
    (only,) = [one for one in get_args(OneStep) if isinstance(one, Only)]
    for name in only:
        assert f"--{name.replace('_', '-')}" in child.command
    at = child.command.index("--spill")
    assert child.command[at + 1] == "auto"


def test_a_child_that_fails_is_a_difference() -> None:
    found = Child(name="x", command=("false",)).run()
    assert found.reason == ""
    assert found.logits_sha256.startswith("exit 1")


def test_other_processes_are_told_to_go_on_after_end_tokens() -> None:
    for child in children(ModelFile(model="llama-tiny"), "quad", CompileOptions(), [[1]], 2):
        assert "--ignore-eos" in child.command


@pytest.mark.slow
def test_end_tokens_end_no_run_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpu.certify.certify.variants", lambda *_: [])
    mixtral = json.loads((HERE.parent / "models/data/variants/mixtral/config.json").read_text())
    ends = {"eos_token_id": list(range(mixtral["vocab_size"]))}
    (tmp_path / "config.json").write_text(json.dumps(mixtral | ends))
    options = CompileOptions(tp=1, pp=1)
    found = api.certify(
        tmp_path,
        rack="pair",
        options=options,
        tokens=2,
        context=16,
        weights="seed:0",
        how=api.CertifyOptions(plain=False),
    )
    assert found.ok, str(found)
    assert {one.name: one.equal for one in found.comparisons}["one thread, hash seed 1"] is True


def test_prompts_of_the_certificate_differ_in_length() -> None:
    prompts = api.default_prompts(8, 259)
    assert [len(prompt) for prompt in prompts] == list(range(4, 12))


@pytest.mark.slow
def test_another_interpreter_is_compared_too_and_a_wrong_one_is_named() -> None:
    file = ModelFile(model="llama-tiny", context=(32,))
    (*_, child) = children(file, "pair", CompileOptions(), [[1]], 1, [sys.executable])
    assert child.name.startswith("Python 3")
    assert "jax" in child.name
    found = child.run()
    assert len(found.logits_sha256) == len(found.program_sha256) == 64
    with pytest.raises(FileError, match="no Python with lpu-emulator"):
        children(file, "pair", CompileOptions(), [[1]], 1, ["/nonexistent/python"])
