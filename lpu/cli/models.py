"""The verb `models`: the models that are known by name, and what becomes of each here."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lpu.cli.catalogs import Name, one_entry
from lpu.cli.terminal import TERMINAL
from lpu.inputs.document import FileError

if TYPE_CHECKING:
    from models.config import TransformerConfig

SHOWN = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "max_context")
KEYS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
    "vocab": "vocab_size",
    "max_context": "max_position_embeddings",
}
"""Our names of numbers, and those of config.json."""


def models(name: Name = None) -> None:
    """The models that are known by name, with their state: compiles, or what it lacks; of one, every number.

    Examples:
      lpu models
      lpu models llama-3.1-70b
    """
    from models.catalog import catalog_names
    from models.published.entries import published

    terminal, own = TERMINAL.get(), catalog_names()
    if name is not None:
        return _published(name) if name not in own and name in published() else _own(name)
    rows = [*map(_row, own), *(_published_row(each) for each in published() if each not in own)]
    numbers = ("parameters", "active_parameters", *SHOWN)
    terminal.table(
        (
            *("model", "parameters", "active", "layers", "hidden", "heads", "kv", "ffn", "vocab"),
            *("longest context", "state"),
        ),
        [[row["name"], *(_text(row[key]) for key in numbers), _state(row)] for row in rows],
    )
    compiling = sum(row["state"] == "compiles" for row in rows)
    terminal.say(
        f"{compiling} of {len(rows)} compile. Parameters are counted from the geometry. "
        "Of each number its kind (published, derived, assumed) and source: lpu models NAME"
    )
    terminal.result({"schema": "lpu-models/2", "models": rows})


def _row(name: str) -> dict[str, Any]:
    """A model of the catalog in a line of the list."""
    from models.catalog import catalog
    from models.config import DEFAULT_FAMILY
    from models.published.count import parameters
    from models.published.entries import published

    config, known = catalog(name), published().get(name)
    count = known and parameters(known.config)
    active = count.active if count else _active(config) if config.family == DEFAULT_FAMILY else None
    return (
        {"name": name, "row": known and known.row, "model_type": config.family}
        | {key: getattr(config, key) for key in KEYS}
        | {"parameters": config.parameters(), "active_parameters": active}
        | {"published_parameters": config.published_parameters}
        | {"published_active_parameters": known and known.active}
        | {"state": "compiles", "missing": [], "why": "", "source": config.source}
    )


def _active(config: "TransformerConfig") -> int:
    """The parameters of a dense model that a token uses: of an untied embedding one row."""
    return config.parameters() - (0 if config.tied else (config.vocab - 1) * config.hidden)


def _published_row(name: str) -> dict[str, Any]:
    """A published model in a line of the list."""
    from models.published.count import parameters
    from models.published.entries import published
    from models.published.state import state_of

    model = published()[name]
    state, count = state_of(model), parameters(model.config)
    return (
        {"name": name, "row": model.row, "model_type": model.config.get("model_type")}
        | {key: model.config.get(theirs) for key, theirs in KEYS.items()}
        | {"parameters": count and count.total, "active_parameters": count and count.active}
        | {"published_parameters": model.total, "published_active_parameters": model.active}
        | {"state": "compiles" if state.compiles else "refused", "missing": list(state.missing)}
        | {"why": state.why, "source": model.source}
    )


def _published(name: str) -> None:
    """Every number of a published model, by its key in config.json."""
    from lpu.report.numbers import Number
    from models.published.count import parameters
    from models.published.entries import published
    from models.published.state import state_of

    model = published()[name]
    count, basis = parameters(model.config), model.basis or "rounded, as its authors say it"
    numbers = [
        Number(
            key,
            _short(value),
            "assumed" if key in model.assumed else "published",
            "",
            model.assumed.get(key, model.source),
        )
        for key, value in model.config.items()
    ]
    for key, value in (("published_parameters", model.total), ("published_active_parameters", model.active)):
        if value is not None:
            numbers.append(Number(key, value, "published", "", basis))
    stored = f"; weights: {model.weights}" if model.weights else ""
    TERMINAL.get().say(f"{name}: {state_of(model)}{stored}")
    derived = {} if count is None else {"parameters": count.total, "active_parameters": count.active}
    one_entry("model", name, numbers, **derived)


def _own(name: str) -> None:
    """Every number of a model of the catalog, a file or a folder."""
    from lpu.inputs.files import read_model
    from lpu.inputs.open import config_in
    from lpu.report.numbers import of_model

    config = config_in(read_model(name))
    if config is None:
        raise FileError(f"models: {name} is a module of its own, its numbers are in its code.")
    kept = {"parameters": config.parameters(), "kv_fp16_bytes_per_token_and_layer": 2 * config.cached_lanes}
    one_entry("model", config.name, of_model(config), **kept)


def _state(row: Mapping[str, Any]) -> str:
    if row["state"] == "refused":
        return f"refused: {row['why']}"
    return f"compiles {row['why']}".strip()


def _text(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _short(value: Any) -> Any:
    """A list of a config in a line: its length where it is long."""
    return f"a list of {len(value)}" if isinstance(value, list) and len(value) > 8 else value


VERBS = (models,)
