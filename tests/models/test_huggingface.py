import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.checkpoint import save_orbax
from models.config import Llama3Scaling
from models.huggingface import open_folder, read_config
from models.plain import plain, plain_cache
from models.quantise import WeightError, decode_table, dequantise, quantise
from models.step import llama_step
from models.weights import check_shapes, content_digest, weight_shapes

DATA = Path(__file__).parent / "data"
LLAMA, QWEN3 = DATA / "tiny-llama", DATA / "tiny-qwen3"
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
Tensors = dict[str, np.ndarray]
Edit = Callable[[dict[str, Any]], object]


def edited(folder: Path, edit: Edit, source: Path = LLAMA) -> Path:
    """A folder with only a config.json: that of `source` with changes."""
    folder.mkdir(exist_ok=True)
    keys = json.loads((source / "config.json").read_text())
    edit(keys)
    (folder / "config.json").write_text(json.dumps(keys))
    return folder


def rewritten(folder: Path, change: Callable[[Tensors], object], **keys: object) -> Path:
    """A copy of tiny-llama with changed tensors and keys."""
    edited(folder, lambda held: held.update(keys))
    tensors = load_file(LLAMA / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


# Truth


@pytest.mark.parametrize("folder", [LLAMA, QWEN3], ids=lambda folder: folder.name)
def test_plain_logits_are_those_of_transformers(folder: Path) -> None:
    weights = open_folder(folder)
    step = llama_step(weights.config, batch=1, context=16)
    check_shapes(weights, weight_shapes(step))
    params = {name: jnp.asarray(weights.plain(name)) for name in weights.shapes}
    params |= {name: jnp.asarray(value) for name, value in step.constants.items()}
    run, cache, rows = jax.jit(plain(step.fn)), plain_cache(step.cache), list[np.ndarray]()
    with np.load(folder / "expected.npz") as expected:
        for position, token in enumerate(expected["tokens"]):
            at = jnp.array([position], jnp.int32)
            logits, _, cache = run(params, jnp.array([token], jnp.int32), at, cache)
            rows.append(np.asarray(logits[0]))
        got, largest = np.stack(rows), np.abs(expected["logits"]).max()
        # With cos and sin rounded to 2^-15, as the contract has them, only f32 sums differ; they cost 2e-5.
        assert np.abs(got - expected["logits_rounded_turns"]).max() / largest < 3e-6
        assert np.abs(got - expected["logits"]).max() / largest < 5e-5


def test_shapes_are_those_of_the_model_in_its_order() -> None:
    for folder in (LLAMA, QWEN3):
        weights = open_folder(folder)
        wanted = weight_shapes(llama_step(weights.config, batch=1, context=16))
        assert weights.shapes == wanted
        for name, shape in wanted.items():
            assert (weights[name].shape, weights[name].dtype) == (shape.shape, shape.dtype)


def test_matrices_are_transposed_and_quantised() -> None:
    weights, theirs = open_folder(LLAMA), load_file(LLAMA / "model.safetensors")
    quantised = quantise(theirs[Q_PROJ].T)
    path = "layers.0.attention.q"
    np.testing.assert_array_equal(weights[f"{path}.exponent"], quantised.exponent)
    np.testing.assert_array_equal(weights[f"{path}.codes"], quantised.codes)
    np.testing.assert_array_equal(weights.plain(f"{path}.codes"), theirs[Q_PROJ].T)
    assert weights.relative_errors == {f"{path}.codes": quantised.relative_error}
    table = theirs["model.embed_tokens.weight"]
    np.testing.assert_array_equal(weights["embed.table"], table.astype(np.float16))
    np.testing.assert_array_equal(weights["norm.gain"], theirs["model.norm.weight"])


def test_a_tied_head_comes_from_the_table_before_its_rounding() -> None:
    weights = open_folder(QWEN3)
    np.testing.assert_array_equal(weights.plain("head.codes"), weights.plain("embed.table").T)
    np.testing.assert_array_equal(weights["head.codes"], quantise(weights.plain("embed.table").T).codes)


def test_digests_follow_the_content_and_not_the_place(tmp_path: Path) -> None:
    shutil.copytree(LLAMA, tmp_path / "copy")
    assert open_folder(tmp_path / "copy").digest() == open_folder(LLAMA).digest()
    changed = rewritten(tmp_path / "changed", lambda tensors: tensors[Q_PROJ].__setitem__((3, 5), 1))
    assert open_folder(changed).digest() != open_folder(LLAMA).digest()
    assert open_folder(LLAMA).identity == "huggingface tiny-llama"


def test_a_checkpoint_can_be_kept_as_orbax(tmp_path: Path) -> None:
    weights = open_folder(QWEN3)
    assert save_orbax(tmp_path / "kept", weights).digest() == content_digest(weights)


# Formats


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64], ids=str)
def test_other_float_formats_are_read(tmp_path: Path, dtype: Any) -> None:
    held: Tensors = {}

    def change(tensors: Tensors) -> None:
        tensors.update({name: value.astype(dtype) for name, value in tensors.items()})
        held.update(tensors)

    weights = open_folder(rewritten(tmp_path, change))
    exact = held[Q_PROJ].astype(np.float32)
    np.testing.assert_array_equal(weights.plain("layers.0.attention.q.codes"), exact.T)
    np.testing.assert_array_equal(weights["layers.0.attention.q.codes"], quantise(exact.T).codes)
    np.testing.assert_array_equal(weights["norm.gain"], held["model.norm.weight"].astype(np.float32))


