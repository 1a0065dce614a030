import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compiler.graph.capture import capture
from compiler.lower.rules import RULES
from models.catalog import UnknownModelError, catalog, catalog_names, is_named
from models.config import TransformerConfig
from models.contract import ops
from models.families import registry
from models.families.llama import LLAMA
from models.families.llama_checkpoint import READERS
from models.published.count import parameters
from models.published.entries import FOLDER, Published, published
from models.published.needs import RULES as NEEDS
from models.published.needs import missing
from models.published.state import RefusedModelError, config_of, state_of
from models.sources.huggingface.config import config_from
from models.sources.json_keys import Keys
from models.step import family_step

COUNTED = json.loads((Path(__file__).parents[1] / "data" / "published_counts.json").read_text())
NOT_COUNTED = (  # compressed attention and hyper-connections, per-layer tables, or a config known in part
    *("deepseek-v4-flash", "deepseek-v4-pro", "falcon-h1-0.5b", "gemma-4-e2b", "gemma-4-e4b", "jamba2-mini"),
    *("kimi-k3", "minimax-m3", "step-3.7-flash"),
)


def test_there_are_rows_each_with_its_source_and_models_of_one_name() -> None:
    rows = {model.row for model in published().values()}
    assert len(rows) == len(list(FOLDER.glob("*.yaml"))) >= 54
    assert all(model.source for model in published().values())
    for name in set(published()) & set(catalog_names()):  # a file of our own is taken, of the same numbers
        found = parameters(published()[name].config)
        assert found is not None
        assert catalog(name).parameters() == found.total


@pytest.mark.parametrize("name", [name for name in published() if name not in NOT_COUNTED])
def test_parameters_counted_from_the_geometry_are_those_of_transformers(name: str) -> None:
    found = parameters(published()[name].config)
    assert found is not None
    assert found.total == COUNTED[name]["parameters"] + COUNTED[name]["biases"]


@pytest.mark.parametrize("name", NOT_COUNTED)
def test_what_is_not_known_whole_is_not_counted(name: str) -> None:
    assert parameters(published()[name].config) is None


# The authors round, name a model by less or more, or count vision parts, MTP layers or embeddings otherwise.
@pytest.mark.parametrize("model", published().values(), ids=list(published()))
def test_the_published_counts_are_those_of_the_geometry_within_their_rounding(model: Published) -> None:
    found = parameters(model.config)
    if found is not None and model.total is not None:
        assert found.total == pytest.approx(model.total, rel=0.02)
    if found is not None and model.active is not None:
        assert found.active == pytest.approx(model.active, rel=0.1, abs=6e8)
        assert found.active < found.total


def test_a_family_that_is_registered_changes_the_state_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    held = dict(published()["qwen3-30b-a3b"].config) | {"model_type": "toy_experts"}
    model = replace(published()["qwen3-30b-a3b"], config=held)
    monkeypatch.setattr(ops, "OPS", {n: r for n, r in ops.OPS.items() if n not in ("route", "experts")})
    assert not state_of(model).compiles
    assert state_of(model).missing == ("route", "experts")
    monkeypatch.setattr(ops, "OPS", ops.OPS | {"route": ops.GLU, "experts": ops.GLU})
    assert str(state_of(model)) == "refused: no family reads model_type toy_experts"

    def read(keys: Keys, name: str) -> TransformerConfig:
        for key in keys.values:
            keys.get(key)
        return READERS["qwen3"](Keys(keys.path, {"vocab_size": 256}), name)

    monkeypatch.setattr(registry, "FAMILIES", dict(registry.FAMILIES))
    registry.register(replace(LLAMA, name="toy experts", model_types={"toy_experts": read}))
    assert str(state_of(model)) == "compiles"
    assert config_of(model).published_parameters == model.total


def test_what_a_reader_refuses_is_told_in_its_words() -> None:
    model = replace(published()["phi-4"], config={**published()["phi-4"].config, "hidden_act": "relu"})
    assert str(state_of(model)).startswith("refused: hidden_act is 'relu': only silu")


def test_what_an_op_must_take_is_asked_of_its_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    def contract(q: Any, *, window: int = 0) -> Any:
        return q

    config = published()["gemma-2-2b"].config
    monkeypatch.setattr(ops, "OPS", ops.OPS | {"attention": replace(ops.ATTENTION, contract=contract)})
    assert [str(need) for need in missing(config)] == ["attention with cap"]


def test_every_need_is_of_some_published_model() -> None:
    every = [model.config for model in published().values()]
    assert all(any(asks(config) for config in every) for _, asks in NEEDS)


def test_a_refused_model_says_what_it_lacks_and_no_name_is_unknown() -> None:
    assert is_named("kimi-k3")
    with pytest.raises(RefusedModelError, match="kimi-k3 is known, and refused: the vocabulary lacks"):
        catalog("kimi-k3")
    part = replace(published()["phi-4-mini"], lacks="the two lists")
    with pytest.raises(RefusedModelError, match="from its own folder only; not held here: the two lists"):
        config_of(part)
    with pytest.raises(UnknownModelError, match=r"Did you mean qwen2.5-7b\?"):
        catalog("qwen25-7b")


def smallest_of_each_kind() -> list[Published]:
    """Of each model_type that compiles the smallest published model."""
    found: dict[str, Published] = {}
    for model in published().values():
        if state_of(model).compiles:
            kind, least = model.config["model_type"], found.get(model.config["model_type"])
            if least is None or model.config["hidden_size"] < least.config["hidden_size"]:
                found[kind] = model
    return list(found.values())


@pytest.mark.parametrize("model", smallest_of_each_kind(), ids=lambda model: model.name)
def test_every_op_of_a_model_that_compiles_has_a_rule(model: Published) -> None:
    """Its first layers, by shapes alone."""
    layers = min(model.config["num_hidden_layers"], 8)
    by_layer = ("layer_types", "no_rope_layers", "hybrid_override_pattern")
    short = {key: value[:layers] if key in by_layer else value for key, value in model.config.items()}
    config = config_from(Keys(Path(model.name), {**short, "num_hidden_layers": layers}), model.name)
    step = family_step(config, batch=1, context=16)
    graph = capture(step.fn, *step.inputs())
    assert {node.op for node in graph.nodes} <= set(RULES)
