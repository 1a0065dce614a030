"""Modules of a user's own: what is left alone, and what is refused with the user's line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import own_models
import plain_models
import pytest

from compiler.errors import CompileError
from compiler.options import CompileOptions
from lpu import api
from lpu.certify.equivalence import difference
from lpu.decode.decoders import reference_decode
from lpu.decode.generate import generate

PROMPT = [3, 1]


def line_of(text: str) -> int:
    """The line of `own_models.py` that begins with that text."""
    lines = Path(own_models.__file__).read_text().splitlines()
    return 1 + next(i for i, line in enumerate(lines) if line.strip().startswith(text))


def test_state_and_weights_that_the_step_never_reads_are_left_alone() -> None:
    lived_in = api.open_model(own_models.LivedIn, context=[16])
    assert lived_in.weights.shapes == api.open_model(own_models.one_layer, context=[16]).weights.shapes


@pytest.mark.slow
def test_a_lived_in_module_gives_the_tokens_and_bits_of_a_tidy_one() -> None:
    tidy = generate(
        reference_decode(api.open_model(own_models.one_layer, context=[16])), [PROMPT], 2, batch=1
    )
    compiled = api.compile(own_models.LivedIn, rack="pair", context=[16], options=CompileOptions(tp=2, pp=1))
    run = api.run(compiled, [PROMPT], tokens=2)
    assert difference(run.generation, tidy) == ""


@pytest.mark.parametrize(
    ("module", "says", "line"),
    [
        (own_models.Dropping, "primitive 'random_", "dropped = "),
        (own_models.Branching, "TracerBoolConversionError", "if logits.sum()"),
        (own_models.NoTuple, "returns one result, not (logits, token, cache)", "class NoTuple"),
        (own_models.NoCache, "returns 2 results, not (logits, token, cache)", "class NoCache"),
        (own_models.NoShape, "has no cache_shape and no __call__", "class NoShape"),
        (own_models.NeedsRngs, "missing a required argument: 'rngs'", "class NeedsRngs"),
        (own_models.of_batch, "unexpected keyword argument 'context'", "def of_batch"),
        (own_models.number, "the factory gives builtins.int, not an nnx.Module", ""),
        (own_models.NoToken, "token None NoneType. Return (logits [1, vocab], token int32 [1]", ""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_module_is_refused_in_one_line_that_names_the_users(
    module: Callable[..., Any], says: str, line: str
) -> None:
    with pytest.raises(CompileError, match=re.escape(says)) as refusal:
        api.open_model(module, context=[16])
    text = str(refusal.value).replace(str(Path(own_models.__file__).parent), "")
    assert "\n" not in text
    assert len(text) <= 320
    if line:
        assert f"own_models.py:{line_of(line)}" in text


def test_plain_layers_that_are_scanned_run_with_the_bits_of_their_reference() -> None:
    options = CompileOptions(tp=2, pp=1)
    compiled = api.compile(plain_models.Scanned, rack="pair", context=[16], options=options)
    assert "weights are quantised to e4m3" in compiled.model.notes[0]
    reference = generate(reference_decode(compiled.model), [PROMPT], 2, batch=1)
    assert difference(api.run(compiled, [PROMPT], tokens=2).generation, reference) == ""
