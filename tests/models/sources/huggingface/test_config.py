import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.config import Llama3Scaling
from models.sources.error import WeightError
from models.sources.huggingface.config import read_config

DATA = Path(__file__).parents[2] / "data"
NAN = float("nan")
LLAMA, QWEN3 = DATA / "tiny-llama", DATA / "tiny-qwen3"


def edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """A folder with only a config.json: that of tiny-llama with changes."""
    folder.mkdir(exist_ok=True)
    keys = json.loads((LLAMA / "config.json").read_text())
    edit(keys)
    (folder / "config.json").write_text(json.dumps(keys))
    return folder


def test_both_spellings_of_rope_are_read(tmp_path: Path) -> None:
    def old(keys: dict[str, Any]) -> None:
        rope = keys.pop("rope_parameters")
        keys["rope_theta"] = rope.pop("rope_theta")
        keys["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}

    config, again = read_config(LLAMA), read_config(edited(tmp_path / "tiny-llama", old))
    assert config == again
    assert config.rope_scaling == Llama3Scaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=32
    )
    assert (read_config(QWEN3).rope_theta, read_config(QWEN3).rope_scaling) == (1e6, None)


def test_published_configurations_are_those_of_the_catalog(tmp_path: Path) -> None:
    """Source: config.json of mistralai/Mistral-7B-v0.3 and meta-llama/Llama-2-7b-hf, the keys that matter."""
    shared = {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "hidden_act": "silu"}
    shared |= {"rms_norm_eps": 1e-5, "tie_word_embeddings": False}
    mistral = {
        "model_type": "mistral",
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "vocab_size": 32768,
    }
    mistral |= {"max_position_embeddings": 32768, "rope_theta": 1e6, "sliding_window": None}
    llama = {"model_type": "llama", "intermediate_size": 11008, "vocab_size": 32000, "rope_scaling": None}
    llama |= {"max_position_embeddings": 4096}
    for name, keys, parameters in (("m", mistral, 7_248_023_552), ("l", llama, 6_738_415_616)):

        def replace(held: dict[str, Any], keys: dict[str, Any] = keys) -> None:
            held.clear()
            held.update(shared | keys)

        config = read_config(edited(tmp_path / name, replace))
        assert config.parameters() == parameters
        assert config.head_dim == 128
        assert config.rope_scaling is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mpt"}, "model_type is 'mpt': none of the "),
        ({"model_type": "mistral", "attention_bias": True}, "attention_bias is True: it is not supported"),
        ({"num_local_experts": 8}, "num_local_experts is 8: experts"),
        ({"hidden_act": "relu2"}, "hidden_act is 'relu2'"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_parameters.type is 'llama3': rope_scaling"),
        (
            {"rope_parameters": {"rope_type": "proportional", "factor": 4.0}},
            "rope_parameters.rope_type is 'proportional'",
        ),
        ({"rope_parameters": {"factor": 4.0}}, "rope_parameters.factor is 4.0: no rope_type beside it"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0.0}}, "rope_scaling: factor is 0.0"),
        ({"rope_parameters": {"rope_type": "linear", "factor": -1}}, "rope_scaling: factor is -1.0"),
        ({"rope_parameters": {"rope_type": "linear", "factor": NAN}}, "rope_parameters.factor is nan"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3}},
            "rope_parameters.beta_fast is 3: the kind 'linear' takes factor",
        ),
        (
            {"rope_parameters": {"rope_type": "linear", "type": "yarn", "factor": 2.0}},
            "rope_parameters.type is 'yarn': rope_type is 'linear'",
        ),
        (
            {"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
            "rope_parameters.rope_theta is 500000.0: rope_theta beside the table is 10000.0",
        ),
        (
            {"original_max_position_embeddings": 64},
            "rope_parameters.original_max_position_embeddings is 32.0",
        ),
        ({"is_causal": False}, "is_causal is False: it is not supported"),
        ({"attn_logit_softcapping": 30.0}, "attn_logit_softcapping is 30.0: a key that we do not know"),
        ({"model_type": "phi3"}, "rope_parameters.rope_type is 'llama3': only default, longrope"),
        ({"layer_types": ["full_attention"]}, "names 1 layers, num_hidden_layers is 2"),
        ({"layer_types": ["full_attention"] * 3}, "names 3 layers, num_hidden_layers is 2"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_parameters.full_attention is"),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}},
            "rope_parameters.low_freq_factor is missing",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5: this model_type turns whole heads"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config.quant_method is 'gptq'"),
        ({"num_attention_heads": None}, "num_attention_heads is missing"),
        ({"hidden_size": "64"}, "hidden_size is '64': it is a whole number"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"num_key_value_heads": 3}, "heads 4 is no multiple of kv_heads 3"),
    ],
)
def test_what_the_model_cannot_do_is_refused_by_its_key(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = edited(tmp_path, lambda keys: keys.update(changes))
    with pytest.raises(WeightError, match=message) as caught:
        read_config(folder)
    assert str(folder / "config.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "window", "kinds"),
    [
        ({"model_type": "mistral", "sliding_window": 256}, None, ()),
        ({"model_type": "mistral", "sliding_window": 9999}, None, ()),
        ({"model_type": "mistral", "sliding_window": None}, None, ()),
        ({"model_type": "mistral", "sliding_window": 128}, 128, ()),
        ({"model_type": "mistral", "max_position_embeddings": 9999}, 4096, ()),
        ({"model_type": "qwen2", "sliding_window": 64, "max_window_layers": 0}, None, ()),
        (
            {"model_type": "qwen2", "sliding_window": 64, "max_window_layers": 0, "use_sliding_window": True},
            *(64, ()),
        ),
        (
            {"model_type": "qwen2", "sliding_window": 64, "max_window_layers": 1, "use_sliding_window": True},
            *(64, ("full", "window")),
        ),
        (
            {"model_type": "qwen2", "sliding_window": 64, "max_window_layers": 2, "use_sliding_window": True},
            *(None, ()),
        ),
    ],
)
def test_a_window_is_read_only_where_it_hides_tokens(
    tmp_path: Path, changes: dict[str, Any], window: int | None, kinds: tuple[str, ...]
) -> None:
    config = read_config(edited(tmp_path, lambda keys: keys.update(changes)))
    assert (config.window, config.kinds, config.longest) == (window, kinds, config.max_context)


def test_absent_keys_are_those_of_transformers(tmp_path: Path) -> None:
    def least(keys: dict[str, Any]) -> None:
        keys.clear()
        keys["model_type"] = "mistral"

    config = read_config(edited(tmp_path, least))
    assert (config.layers, config.kv_heads, config.eps, config.max_context) == (32, 8, 1e-6, 131_072)
    assert (config.window, config.rope_theta, config.tied) == (4096, 10_000.0, False)


def test_biases_come_from_the_model_type_and_its_keys(tmp_path: Path) -> None:
    def biased(**changes: Any) -> tuple[str, ...]:
        return read_config(edited(tmp_path, lambda keys: keys.update(changes))).biased

    assert biased() == ()
    assert biased(model_type="qwen2", attention_bias=None) == ("q", "k", "v")
    assert biased(attention_bias=True, mlp_bias=True) == ("q", "k", "v", "o", "gate", "up", "down")


def test_the_text_part_of_a_larger_model_is_read(tmp_path: Path) -> None:
    def nest(keys: dict[str, Any]) -> None:
        text = dict(keys)
        keys.clear()
        keys.update(model_type="llava", text_config=text, vision_config={"depth": 2})

    assert read_config(edited(tmp_path / "tiny-llama", nest)) == read_config(LLAMA)


def test_a_config_that_is_no_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"none/config.json: not found \(nor is there a folder"):
        read_config(tmp_path / "none")
    with pytest.raises(WeightError, match="its folder exists"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{\n "hidden_size": }')
    with pytest.raises(WeightError, match=r"config.json:2:17: no JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(WeightError, match="holds a JSON list, expected an object"):
        read_config(tmp_path)
