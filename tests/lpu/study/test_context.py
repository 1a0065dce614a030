"""The study of contexts: what models keep, by their configs; bounds where there is no program."""

import json

import pytest

from compiler.errors import OptionError
from lpu import api
from lpu.cli.app import main
from lpu.study.ask import contexts_of
from lpu.study.beside import gpus_beside
from lpu.study.kept import UnknownLayersError, kept_of
from models.configs.hybrid import HybridConfig
from models.published.entries import published
from models.published.state import config_of


def kept(name: str, tokens: int) -> tuple[int, int]:
    found = kept_of(name, published()[name].config)
    return found.kv_bytes(tokens), found.state_bytes


def test_what_models_keep_is_what_their_authors_say() -> None:
    """Jamba keeps 4 GB at 256k (reference 003); DeepSeek-V3 576 fp16 lanes a token and layer."""
    kv, state = kept("jamba-1.5-mini", 1 << 18)
    assert kv == 4 * 2**30  # 4 layers of 8 KV heads
    assert state < kv / 200
    assert kept("deepseek-v3", 1) == (61 * 576 * 2, 0)
    assert kept("qwen3.5-397b-a17b", 0) == (0, 195_379_200)
    assert kept("gpt-oss-120b", 1000) == (18 * 2048 * 1000 + 18 * 2048 * 128, 0)
    assert kept("mamba2-2.7b", 1 << 20)[0] == 0


@pytest.mark.parametrize("name", ["mamba2-2.7b", "falcon-h1-7b"])
def test_states_are_those_that_the_module_has(name: str) -> None:
    config = config_of(published()[name])
    assert isinstance(config, HybridConfig)
    assert kept(name, 1)[1] == config.state_bytes()


def test_a_model_that_is_not_counted_is_refused_by_what_it_keeps() -> None:
    with pytest.raises(UnknownLayersError, match="kimi-k3: the states of KDA layers are not counted"):
        kept("kimi-k3", 1)
    assert main(["study", "context", "kimi-k3", "--no-programs"]) == 3


@pytest.mark.slow
def test_a_model_that_compiles_has_exact_rows_the_same_at_every_context() -> None:
    found = api.study_context("mamba2-2.7b", contexts=[1024, 1 << 20])
    assert [row.kind for row in found.rows] == ["exact", "exact"]
    assert len({(row.cycles, row.users, row.tokens_per_second) for row in found.rows}) == 1
    bounds = api.study_context("mamba2-2.7b", contexts=[1024], programs=False).rows[0]
    assert bounds.cycles < found.rows[0].cycles
    assert bounds.users >= found.rows[0].users
    assert bounds.tokens_per_second > found.rows[0].tokens_per_second


def test_every_number_has_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["study", "context", "llama-3.1-8b,kimi-k2", "--contexts", "8k,64k", "--no-programs", "--json"])
        == 0
    )
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["model"], row["context"]) for row in rows] == [
        ("llama-3.1-8b", 8192), ("llama-3.1-8b", 65536), ("kimi-k2", 8192), ("kimi-k2", 65536),
    ]  # fmt: skip
    for row in rows:
        numbers = [value for value in row.values() if isinstance(value, dict)]
        assert len(numbers) == 13
        assert all(value["kind"] in ("exact", "derived", "modelled") for value in numbers)
        assert {key for key in row if key.startswith("gpu")} == {
            key for key, value in row.items() if isinstance(value, dict) and value["kind"] == "modelled"
        }
    assert [row["gpus"]["value"] for row in rows] == [
        1,
        1,
        None,
        None,
    ]  # a million million bytes are too many


def test_gpus_beside_are_the_fewest_that_hold_a_model_and_a_user() -> None:
    """A state takes of a GPU what it takes of a rack: the same at any length."""
    short, long = (gpus_beside("mamba2-2.7b", context) for context in (8192, 1 << 20))
    assert short == long
    assert short is not None
    assert (short.gpus, short.gpu) == (1, "h200")
    big = gpus_beside("qwen3.5-397b-a17b", 8192)
    assert big is not None
    assert big.gpus == 4
    assert big.users < 2000
    more, most = (gpus_beside("jamba-1.5-mini", context) for context in (8192, 1 << 20))
    assert more is not None
    assert most is not None
    assert more.users > 30 * most.users
    assert gpus_beside("kimi-k3", 8192) is None


def test_contexts_are_lists_or_ranges_that_double() -> None:
    assert contexts_of("8k..64k") == (8192, 16384, 32768, 65536)
    assert contexts_of("100,1M") == (100, 1 << 20)
    for text, why in (
        ("1M..8k", "goes from"),
        ("8q", "'8q' is no number"),
        ("", "'' is no number"),
        ("0", "'0'"),
    ):
        with pytest.raises(OptionError, match=why):
            contexts_of(text)
    assert main(["study", "contexts", "llama-3.1-8b"]) == 2
    assert main(["study", "context", "no-such-model", "--no-programs"]) == 2
