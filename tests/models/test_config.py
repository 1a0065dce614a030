import dataclasses

import pytest

from models.catalog import UnknownModelError, catalog, catalog_names
from models.config import Llama3Scaling


@pytest.mark.parametrize("name", catalog_names())
def test_the_parameter_count_is_the_published_one(name: str) -> None:
    config = catalog(name)
    if config.published_parameters is None:
        assert "this project" in config.source
    elif "not known why" in config.source:
        assert config.parameters() == pytest.approx(config.published_parameters, rel=0.02)
    elif "rounded" in config.source:
        digits = str(config.published_parameters).rstrip("0")
        unit = 10 ** (len(str(config.published_parameters)) - len(digits))
        assert abs(config.parameters() - config.published_parameters) <= unit / 2
    else:
        assert config.parameters() == config.published_parameters


def test_the_tiny_model_reads_bytes_and_three_marks() -> None:
    assert catalog("llama-tiny").vocab == 256 + 3


def test_llama_3_1_stretches_its_rope() -> None:
    scaling = catalog("llama-3.1-8b").rope_scaling
    assert scaling == Llama3Scaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192
    )


def test_an_unknown_model_is_answered_with_the_closest_name() -> None:
    with pytest.raises(
        UnknownModelError, match=rf"Did you mean llama-3.1-8b\? It holds: {catalog_names()[0]}"
    ):
        catalog("llama31-8b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 3}, "heads 8 is no multiple of kv_heads 3"),
        ({"head_dim": 33}, "head_dim 33 is odd"),
        ({"layers": 0}, "layers is 0, the least is 1"),
        ({"eps": 0.0}, "eps 0.0 must be above 0"),
    ],
)
def test_numbers_that_do_not_fit_are_named(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(catalog("llama-tiny"), **change)


def test_rope_scaling_needs_its_bounds_in_order() -> None:
    with pytest.raises(ValueError, match=r"low_freq_factor 4.0 must be below high_freq_factor 1.0"):
        Llama3Scaling(factor=8.0, low_freq_factor=4.0, high_freq_factor=1.0, original_max_position=8192)
