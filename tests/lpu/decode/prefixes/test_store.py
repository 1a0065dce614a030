import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from own_models import head_norms, one_layer
from prefixes import BLOCK, binding, filled
from small_sides import ids

from lpu import api
from lpu.decode.prefixes.binding import binding_of
from lpu.decode.prefixes.cache import Layout, PrefixCache
from lpu.decode.prefixes.store import REMEDY, load, save
from lpu.inputs.document import FileError
from lpu.inputs.model import OpenModel
from lpu.outputs.ours import sealed_json
from models.config import Llama3Scaling


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved cache that tests only read."""
    path = tmp_path_factory.mktemp("kv") / "cache"
    save(path, filled(binding()))
    return path


@pytest.mark.parametrize("kv", ["fp16", "fp8"])
def test_a_cache_comes_back_with_every_byte_and_its_order_of_use(kv: str, tmp_path: Path) -> None:
    bound = binding(kv=kv)
    cache = filled(bound)
    cache.match([*ids(BLOCK), *ids(24, 1)])
    save(tmp_path / "deep" / "cache", cache)
    again = load(tmp_path / "deep" / "cache", bound, BLOCK)
    assert len(again) == len(cache) == 4
    assert again.nbytes == cache.nbytes
    for ours, theirs in zip(again.blocks(), cache.blocks(), strict=True):
        assert (ours.key, ours.before) == (theirs.key, theirs.before)
        assert ours.state is theirs.state is None
        for one, other in zip(ours[1:4], theirs[1:4], strict=True):
            assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["cache"]
    smaller = load(tmp_path / "deep" / "cache", bound, BLOCK, capacity_bytes=cache.nbytes // 2)
    assert [one.key for one in smaller.blocks()] == [one.key for one in cache.blocks()[2:]]


ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "weights": ({"weights": "4d" * 32}, f"weights are {'1a' * 8}, this run has {'4d' * 8}"),
    "tokenizer": ({"tokenizer": "none"}, "tokenizer is bytes, this run has none"),
    "positions": ({"positions": "5e" * 32}, f"positions are {'2b' * 8}, this run has {'5e' * 8}"),
    "arithmetic": ({"arithmetic": "6f" * 32}, f"arithmetic is {'3c' * 8}, this run has {'6f' * 8}"),
    "kv format": ({"kv": "fp16"}, "kv format is fp8, this run has fp16"),
    "layout": (
        {"layout": Layout(layers=2, kv_heads=1, head_dim=4, tp=8, pp=2)},
        "layout is layers 2 kv_heads 1 head_dim 4 tp 1 pp 1, this run has "
        "layers 2 kv_heads 1 head_dim 4 tp 8 pp 2",
    ),
    "adapter": ({"adapter": "lora-7"}, "adapter is none, this run has lora-7"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_cache_of_another_run_is_refused_by_name(row: str, folder: Path) -> None:
    changed, said = ROWS[row]
    with pytest.raises(FileError) as refused:
        load(folder, binding(**changed), BLOCK)
    assert str(refused.value) == f"kv-cache: {folder}: {said}. {REMEDY}"


def test_blocks_of_another_size_are_refused(folder: Path) -> None:
    with pytest.raises(
        FileError, match=r"cache: block size is 16, this run has 32\. Remove it, or name another folder"
    ):
        load(folder, binding(), 32)


def test_everything_that_differs_is_in_one_line(folder: Path) -> None:
    changes = {name: value for changed, _ in ROWS.values() for name, value in changed.items()}
    with pytest.raises(FileError) as refused:
        load(folder, binding(**changes), 8)
    said = str(refused.value)
    assert all(expected in said for _, expected in ROWS.values())
    assert "block size is 16, this run has 8" in said
    assert "\n" not in said


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "final.tex").write_text("years of work")
    with pytest.raises(FileError, match=r"thesis: holds final\.tex, which lpu did not write"):
        save(tmp_path / "thesis", filled(binding()))
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "final.tex"]


def test_an_earlier_cache_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "kv", filled(binding(), 1))
    save(tmp_path / "kv", filled(binding(), 2))
    assert len(load(tmp_path / "kv", binding(), BLOCK)) == 3

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(FileError, match="cannot be written: No space left on device"):
        save(tmp_path / "kv", filled(binding(), 3))
    assert len(load(tmp_path / "kv", binding(), BLOCK)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["kv"]


def test_an_empty_cache_comes_back_empty(tmp_path: Path) -> None:
    save(tmp_path / "kv", PrefixCache(binding(), BLOCK))
    assert len(load(tmp_path / "kv", binding(), BLOCK)) == 0


def test_folders_that_are_no_whole_cache_are_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    def edited(name: str, **changes: Any) -> Path:
        path = copy(name) / "prefix.json"
        body = json.loads(path.read_text())
        del body["sha256"]
        path.write_bytes(sealed_json(body | changes))
        return path.parent

    def unsealed(name: str, old: str, new: str) -> Path:
        path = copy(name) / "prefix.json"
        path.write_text(path.read_text().replace(old, new))
        return path.parent

    cut, gone, text = copy("cut"), copy("gone"), copy("text")
    for path in (cut / "blocks").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:10])
    shutil.rmtree(gone / "blocks")
    (text / "prefix.json").write_text('{"schema": "lpu-pre')
    index = json.loads((folder / "prefix.json").read_text())
    other = [[token + 1 for token in block] for block in index["tokens"]]
    (tmp_path / "empty").mkdir()
    for path, said in {
        tmp_path / "nowhere": "is no prefix cache, there is no such folder",
        tmp_path / "empty": r"is no prefix cache, it holds no prefix\.json",
        cut: "blocks: cannot be read",
        gone: "blocks: cannot be read",
        text: r"prefix\.json:1:\d+: Unterminated string",
        edited("schema", schema="other"): "schema is 'other', this version reads 'lpu-prefix-2, contract 2'",
        unsealed("rebound", binding().weights, "4d" * 32): "its sha256 differs: the file was altered",
        edited("keys", bound_to={"weights": "x"}): r"prefix\.json: cannot be read \(KeyError",
        edited("short", tokens=index["tokens"][1:]): r"prefix\.json: cannot be read \(ValueError",
        edited("tokens", tokens=other): "sha256 of tokens and KV bytes is",
        edited(
            "fewer", before=index["before"][1:], tokens=index["tokens"][1:]
        ): r"holds uint8 \[2, 4, 2, 16, 1, 4\], prefix.json says uint8 \[2, 3, 2",
        edited("list", before=7): r"prefix\.json: cannot be read \(TypeError",
    }.items():
        with pytest.raises(FileError, match=said) as refused:
            load(path, binding(), BLOCK)
        assert "\n" not in str(refused.value)


def with_config(model: OpenModel, **changes: Any) -> OpenModel:
    assert model.config is not None
    return replace(model, config=replace(model.config, **changes))


def test_a_binding_names_what_decides_the_bits_of_kv(tmp_path: Path) -> None:
    model = api.open_model("llama-tiny", context=[64])
    base = binding_of(model)
    assert base.layout == Layout(layers=4, kv_heads=4, head_dim=32)
    assert (base.tokenizer, base.kv, base.adapter) == ("bytes", "fp16", "")
    assert base.weights == model.about.weights_digest
    scaling = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=64)
    (tmp_path / "tokenizer.json").write_text("{}")
    for field, other in {
        "weights": api.open_model("llama-tiny", context=[64], weights="seed:1"),
        "kv": api.open_model("llama-tiny", context=[64], kv="fp8"),
        "positions": with_config(model, rope_theta=5e5),
        "arithmetic": with_config(model, ffn_down="fp8"),
        "tokenizer": replace(model, folder=tmp_path),
    }.items():
        found = binding_of(other)
        assert getattr(found, field) != getattr(base, field)
        assert replace(found, **{field: getattr(base, field)}) == base
    assert binding_of(with_config(model, rope_scaling=scaling)).positions != base.positions
    assert binding_of(model, tp=2).layout == replace(base.layout, tp=2)
    assert binding_of(model, adapter="lora").adapter == "lora"


@pytest.mark.slow
def test_batch_and_context_decide_no_bit() -> None:
    short, long = (api.open_model("llama-3.1-8b", context=[c], batch=b) for c, b in ((1024, 1), (9000, 3)))
    assert binding_of(short) == binding_of(long)


def test_a_module_of_ones_own_is_bound_to_what_it_traces_to() -> None:
    one, other = (binding_of(api.open_model(own, context=[32])) for own in (one_layer, head_norms))
    assert binding_of(api.open_model(one_layer, context=[32], batch=3)) == one
    assert one.arithmetic != other.arithmetic
    assert one.layout != other.layout
