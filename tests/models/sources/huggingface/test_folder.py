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

from models.contract.plain import plain, plain_cache
from models.rope import frequencies
from models.sources.checkpoint import save_orbax
from models.sources.error import WeightError
from models.sources.huggingface.folder import open_folder
from models.sources.quantise import decode_table, dequantise, quantise
from models.sources.weights import check_shapes, content_digest, weight_shapes
from models.step import family_step

DATA = Path(__file__).parents[2] / "data"
LLAMA, QWEN3 = DATA / "tiny-llama", DATA / "tiny-qwen3"
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
Tensors = dict[str, np.ndarray]


def rewritten(folder: Path, change: Callable[[Tensors], object], **keys: object) -> Path:
    """A copy of tiny-llama with changed tensors and keys."""
    folder.mkdir(exist_ok=True)
    held = json.loads((LLAMA / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(held | keys))
    tensors = load_file(LLAMA / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


# Truth


@pytest.mark.slow
@pytest.mark.parametrize("folder", [LLAMA, QWEN3], ids=lambda folder: folder.name)
def test_plain_logits_are_those_of_transformers(folder: Path) -> None:
    weights = open_folder(folder)
    step = family_step(weights.config, batch=1, context=16)
    check_shapes(weights, weight_shapes(step))
    params = {name: jnp.asarray(weights.plain(name)) for name in weights.shapes}
    params |= {name: jnp.asarray(value) for name, value in step.plain_constants.items()}
    run, cache, rows = jax.jit(plain(step.fn)), plain_cache(step.cache), list[np.ndarray]()
    with np.load(folder / "expected.npz") as expected:
        for position, token in enumerate(expected["tokens"]):
            at = jnp.array([position], jnp.int32)
            logits, _, cache = run(params, jnp.array([token], jnp.int32), at, cache)
            rows.append(np.asarray(logits[0]))
        got, largest = np.stack(rows), np.abs(expected["logits"]).max()
        assert np.abs(got - expected["logits"]).max() / largest < 1e-5


def test_shapes_are_those_of_the_model_in_its_order() -> None:
    for folder in (LLAMA, QWEN3):
        weights = open_folder(folder)
        wanted = weight_shapes(family_step(weights.config, batch=1, context=16))
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
    scale = np.asarray(np.ldexp(np.float32(1), power), np.float32)
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
        (np.linspace(0.001, 0.1, 8, dtype=np.float32).reshape(2, 4), "_scale_inv"),
        (np.ldexp(np.float32(1), np.arange(8).reshape(2, 4)), "_scale_inv"),  # unequal along the inputs
        (np.linspace(0.001, 0.1, 8).reshape(2, 4).astype(ml_dtypes.bfloat16), "_scale"),
    ],
)
def test_fp8_with_scales_of_blocks_is_quantised_again(tmp_path: Path, scale: np.ndarray, end: str) -> None:
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


@pytest.mark.parametrize(
    "scale",
    [
        np.array(0.003, np.float32),
        np.array([0.003], ml_dtypes.bfloat16),
        np.linspace(0.001, 0.1, 64, dtype=np.float32),
        np.linspace(0.0, 0.1, 64, dtype=np.float32)[:, None],
    ],
)
def test_fp8_with_a_scale_per_tensor_or_output_keeps_its_codes(tmp_path: Path, scale: np.ndarray) -> None:
    codes = with_fp8(tmp_path, scale, "_scale", (32, 16))
    weights, path = open_folder(tmp_path), "layers.0.attention.q"
    assert weights.config.column_scales == "f32"
    check_shapes(weights, weight_shapes(family_step(weights.config, batch=1, context=16)))
    wanted = np.broadcast_to(scale.astype(np.float32).reshape(-1, 1), (64, 1))
    np.testing.assert_array_equal(weights[f"{path}.scale"], wanted[:, 0])
    np.testing.assert_array_equal(weights[f"{path}.codes"], np.where(codes == 0x80, 0, codes).T)
    np.testing.assert_array_equal(weights.plain(f"{path}.codes"), (decode_table()[codes] * wanted).T)
    assert weights.relative_errors == {f"{path}.codes": 0.0}
    other = quantise(weights.plain("layers.0.attention.k.codes"))  # in bf16 beside it: rounded as ever
    np.testing.assert_array_equal(
        weights["layers.0.attention.k.scale"], np.ldexp(np.float32(1), other.exponent)
    )


@pytest.mark.parametrize("value", [-0.5, 1e-40, np.nan, np.inf])
def test_a_scale_that_is_none_is_refused_when_opened(tmp_path: Path, value: float) -> None:
    with_fp8(tmp_path, np.full(64, value, np.float32), "_scale", (32, 16))
    with pytest.raises(WeightError, match=r"q_proj.weight_scale: .*(no scale|not finite)"):
        open_folder(tmp_path)


