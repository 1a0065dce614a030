"""Models with an indexer: contexts that it keeps whole, and refusals of longer ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from compiler.errors import OptionError
from lpu.inputs.open import open_model
from lpu.prove.models.deepseek import read
from lpu.prove.refused import RefusedError
from lpu.prove.terms import Terms
from models.configs.latent import LatentConfig
from models.sources.huggingface.folder import open_folder

LATENT = Path(__file__).parents[1] / "models" / "data" / "latent"
FOLDERS = ("v32-experts", "glm5-experts")


@pytest.mark.parametrize("name", FOLDERS)
def test_an_indexer_that_keeps_every_token_has_no_part_and_no_other_is_proved(name: str) -> None:
    weights = open_folder(LATENT / name)
    config = weights.config
    assert isinstance(config, LatentConfig)
    assert (config.longest, config.max_context) == (24, 128)
    assert [note for note in weights.notes if "tensors of indexers" in note and "are not used" in note]
    numbers = config.to_fields()
    assert read(Terms(), numbers, 24, "fp16").logits >= 0
    with pytest.raises(RefusedError, match="its indexer keeps 24 of 25 tokens"):
        read(Terms(), numbers, 25, "fp16")


def test_the_numbers_of_an_indexer_are_all_there_or_none() -> None:
    config = open_folder(LATENT / FOLDERS[0]).config
    assert isinstance(config, LatentConfig)
    with pytest.raises(ValueError, match="an indexer has index_heads, index_lanes, index_keeps, and q_lora"):
        replace(config, index_lanes=None)
    plain = replace(config, index_heads=None, index_lanes=None, index_keeps=None)
    assert "index_keeps" not in plain.to_fields()
    assert (plain.longest, plain.shortened_by) == (128, "")
    heads, lanes = config.index_heads or 0, config.index_lanes or 0
    stored = config.hidden * (lanes + heads) + (config.q_lora or 0) * heads * lanes + 2 * lanes
    assert config.parameters() - plain.parameters() == config.layers * stored


def test_a_longer_context_is_refused_with_both_numbers() -> None:
    with pytest.raises(OptionError) as refused:
        open_model(str(LATENT / FOLDERS[0]), context=25)
    said = "context 25 is above the model's longest, 24 (of a longer one its indexer keeps 24 tokens"
    assert said in str(refused.value)
