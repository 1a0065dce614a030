import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.catalog import catalog
from models.sources.checkpoint import open_orbax, save_orbax
from models.sources.error import WeightError
from models.sources.quantise import decode_table, dequantise, quantise, to_e4m3, widen
from models.sources.seeded import seeded
from models.sources.weights import Shapes, check_shapes, content_digest, row_reader, weight_shapes
from models.step import family_step

TINY = weight_shapes(family_step(catalog("llama-tiny"), batch=1, context=16))
SMALL: Shapes = {
    "embed.table": jax.ShapeDtypeStruct((96, 64), np.float16),
    "layers.0.ffn.up.codes": jax.ShapeDtypeStruct((64, 96), np.uint8),
    "layers.0.ffn.up.exponent": jax.ShapeDtypeStruct((96,), np.int32),
    "norm.gain": jax.ShapeDtypeStruct((64,), np.float32),
    "head.codes": jax.ShapeDtypeStruct((64, 96), np.uint8),
    "head.exponent": jax.ShapeDtypeStruct((96,), np.int32),
}
# The bytes of seed 7 as first written down; they may change only together with `weights.SCHEME`.
SEED_7 = "9c9f78caba705bd9a35199d16c30bde7e97091bb6058521f1a0e349623b47ce0"
SEED_7_TIED = "a291d1afc7f8a257511cb43c9ca63bad25d65e3fe1f7028c8b94bb97c73c3428"


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Quantisation


def test_the_decode_table_is_that_of_ml_dtypes() -> None:
    every = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    np.testing.assert_array_equal(decode_table(), every)


def test_rounding_is_nearest_even_without_negative_zero() -> None:
    positive = decode_table()[:127]
    middles = (positive[1:] + positive[:-1]) / 2
    nudged = [np.nextafter(middles, np.float32(end)) for end in (0, 448)]
    spread = gaussian(64, 64) * np.exp2(np.random.default_rng(1).integers(-14, 9, (64, 64)))
    values = np.concatenate([positive, middles, *nudged, spread.astype(np.float32).ravel()])
    values = np.clip(np.concatenate([values, -values]), -448, 448)[None]
    nearest = values.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    np.testing.assert_array_equal(to_e4m3(values), np.where(nearest == 0x80, 0, nearest))


def test_rounding_is_that_of_the_contract() -> None:
    from models.contract.formats import rn8

    values = np.concatenate(
        [gaussian(1, 4096) * 100, gaussian(1, 4096) * 0.01, [[1e9, -1e9]]], 1, dtype=np.float32
    )
    np.testing.assert_array_equal(to_e4m3(values), np.asarray(rn8(jax.numpy.asarray(values))))