def with_fp8(path: Path, scale: np.ndarray, end: str, block: tuple[int, int] = (128, 128)) -> np.ndarray:
    """A folder whose q_proj [64, 64] is fp8 with that scale; gives its codes [out, in]."""
    codes = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    codes[codes & 0x7F == 0x7F] = 0x80

    def change(tensors: Tensors) -> None:
        tensors[Q_PROJ] = codes.view(ml_dtypes.float8_e4m3fn)
        tensors[Q_PROJ + end] = scale

    method = {"quant_method": "fp8", "weight_block_size": list(block)}
    rewritten(path, change, quantization_config=method)
    return codes


@pytest.mark.parametrize(
    ("shape", "end"),
    [((), "_scale"), ((1,), "_scale"), ((64, 1), "_scale"), ((64,), "_scale"), ((2, 4), "_scale_inv")],
)
def test_fp8_with_power_of_two_scales_keeps_its_codes(
    tmp_path: Path, shape: tuple[int, ...], end: str
) -> None:
    power = -5 - np.arange(np.prod(shape, dtype=int)).reshape(shape)
    if len(shape) == 2 and shape[1] > 1:
        power = np.broadcast_to(power[:, :1], shape)  # equal along the inputs
    scale = np.ldexp(np.float32(1), power).astype(np.float32)
    codes = with_fp8(tmp_path, scale, end, (32, 16))
    weights = open_folder(tmp_path)
    rows = power.reshape(-1) if power.size in (1, 64) else np.repeat(power[:, 0], 32)
    np.testing.assert_array_equal(weights["layers.0.attention.q.exponent"], np.broadcast_to(rows, 64))
    np.testing.assert_array_equal(weights["layers.0.attention.q.codes"], np.where(codes == 0x80, 0, codes).T)
    assert weights.relative_errors == {"layers.0.attention.q.codes": 0.0}
    exact = dequantise(weights["layers.0.attention.q.codes"], weights["layers.0.attention.q.exponent"])
    np.testing.assert_array_equal(weights.plain("layers.0.attention.q.codes"), exact)


@pytest.mark.parametrize(
    ("scale", "end"),
    [
        (np.array(0.003, np.float32), "_scale"),
        (np.linspace(0.001, 0.1, 64, dtype=np.float32)[:, None], "_scale"),
        (np.linspace(0.001, 0.1, 8, dtype=np.float32).reshape(2, 4), "_scale_inv"),
        (np.ldexp(np.float32(1), np.arange(8).reshape(2, 4)), "_scale_inv"),  # unequal along the inputs
        (np.linspace(0.001, 0.1, 8).reshape(2, 4).astype(ml_dtypes.bfloat16), "_scale"),
    ],
)
def test_fp8_with_other_scales_is_quantised_again(tmp_path: Path, scale: np.ndarray, end: str) -> None:
    codes = with_fp8(tmp_path, scale, end, (32, 16))
    wide = scale.astype(np.float32)
    if wide.shape == (2, 4):
        wide = np.repeat(np.repeat(wide, 32, axis=0), 16, axis=1)
    exact = decode_table()[codes] * wide
    weights = open_folder(tmp_path)
    np.testing.assert_array_equal(weights.plain("layers.0.attention.q.codes"), exact.T)
    quantised = quantise(exact.T)
    np.testing.assert_array_equal(weights["layers.0.attention.q.codes"], quantised.codes)
    np.testing.assert_array_equal(weights["layers.0.attention.q.exponent"], quantised.exponent)


def test_fp8_without_a_fitting_scale_is_named(tmp_path: Path) -> None:
    with_fp8(tmp_path / "a", np.ones((3, 3), np.float32), "_scale_inv", (32, 16))
    with pytest.raises(WeightError, match=r"_scale_inv has shape \[3, 3\]: .* blocks of 32 x 16"):
        open_folder(tmp_path / "a")["layers.0.attention.q.codes"]
    with_fp8(tmp_path / "b", np.ones((), np.float32), "_other_scale")
    with pytest.raises(
        WeightError, match=r"q_proj.weight is F8_E4M3 \[64, 64\] and has no _scale_inv or _scale"
    ):
        open_folder(tmp_path / "b")["layers.0.attention.q.codes"]


# Configurations


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
        ({"model_type": "mixtral"}, "model_type is 'mixtral': only llama, mistral, qwen3"),
        ({"attention_bias": True}, "attention_bias is True: biases"),
        ({"num_local_experts": 8}, "num_local_experts is 8: experts"),
        ({"hidden_act": "relu2"}, "hidden_act is 'relu2'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling.type is 'yarn'"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 4.0}},
            "rope_parameters.rope_type is 'linear'",
        ),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_parameters.full_attention is"),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}},
            "rope_parameters.low_freq_factor is missing",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5: only 1"),
        (
            {"model_type": "mistral", "sliding_window": 128},
            "sliding_window is 128: below max_position_embeddings 256",
        ),
        (
            {"model_type": "mistral", "max_position_embeddings": 9999},
            r"sliding_window \(absent: by default\) is 4096",
        ),
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