def test_fp8_without_a_fitting_scale_is_named(tmp_path: Path) -> None:
    with_fp8(tmp_path / "a", np.ones((3, 3), np.float32), "_scale_inv", (32, 16))
    with pytest.raises(WeightError, match=r"_scale_inv has shape \[3, 3\]: .* blocks of 32 x 16"):
        open_folder(tmp_path / "a")["layers.0.attention.q.codes"]
    with_fp8(tmp_path / "b", np.ones((), np.float32), "_other_scale")
    with pytest.raises(WeightError, match=r"1 have no place in it \(.*q_proj.weight_other_scale\)"):
        open_folder(tmp_path / "b")
    bare = {Q_PROJ: np.zeros((64, 64), ml_dtypes.float8_e4m3fn)}
    with pytest.raises(
        WeightError, match=r"q_proj.weight is F8_E4M3 \[64, 64\] and has no _scale_inv or _scale"
    ):
        open_folder(rewritten(tmp_path / "c", lambda tensors: tensors.update(bare)))


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
        open_folder(rewritten(tmp_path / "d", lambda tensors: tensors.update(integers)))


SPEEDS = "model.layers.0.self_attn.rotary_emb.inv_freq"


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        (SPEEDS, 1e6 ** -(np.arange(0, 16, 2) / 16), r"no place in it \(.*inv_freq\)"),
        (SPEEDS, np.ones(3), r"no place in it \(.*inv_freq\)"),
        (Q_PROJ.replace("weight", "pre_quant_scale"), np.ones(64), r"no place .*pre_quant_scale"),
        (f"{Q_PROJ}_scale", np.ones(64), r"no place .*weight_scale"),
        ("model.layers.0.self_attn.z_proj.input_scale", np.ones(1), r"no place .*z_proj.input_scale"),
        (Q_PROJ, np.ones((64, 64), np.int8), r"q_proj.weight is I8, not BF16"),
        (Q_PROJ, np.ones((64, 64), ml_dtypes.float8_e5m2), r"q_proj.weight is F8_E5M2, not BF16"),
        (Q_PROJ, np.ones((64, 64), np.bool_), r"q_proj.weight is BOOL, not BF16"),
        ("model.norm.weight", np.ones(64, ml_dtypes.float8_e4m3fn), r"norm.weight is F8_E4M3 \[64\] and has"),
    ],
)
def test_what_is_not_used_or_not_read_is_refused_when_opened(
    tmp_path: Path, name: str, values: np.ndarray, said: str
) -> None:
    held = values.astype(np.float32) if values.dtype == np.float64 else values
    with pytest.raises(WeightError, match=said):
        open_folder(rewritten(tmp_path, lambda tensors: tensors.update({name: held})))


def test_stored_speeds_of_rope_are_compared_with_those_computed(tmp_path: Path) -> None:
    plain = frequencies(16, 1e4)
    scaled = frequencies(16, 1e4, open_folder(LLAMA).config.rope_scaling)
    for i, speeds in enumerate((plain, scaled)):
        held = {SPEEDS: speeds.astype(np.float32), SPEEDS.replace("0", "1"): speeds.astype(np.float16)}
        folder = rewritten(tmp_path / str(i), lambda tensors, held=held: tensors.update(held))
        assert open_folder(folder).notes == ()


def test_scales_of_activations_are_named(tmp_path: Path) -> None:
    held = {Q_PROJ.replace("weight", "input_scale"): np.ones(1, np.float32)}
    held[Q_PROJ.replace("q_proj.weight", "k_proj.k_scale")] = np.ones(1, np.float32)
    (note,) = open_folder(rewritten(tmp_path, lambda tensors: tensors.update(held))).notes
    assert "2 scales of activations and KV (model.layers.0.self_attn" in note


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


# Larger models, adapters


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("language_model.model.", "mm_projector.linear_1.weight"),  # Kimi-K2.5
        ("model.text_model.", "model.connector.proj.weight"),  # SmolVLM
        ("model.language_model.", "model.visual.patch_embed.proj.weight"),  # Qwen
    ],
)
def test_the_text_part_of_a_larger_model_runs_and_the_rest_is_named(
    tmp_path: Path, text: str, other: str
) -> None:
    held = json.loads((LLAMA / "config.json").read_text())
    tensors = load_file(LLAMA / "model.safetensors")
    named = {name.replace("model.", text, 1): value for name, value in tensors.items()}
    save_file({**named, other: np.ones((2, 2), np.float32)}, tmp_path / "model.safetensors")
    whole = {"model_type": "vision", "text_config": held, "vision_config": {"depth": 2}}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    weights = open_folder(tmp_path)
    assert weights.notes == (
        f"weights: 1 tensors of pictures or sound ({other}, ...) are not used: text only.",
    )
    np.testing.assert_array_equal(weights.plain("norm.gain"), open_folder(LLAMA).plain("norm.gain"))


def test_an_adapter_beside_a_model_is_named_and_not_applied(tmp_path: Path) -> None:
    rewritten(tmp_path, lambda tensors: None)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "adapter_config.json beside the model is of an adapter (LoRA)" in open_folder(tmp_path).notes[0]