@pytest.mark.slow
@given(hnp.arrays(np.float32, (5, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_each_column_gets_the_least_scale_that_holds_it(values: np.ndarray) -> None:
    codes, exponent, *_ = quantise(values)
    largest = np.abs(values).max(axis=0).astype(np.float64)
    limit = 448 * np.exp2(exponent.astype(np.float64))
    assert np.all(largest <= limit)
    assert np.all((largest > limit / 2) | (exponent == -126) | ((largest == 0) & (exponent == 0)))
    error = np.abs(dequantise(codes, exponent).astype(np.float64) - values)
    step = np.maximum(np.abs(values) / 16, np.exp2(exponent - 10.0))
    assert np.all((error <= step) | (np.abs(values) < 2**-126))
    assert not np.any((codes & 0x7F == 0x7F) | (codes == 0x80))


def test_quantised_weights_quantise_to_themselves() -> None:
    codes, exponent, error, _ = quantise(gaussian(200, 50))
    again = quantise(dequantise(codes, exponent))
    assert again.relative_error == 0
    np.testing.assert_array_equal(again.codes, codes)
    np.testing.assert_array_equal(again.exponent, exponent)
    assert 0.02 < error < 0.03  # facts/numerics.md section 1.3: 2.7e-2


def test_a_transposed_view_and_large_blocks_change_nothing() -> None:
    values = gaussian(700, 600)
    direct, view = quantise(values), quantise(np.ascontiguousarray(values.T).T)
    np.testing.assert_array_equal(direct.codes, view.codes)
    np.testing.assert_array_equal(direct.exponent, view.exponent)
    expected = np.sqrt(
        np.mean((dequantise(direct.codes, direct.exponent) - values) ** 2) / np.mean(values**2)
    )
    assert direct.relative_error == pytest.approx(expected, rel=1e-5)
    assert view.relative_error == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("transposed", [False, True])
def test_values_that_are_not_finite_are_named(bad: float, transposed: bool) -> None:
    values = gaussian(6, 9)
    values[4, 7] = bad
    with pytest.raises(WeightError, match=r"head: 1 of 54 values are not finite.*\[4, 7\]"):
        quantise(np.ascontiguousarray(values.T).T if transposed else values, "head")


def test_half_floats_widen_exactly() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    np.testing.assert_array_equal(widen(halves), halves.astype(np.float32))


# By seed


def test_a_tensor_has_the_same_bytes_whatever_is_loaded_around_it() -> None:
    alone = {name: TINY[name] for name in ("layers.1.ffn.up.codes", "layers.1.ffn.up.exponent", "norm.gain")}
    every, few = seeded(TINY, 3), seeded(alone, 3)
    for name in reversed(TINY):
        every[name]
    for name in alone:
        np.testing.assert_array_equal(every[name], few[name])


def test_tensors_have_the_shapes_of_the_model() -> None:
    weights = seeded(TINY, 0)
    check_shapes(weights, TINY)
    for name, shape in TINY.items():
        assert (weights[name].shape, weights[name].dtype) == (shape.shape, shape.dtype)
    assert "angles" not in TINY


def test_the_bytes_of_a_seed_never_change() -> None:
    assert content_digest(seeded(SMALL, 7)) == SEED_7
    assert content_digest(seeded(SMALL, 7, tied=True)) == SEED_7_TIED


def test_other_seeds_and_other_names_give_other_tensors() -> None:
    first, second = seeded(TINY, 0), seeded(TINY, 1)
    gate, up = "layers.0.ffn.gate.codes", "layers.0.ffn.up.codes"
    assert np.mean(first[gate] == second[gate]) < 0.05
    assert np.mean(first[gate] == first[up]) < 0.05
    assert first.digest() != second.digest()
    assert first.digest() == seeded(dict(reversed(TINY.items())), 0).digest()


@pytest.mark.parametrize("depth", [64, 100, 2048])
def test_outputs_of_a_seeded_matrix_stay_near_1(depth: int) -> None:
    shapes: Shapes = {
        "up.codes": jax.ShapeDtypeStruct((depth, 512), np.uint8),
        "up.exponent": jax.ShapeDtypeStruct((512,), np.int32),
    }
    weights = seeded(shapes, 0)
    codes = weights["up.codes"]
    assert not np.any((codes & 0x7F == 0x7F) | (codes == 0x80))
    assert len(np.unique(weights["up.exponent"])) == 3
    out = gaussian(64, depth) @ weights.plain("up.codes")
    assert 0.9 < out.std() < 1.1


def test_gains_and_table_are_tame() -> None:
    weights = seeded(SMALL, 0)
    gain, table = weights["norm.gain"], weights["embed.table"]
    assert np.abs(gain - 1).max() <= 1 / 16
    assert np.all(np.isfinite(table))
    assert not np.any(table.view(np.uint16) == 0x8000)
    assert 0.9 < table.std() * 8 < 1.1


def test_the_head_of_a_tied_model_is_its_table() -> None:
    weights = seeded(SMALL, 5, tied=True)
    table = weights["embed.table"].astype(np.float32)
    quantised = quantise(table.T)
    np.testing.assert_array_equal(weights["head.codes"], quantised.codes)
    np.testing.assert_array_equal(weights["head.exponent"], quantised.exponent)
    np.testing.assert_array_equal(weights.plain("head.codes"), table.T)
    assert weights.relative_errors == {"head.codes": quantised.relative_error}
    assert weights.digest() != seeded(SMALL, 5).digest()


def test_what_cannot_be_drawn_is_named() -> None:
    with pytest.raises(WeightError, match="no rule to draw angles, int32"):
        seeded({**SMALL, "angles": jax.ShapeDtypeStruct((16, 2, 8), np.int32)}, 0)
    with pytest.raises(WeightError, match=r"tied, but embed.table is None and head.codes \[64, 96\]"):
        seeded({name: shape for name, shape in SMALL.items() if name != "embed.table"}, 0, tied=True)
    with pytest.raises(WeightError, match=r"seed 0: no tensor layers.9 among 6"):
        seeded(SMALL, 0)["layers.9"]


def test_weights_of_another_model_are_refused() -> None:
    weights = seeded(SMALL, 0)
    with pytest.raises(WeightError, match=r"1 of 7 tensors of the model are missing, first layers.1"):
        check_shapes(weights, {**SMALL, "layers.1.ffn.norm.gain": SMALL["norm.gain"]})
    wide = jax.ShapeDtypeStruct((128,), np.float32)
    with pytest.raises(WeightError, match=r"norm.gain is float32 \[64\], the model takes float32 \[128\]"):
        check_shapes(weights, {**SMALL, "norm.gain": wide})


@pytest.mark.slow
def test_a_billion_codes_are_drawn_and_none_means_nan() -> None:
    config = catalog("llama-1.2b")
    weights = seeded(weight_shapes(family_step(config, batch=1, context=512)), 0)
    codes = [name for name in weights.shapes if name.endswith(".codes")]
    count = 0
    for name in codes:
        values = weights[name]
        assert not ((values & 0x7F) == 0x7F).any()
        count += values.size
    assert count > 1e9


# Orbax


def test_a_checkpoint_comes_back_bit_by_bit(tmp_path: Path) -> None:
    weights = seeded(SMALL, 2, tied=True)
    saved = save_orbax(tmp_path / "deep" / "saved", weights, model="small")
    opened = open_orbax(tmp_path / "deep" / "saved")
    assert opened.shapes == saved.shapes == {name: SMALL[name] for name in sorted(SMALL)}
    assert (opened.model, opened.source, opened.identity) == ("small", "seed 2", "orbax saved (seed 2)")
    for name in SMALL:
        np.testing.assert_array_equal(opened[name], weights[name])
        assert opened[name].dtype == weights[name].dtype
    assert opened.digest() == content_digest(opened) == content_digest(weights)
    np.testing.assert_array_equal(
        opened.plain("layers.0.ffn.up.codes"), weights.plain("layers.0.ffn.up.codes")
    )
    assert opened.plain("embed.table").dtype == np.float32
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["saved"]


def test_a_checkpoint_of_a_few_tensors_holds_only_them(tmp_path: Path) -> None:
    saved = save_orbax(tmp_path / "few", seeded(SMALL, 2), names=["norm.gain"])
    assert list(saved.shapes) == ["norm.gain"]
    with pytest.raises(WeightError, match=r"no tensor embed.table among 1"):
        saved["embed.table"]


def test_a_checkpoint_is_never_written_over(tmp_path: Path) -> None:
    save_orbax(tmp_path / "a", seeded(SMALL, 2))
    with pytest.raises(WeightError, match="exists already"):
        save_orbax(tmp_path / "a", seeded(SMALL, 3))


def test_a_flipped_bit_of_a_tensor_is_refused_with_its_name(tmp_path: Path) -> None:
    """As when the store gives other bytes of the same size: other weights under this list."""
    save_orbax(tmp_path / "a", seeded(SMALL, 2))
    save_orbax(tmp_path / "b", seeded(SMALL, 3))
    shutil.rmtree(tmp_path / "a" / "tensors")
    shutil.copytree(tmp_path / "b" / "tensors", tmp_path / "a" / "tensors")
    opened = open_orbax(tmp_path / "a")
    for name in ("embed.table", "norm.gain"):
        with pytest.raises(WeightError, match=f"sha256 of {name} is .* the file was altered"):
            opened[name]


def test_an_edited_list_of_tensors_is_refused(tmp_path: Path) -> None:
    save_orbax(tmp_path / "a", seeded(SMALL, 2), model="small")
    path = tmp_path / "a" / "weights.json"
    path.write_text(path.read_text().replace('"small"', '"large"'))
    with pytest.raises(WeightError, match="its seal differs"):
        open_orbax(tmp_path / "a")


def test_missing_and_half_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="there is no such folder"):
        open_orbax(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightError, match=r"holds no weights.json"):
        open_orbax(tmp_path / "empty")
    folder = tmp_path / "a"
    save_orbax(folder, seeded(SMALL, 2))
    shutil.copytree(folder, tmp_path / "half")
    (tmp_path / "half" / "tensors" / "_METADATA").unlink()
    with pytest.raises(WeightError, match=r"no complete Orbax checkpoint .* lists 6 tensors"):
        open_orbax(tmp_path / "half")
    shutil.copytree(folder, tmp_path / "cut")
    for path in (tmp_path / "cut" / "tensors").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(WeightError, match=r"embed.table cannot be read"):
        open_orbax(tmp_path / "cut")["embed.table"]
    (folder / "weights.json").write_text('{"schema": "lpu-weights-2"}')
    with pytest.raises(WeightError, match=r"weights.json: its seal differs: the file was altered"):
        open_orbax(folder)
    (folder / "weights.json").write_text("[" * 100_000)
    with pytest.raises(WeightError, match=r"weights.json: cannot be read \("):
        open_orbax(folder)
    (folder / "weights.json").write_text('{"schema": "other"}')
    with pytest.raises(WeightError, match="schema is 'other', this version reads 'lpu-weights-2'"):
        open_orbax(folder)


def test_rows_of_a_seeded_tensor_are_those_of_the_whole() -> None:
    """Widths that are no multiple of what Philox makes at a time, and more than one block of them."""
    shapes = {
        "a.codes": jax.ShapeDtypeStruct((1200, 77), np.dtype(np.uint8)),
        "a.exponent": jax.ShapeDtypeStruct((77,), np.dtype(np.int32)),
        "embed.table": jax.ShapeDtypeStruct((130, 77), np.dtype(np.float16)),
    }
    weights = seeded(shapes, 3)
    for name in ("a.codes", "embed.table"):
        whole, read = weights[name], row_reader(weights, name)
        assert read is not None
        for first, last in ((0, 1), (1, 3), (7, 130), (0, len(whole)), (len(whole) - 1, len(whole))):
            rows = read(first, last)
            assert rows.dtype == whole.dtype
            assert np.array_equal(rows, whole[first:last])
    assert row_reader(weights, "a.exponent") is None