def test_a_window_as_long_as_the_context_is_no_window(tmp_path: Path) -> None:
    folder = edited(tmp_path, lambda keys: keys.update(model_type="mistral", sliding_window=256))
    assert read_config(folder).max_context == 256


def test_a_config_that_is_no_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"none/config.json: not found \(nor is there a folder"):
        read_config(tmp_path / "none")
    with pytest.raises(WeightError, match="its folder exists"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{\n "hidden_size": }')
    with pytest.raises(WeightError, match="config.json:2:17: no JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(WeightError, match="holds a JSON list, expected an object"):
        read_config(tmp_path)


# Damaged checkpoints


def test_names_and_shapes_are_checked_when_opened(tmp_path: Path) -> None:
    with pytest.raises(
        WeightError, match=r"1 tensors that config.json asks for are missing \(model.norm.weight\)"
    ):
        open_folder(rewritten(tmp_path / "a", lambda tensors: tensors.pop("model.norm.weight")))
    bias = {"model.layers.0.self_attn.q_proj.bias": np.zeros(64, np.float32)}
    with pytest.raises(WeightError, match=r"1 have no place in it \(model.layers.0.self_attn.q_proj.bias\)"):
        open_folder(rewritten(tmp_path / "b", lambda tensors: tensors.update(bias)))
    short = {Q_PROJ: np.zeros((64, 60), np.float32)}
    with pytest.raises(
        WeightError, match=r"q_proj.weight has shape \[64, 60\], config.json makes it \[64, 64\]"
    ):
        open_folder(rewritten(tmp_path / "c", lambda tensors: tensors.update(short)))
    integers = {Q_PROJ: np.zeros((64, 64), np.int32)}
    with pytest.raises(WeightError, match=r"q_proj.weight is I32, not BF16"):
        open_folder(rewritten(tmp_path / "d", lambda tensors: tensors.update(integers)))[
            "layers.0.attention.q.codes"
        ]


@pytest.mark.parametrize(
    ("theirs", "ours"), [(Q_PROJ, "layers.0.attention.q.codes"), ("model.norm.weight", "norm.gain")]
)
def test_nan_is_named_with_its_file(tmp_path: Path, theirs: str, ours: str) -> None:
    weights = open_folder(
        rewritten(tmp_path, lambda tensors: tensors[theirs].reshape(-1).__setitem__(1, np.nan))
    )
    with pytest.raises(WeightError, match=rf"model.safetensors: {theirs}: 1 of .* not finite") as caught:
        weights[ours]
    assert "\n" not in str(caught.value)


def test_cut_and_broken_files_are_named(tmp_path: Path) -> None:
    shutil.copytree(LLAMA, tmp_path / "a")
    file = tmp_path / "a" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(
        WeightError, match=rf"ends at byte {len(whole)}, the file has {len(whole) - 100} bytes"
    ):
        open_folder(tmp_path / "a")
    for cut, message in (
        (whole[:1000], "header of .* bytes in a file of 1000"),
        (b"abc", "in a file of 3 bytes"),
    ):
        file.write_bytes(cut)
        with pytest.raises(WeightError, match=message):
            open_folder(tmp_path / "a")
    file.write_bytes(whole[:8] + b"\xff" * (len(whole) - 8))
    with pytest.raises(WeightError, match="header cannot be read"):
        open_folder(tmp_path / "a")
    file.write_bytes(whole.replace(b"[64,64]", b"[64,65]"))
    with pytest.raises(WeightError, match=r"takes 16384 bytes, F32 \[64, 65\] takes 16640"):
        open_folder(tmp_path / "a")
    file.unlink()
    with pytest.raises(WeightError, match="holds neither model.safetensors nor"):
        open_folder(tmp_path / "a")


def test_an_index_that_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    shutil.copytree(QWEN3, folder)
    index = folder / "model.safetensors.index.json"
    placed: dict[str, Any] = json.loads(index.read_text())
    moved = {**placed["weight_map"], "model.norm.weight": "model-00001-of-00003.safetensors"}
    if placed["weight_map"]["model.norm.weight"] == moved["model.norm.weight"]:
        moved["model.norm.weight"] = "model-00002-of-00003.safetensors"
    index.write_text(json.dumps({"weight_map": moved}))
    with pytest.raises(WeightError, match="model.norm.weight is not in it"):
        open_folder(folder)
    index.write_text(json.dumps({"weight_map": {**moved, "model.norm.weight": "../x.safetensors"}}))
    with pytest.raises(WeightError, match="'../x.safetensors', not a file in the same folder"):
        open_folder(folder)
    index.write_text("{}")
    with pytest.raises(WeightError, match="has no weight_map"):
        open_folder(folder)
    index.write_text(json.dumps(placed))
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightError, match=r"model-00002-of-00003.safetensors: not found"):
        open_folder(folder)
