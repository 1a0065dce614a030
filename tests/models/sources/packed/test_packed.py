import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.contract.scales.mxfp4 import from_mxfp4
from models.sources.error import WeightError
from models.sources.huggingface.folder import HuggingFaceWeights, open_folder
from models.sources.packed.convert import Changed, changed_of
from models.sources.packed.join import joined
from models.sources.quantise import decode_table, dequantise, quantise
from models.sources.safetensor_files import read_header

LLAMA = Path(__file__).parents[2] / "data" / "tiny-llama"
MODULE = "model.layers.0.self_attn.q_proj"
PATH = "layers.0.attention.q.codes"
OUT, K, GROUP = 64, 64, 32  # of q_proj
MAGNITUDES = (0, 0.5, 1, 1.5, 2, 3, 4, 6)
Tensors = dict[str, np.ndarray]
INT4 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {"weights": {"num_bits": 4, "type": "int", "symmetric": True, "group_size": GROUP}}
    },
}


def folder(path: Path, change: Callable[[Tensors], object], quantization: dict[str, Any]) -> Path:
    """A copy of tiny-llama with changed tensors."""
    path.mkdir(exist_ok=True)
    config = json.loads((LLAMA / "config.json").read_text()) | {"quantization_config": quantization}
    (path / "config.json").write_text(json.dumps(config))
    tensors = load_file(LLAMA / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")
    return path


def int4(seed: int = 0) -> tuple[Tensors, np.ndarray]:
    """q_proj as compressed-tensors packs it, and its values, number by number."""
    rng = np.random.default_rng(seed)
    q = rng.integers(-8, 8, (OUT, K))
    scale = rng.uniform(0.001, 0.1, (OUT, K // GROUP)).astype(ml_dtypes.bfloat16)
    words = np.zeros((OUT, K // 8), np.int64)
    values = np.zeros((OUT, K), np.float32)
    for i in range(OUT):
        for j in range(K):
            words[i, j // 8] |= (int(q[i, j]) + 8) << (4 * (j % 8))
            values[i, j] = np.float32(q[i, j]) * np.float32(scale[i, j // GROUP])
    held: Tensors = {
        f"{MODULE}.weight_packed": words.astype(np.uint32).view(np.int32),
        f"{MODULE}.weight_scale": scale,
        f"{MODULE}.weight_shape": np.array([OUT, K]),
    }
    return held, values


def mxfp4(spread: int, seed: int = 0) -> tuple[Tensors, np.ndarray]:
    """q_proj in MXFP4 whose blocks lie up to `spread` binades apart, and its values, number by number."""
    rng = np.random.default_rng(seed)
    nibbles = rng.integers(0, 16, (OUT, K), dtype=np.uint8)
    powers = (120 + np.array([[0, spread]] * OUT)).astype(np.uint8)
    values = np.zeros((OUT, K), np.float32)
    for i in range(OUT):
        for j in range(K):
            sign = -1 if nibbles[i, j] & 8 else 1
            values[i, j] = sign * MAGNITUDES[nibbles[i, j] & 7] * 2.0 ** (int(powers[i, j // 32]) - 127)
    packed = nibbles[:, 0::2] | nibbles[:, 1::2] << 4
    return {f"{MODULE}.weight_packed": packed, f"{MODULE}.weight_scale": powers}, values


def opened(path: Path, held: Tensors, quantization: dict[str, Any]) -> HuggingFaceWeights:
    def change(tensors: Tensors) -> None:
        del tensors[f"{MODULE}.weight"]
        tensors.update(held)

    return open_folder(folder(path, change, quantization))


def test_int4_in_groups_is_read_exactly_and_its_conversion_counted(tmp_path: Path) -> None:
    held, values = int4()
    weights = opened(tmp_path, held, INT4)
    np.testing.assert_array_equal(weights.plain(PATH), values.T)
    wanted = quantise(values.T)
    np.testing.assert_array_equal(weights[PATH], wanted.codes)
    changed = int((dequantise(wanted.codes, wanted.exponent) != values.T).sum())
    assert weights.changed == {PATH: Changed(changed, OUT * K)}
    assert 0 < changed < OUT * K
    assert weights.relative_errors[PATH] == pytest.approx(0.026, abs=0.006)
    weights["layers.0.attention.k.codes"]  # bf16: not the checkpoint's own codes
    assert str(changed_of(weights)).startswith(f"{changed:,} of 4,096 weights")


def test_int4_with_scales_of_powers_of_two_is_exact(tmp_path: Path) -> None:
    held, _ = int4()
    held[f"{MODULE}.weight_scale"] = np.full((OUT, 2), 2.0**-6).astype(ml_dtypes.bfloat16)
    weights = opened(tmp_path, held, INT4)
    weights[PATH]
    assert (weights.changed[PATH], weights.relative_errors[PATH]) == (Changed(0, OUT * K), 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0, 14, 15, 20])
def test_mxfp4_is_exact_while_its_blocks_spread_fourteen_binades(tmp_path: Path, spread: int) -> None:
    held, values = mxfp4(spread)
    weights = opened(tmp_path, held, {"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"})
    np.testing.assert_array_equal(weights.plain(PATH), values.T)
    codes, exponent = weights[PATH], weights["layers.0.attention.q.exponent"]
    lost = int((dequantise(codes, exponent) != values.T).sum())
    assert weights.changed == {PATH: Changed(lost, OUT * K)}
    assert (lost == 0) == (spread <= 14)
    packed = held[f"{MODULE}.weight_packed"]
    nibbles = np.stack([packed & 15, packed >> 4], -1).reshape(OUT, K)
    contract = from_mxfp4(jnp.asarray(nibbles.T), jnp.asarray(held[f"{MODULE}.weight_scale"].T))
    np.testing.assert_array_equal(codes, contract.codes)
    np.testing.assert_array_equal(exponent, contract.exponent)
    assert int(contract.changed) == lost


def test_the_experts_of_gpt_oss_are_read_as_transformers_holds_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    experts, out, blocks = 3, 6, 2
    held = rng.integers(0, 256, (experts, out, blocks, 16), dtype=np.uint8)
    powers = rng.integers(110, 130, (experts, out, blocks), dtype=np.uint8)
    save_file({"up_blocks": held, "up_scales": powers}, tmp_path / "model.safetensors")
    tensor = joined(read_header(tmp_path / "model.safetensors"))["up"]
    values = tensor.floats()
    assert (tensor.shape, tensor.dtype) == ((experts, 32 * blocks, out), "MXFP4")
    assert values.shape == tensor.shape
    for e, n, k in np.ndindex(experts, out, 32 * blocks):
        byte = int(held[e, n, k // 32, k % 32 // 2])
        nibble = byte >> 4 if k % 2 else byte & 15
        size = MAGNITUDES[nibble & 7] * 2.0 ** (int(powers[e, n, k // 32]) - 127)
        assert values[e, k, n] == (-size if nibble & 8 else size)
    np.testing.assert_array_equal(tensor.floats(slice(1, 2)), values[1:2])


@pytest.mark.parametrize(("apart", "exact"), [(0, True), (1, False)])
def test_fp8_blocks_with_e8m0_scales_are_read(tmp_path: Path, apart: int, exact: bool) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (OUT, K), dtype=np.uint8)
    codes[codes & 0x7F == 0x7F] = 0
    scale = np.array([[120, 120 - 9 * apart], [130, 130 - 9 * apart]], np.uint8)
    values = decode_table()[codes] * np.repeat(
        np.repeat(2.0 ** (scale.astype(np.int32) - 127), 32, axis=0), 32, axis=1
    ).astype(np.float32)

    def change(tensors: Tensors) -> None:
        tensors[f"{MODULE}.weight"] = codes.view(ml_dtypes.float8_e4m3fn)
        tensors[f"{MODULE}.weight_scale"] = scale

    groups = {"g": {"weights": {"num_bits": 8, "type": "float", "block_structure": [32, 32]}}}
    path = folder(tmp_path, change, {"quant_method": "compressed-tensors", "config_groups": groups})
    _as_e8m0(path / "model.safetensors", f"{MODULE}.weight_scale")
    weights = open_folder(path)
    np.testing.assert_array_equal(weights.plain(PATH), values.T)
    back = dequantise(weights[PATH], weights["layers.0.attention.q.exponent"])
    assert weights.changed[PATH] == Changed(int((back != values.T).sum()), OUT * K)
    assert (weights.changed[PATH].weights == 0) == exact


def _as_e8m0(file: Path, name: str) -> None:
    """The tensor of bytes named as E8M0 in the header, which numpy's side of the library cannot write."""
    held = file.read_bytes()
    size = int.from_bytes(held[:8], "little")
    header = json.loads(held[8 : 8 + size])
    header[name]["dtype"] = "F8_E8M0"
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + held[8 + size :])


def test_a_scale_of_e8m0_that_is_no_number_is_refused(tmp_path: Path) -> None:
    held, _ = mxfp4(0)
    held[f"{MODULE}.weight_scale"][3, 1] = 255
    weights = opened(tmp_path, held, {"quant_method": "compressed-tensors"})
    with pytest.raises(WeightError, match=r"weight_scale: 1 of 128 scales are byte 255, which is no number"):
        weights[PATH]


def bad(held: Tensors, **change: np.ndarray | None) -> Tensors:
    every = held | {f"{MODULE}.weight_{end}": value for end, value in change.items() if value is not None}
    return {name: one for name, one in every.items() if change.get(name.rpartition("_")[2], one) is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": None}, "weight_packed has no .*weight_scale beside it"),
        (
            {"scale": np.ones((OUT, 3), np.float32)},
            r"scale has shape \[64, 3\]: a matrix of \[64, 64\] takes",
        ),
        ({"scale": np.ones((32, 2), np.float32)}, r"scale has shape \[32, 2\]: .* takes \[64, groups\]"),
        ({"scale": np.ones((OUT, 2), np.float64)}, "int4 takes a matrix of words and scales of BF16"),
        (
            {"shape": np.array([OUT, 65])},
            r"packed has shape \[64, 8\], a matrix of \[64, 65\] takes \[64, 9\]",
        ),
        ({"shape": np.array([OUT, K, 1])}, r"shape is I64 \[3\], not two integers"),
        ({"packed": np.zeros((OUT, 8), np.int64)}, "packed is I64 with scales of BF16, not int4"),
        ({"zero_point": np.zeros((8, 2), np.int32)}, r"1 have no place in it \(.*weight_zero_point\)"),
    ],
)
def test_int4_whose_parts_do_not_fit_is_one_line(
    tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    with pytest.raises(WeightError, match=message) as caught:
        opened(tmp_path, bad(int4()[0], **change), INT4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": np.full((OUT, 1), 127, np.uint8)}, r"\[64, 1\]: codes \[64, 32\] take one .* \[64, 2\]"),
        ({"packed": np.zeros((OUT, 32, 2), np.uint8)}, "packed has 3 axes, MXFP4 has 2, or 4 of experts"),
        ({"packed": np.zeros((OUT, 40), np.uint8)}, r"\[64, 2\]: codes \[64, 40\] take one scale per 32"),
    ],
)
def test_mxfp4_whose_parts_do_not_fit_is_one_line(
    tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    with pytest.raises(WeightError, match=message) as caught:
        opened(tmp_path, bad(mxfp4(0)[0], **change), {"quant_method": "compressed-tensors"})
    assert "\n" not in str(caught.value)


def test_a_matrix_of_another_shape_than_the_model_is_refused(tmp_path: Path) -> None:
    held, _ = int4()
    held[f"{MODULE}.weight_packed"] = held[f"{MODULE}.weight_packed"][:32]
    held[f"{MODULE}.weight_scale"] = held[f"{MODULE}.weight_scale"][:32]
    held[f"{MODULE}.weight_shape"] = np.array([32, K])
    with pytest.raises(WeightError, match=r"has shape \[32, 64\], config.json makes it \[64, 64\]"):
        opened(tmp_path, held, INT4)


def _weights(**said: Any) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": said}}}


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, "format is 'nvfp4-pack"),
        (_weights(type="int", num_bits=8), "config_groups.g.weights.num_bits is 8: of integers only 4 bits"),
        (_weights(type="int", num_bits=4, symmetric=False), "g.weights.symmetric is False: only"),
        (_weights(block_structure=[128]), r"g.weights.block_structure is \[128\], not two sizes"),
    ],
)
def test_other_schemes_are_refused_by_their_keys(
    tmp_path: Path, quantization: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeightError, match=message):
        opened(tmp_path, int4()[0], quantization)
