"""`api.compile("m", tp=2, context=128)`: keywords are the model's and the options', others are named."""

from dataclasses import fields
from inspect import signature
from typing import Any

import pytest

from compiler.errors import OptionError
from compiler.options import CompileOptions
from lpu import api
from lpu.inputs.document import FileError
from lpu.inputs.open import open_model
from lpu.keywords import OF_A_MODEL, chosen, model_keywords


def test_keywords_are_those_of_the_options_and_of_open_model() -> None:
    assert set(OF_A_MODEL) == set(signature(open_model).parameters) - {"model"}
    both = {*OF_A_MODEL, *(field.name for field in fields(CompileOptions))}
    assert set(api.Keywords.__annotations__) | set(api.ModelKeywords.__annotations__) == both


def test_a_keyword_stands_instead_of_a_field_of_the_options() -> None:
    options, rest = chosen("compile", CompileOptions(tp=4, seed=3), {"tp": 2, "context": 128})
    assert (options, rest) == (CompileOptions(tp=2, seed=3), {"context": 128})
    assert api.open_model("llama-tiny", context=128).contexts == (128,)
    assert api.open_model("llama-tiny", context=[16, 128]).contexts == (16, 128)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"contxt": 5}, "api.compile: contxt: is no keyword of it. Did you mean context?"),
        ({"zzz": 1}, "api.compile: zzz: is no keyword of it. It takes batch, context, kv,"),
        ({"tp": "2"}, "api.compile: tp: is '2', must be a whole number."),
        ({"seed": 1.5}, "api.compile: seed: is 1.5, must be a whole number."),
        ({"interval_slack": "1"}, "api.compile: interval_slack: is '1', must be a number."),
        ({"placement": 3}, "api.compile: placement: is 3, must be a text."),
        ({"layout": "diag"}, "options: --layout: 'diag' is unknown."),
        ({"context": "128"}, "api.compile: context: is '128', must be a whole number or a list of them."),
        ({"context": []}, "api.compile: context: is [], must be"),
        ({"batch": 1.5}, "api.compile: batch: is 1.5, must be"),
        ({"kv": "fp9"}, "options: kv: is 'fp9', must be fp16 or fp8"),
        ({"weights": 3}, "api.compile: weights: is 3, must be a text."),
    ],
    ids=str,
)
def test_a_wrong_keyword_is_one_clear_line(words: dict[str, Any], said: str) -> None:
    with pytest.raises((OptionError, FileError)) as error:
        api.compile("llama-tiny", rack="quad", **words)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_keywords_of_verbs_without_options_and_of_open_models_are_held_too() -> None:
    with pytest.raises(OptionError, match=r"api.afd: contexts: is no keyword of it. Did you mean context\?"):
        model_keywords("afd", {"contexts": 3})
    with pytest.raises(OptionError, match=r"api.certify: context: the model is open already"):
        api.certify(api.open_model("llama-tiny"), rack="quad", context=64)
