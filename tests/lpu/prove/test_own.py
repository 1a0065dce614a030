"""Modules of the user's own are proved against the jaxpr of their step, and the verdict says so."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import own_models
import pytest

from compiler.options import CompileOptions
from lpu import api
from lpu.cli import app as cli
from lpu.compiled import Compiled
from lpu.prove.models.own import reader_of_module
from lpu.prove.programs import left_out
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Terms
from models.contract import ops
from models.kv import KVCache

QUAD = CompileOptions(tp=2, pp=1)


@pytest.fixture(scope="module")
def fused() -> Compiled:
    """A block whose q, k, v and whose gate and up are parts of one product each; decode and prefill."""
    return api.compile(own_models.Fused, rack="quad", context=[40, 80], options=QUAD, prefill=8, prove=False)


def test_a_module_that_cuts_its_products_is_proved(fused: Compiled) -> None:
    found = api.prove(fused)
    assert found.ok, found.reason
    assert "graph: from the jaxpr of the module" in str(found)
    assert found.to_json()["programs"]["prefill"]["graph_from"] == "the jaxpr of the module"


def test_another_module_is_refused(fused: Compiled) -> None:
    other = api.open_model(own_models.Crossed, context=[40, 80])
    found = api.prove(fused.program, fused.prefill, model=other)
    assert "is not in the model" in found.reason


@pytest.mark.slow
def test_a_program_of_a_module_is_proved_where_its_name_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "own_models:one_layer"
    asked = ["--rack", "pair", "--context", "16", "-o", "p"]
    assert cli.main(["compile", name, *asked]) == 0
    assert "compute own_models:one_layer, for every input" in capsys.readouterr().out
    assert cli.main(["prove", "p"]) == 1
    assert cli.main(["prove", "p", "--model", "own_models:head_norms"]) == 2
    assert cli.main(["prove", "p", "--model", name]) == 0
    assert "graph: from the jaxpr of the module" in capsys.readouterr().out
    assert "lpu prove PROGRAM --model NAME" in left_out(api.load_program("p"))


def read(step: Callable[..., Any]) -> None:
    """Read `step(x, matrix, exponent, tokens, position, keys, values) -> (logits, token, keys, values)`."""
    shapes = {"codes": ((16, 8), np.uint8), "exponent": ((8,), np.int32), "table": ((8, 16), np.float16)}
    given = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in shapes.values()]
    given += [jax.ShapeDtypeStruct((2,), np.int32)] * 2
    given += [jax.ShapeDtypeStruct((2, 4, 1, 8), np.float16)] * 2
    reader_of_module(jax.make_jaxpr(step)(*given), tuple(shapes), (0, 1))(Terms(), {}, 4, "fp16")


def logits(codes: Any, exponent: Any, table: Any, tokens: Any) -> Any:
    return ops.matmul(ops.round16(ops.embed(table, tokens)), codes, exponent)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y, t, k, v: (y, ops.argmax(y), k, v), ""),
        (lambda y, t, k, v: (y, ops.argmax(y + 0), k, v), "the module's token is not the largest logit"),
        (lambda y, t, k, v: (jnp.sin(y), ops.argmax(y), k, v), "sin is no op of the contract"),
        (lambda y, t, k, v: (y[::-1], ops.argmax(y), k, v), "rev is no op of the contract"),
        (lambda y, t, k, v: (y.reshape(1, 16), ops.argmax(y), k, v), "the rows of the step are mixed"),
        (lambda y, t, k, v: (y[:, ::2], ops.argmax(y), k, v), "is no run of features"),
        (lambda y, t, k, v: (y[:1], ops.argmax(y), k, v), "across the rows of the step"),
        (lambda y, t, k, v: (ops.add(y[:, :6], y[:, 2:]), ops.argmax(y), k, v), "parts that overlap"),
        (lambda y, t, k, v: (y, ops.argmax(y), v, k), "does not give back its cache 0"),
        (lambda y, t, k, v: (ops.add(y, y)[:, :4], ops.argmax(y), k, v), "only products with a matrix"),
    ],
)
def test_what_a_module_does_beside_the_ops_is_refused(change: Any, words: str) -> None:
    def step(codes: Any, exponent: Any, table: Any, tokens: Any, at: Any, keys: Any, values: Any) -> Any:
        return change(logits(codes, exponent, table, tokens), tokens, keys, values)

    if not words:
        read(step)
        return
    with pytest.raises(RefusedError, match=re.escape(words)):
        read(step)


@pytest.mark.parametrize(
    ("order", "moved", "words"),
    [
        ((0, 1), 0, ""),
        ((1, 0), 0, "attention takes caches of keys for values"),
        ((0, 1), 1, "attention is not at the step's position"),
    ],
)
def test_attention_takes_and_gives_the_caches_of_the_step_at_its_position(
    order: tuple[int, int], moved: int, words: str
) -> None:
    def step(codes: Any, exponent: Any, table: Any, tokens: Any, at: Any, *caches: Any) -> Any:
        y = ops.round16(logits(codes, exponent, table, tokens)).reshape(2, 1, 8)
        one, other = (caches[i] for i in order)
        _, *new = ops.attention(y, y, y, one, other, at + moved if moved else at)
        left = logits(codes, exponent, table, tokens)
        return left, ops.argmax(left), *(new[i] for i in order)

    if not words:
        read(step)
        return
    with pytest.raises(RefusedError, match=re.escape(words)):
        read(step)


def test_a_tampered_program_of_a_module_is_refused(fused: Compiled) -> None:
    program = fused.program
    kernels = tuple(
        replace(one, activation="gelu") if hasattr(one, "activation") else one
        for one in program.manifest.kernels
    )
    wrong = replace(program, manifest=replace(program.manifest, kernels=kernels))
    assert "glu(" in api.prove(wrong, model=fused.model).reason


def test_caches_are_named_as_the_step_has_them() -> None:
    assert KVCache._fields == ("k", "v", "state")
