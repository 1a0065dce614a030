"""Whether a published model can be compiled here: asked of the families that are registered, never stated."""

from dataclasses import dataclass, replace
from pathlib import Path

from models.config import TransformerConfig
from models.families.registry import readers
from models.published.entries import Published
from models.published.needs import missing
from models.sources.error import WeightError
from models.sources.huggingface.config import config_from
from models.sources.json_keys import Keys


class RefusedModelError(ValueError):
    """A published model that cannot be compiled here, or not by its name alone."""

    exit_code = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """compiles: whether a family reads its config. missing: what the vocabulary lacks. why: in words."""

    compiles: bool
    missing: tuple[str, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        return " ".join(("compiles", self.why)).strip() if self.compiles else f"refused: {self.why}"


def state_of(model: Published) -> State:
    """What becomes of a model now."""
    if not model.config:
        return State(compiles=False, why=f"not held here: {model.lacks}")
    try:
        config = _read(model)
    except WeightError as error:
        if lacking := tuple(map(str, missing(model.config))):
            return State(compiles=False, missing=lacking, why=f"the vocabulary lacks {', '.join(lacking)}")
        if (kind := model.config["model_type"]) not in readers():
            return State(compiles=False, why=f"no family reads model_type {kind}")
        if model.lacks:
            return State(compiles=False, why=f"not held here: {model.lacks}")
        return State(compiles=False, why=str(error).removeprefix(f"{model.name}: ").rstrip("."))
    why = f"from its folder; not held here: {model.lacks}" if model.lacks else ""
    if config.shortened_by:
        why = f"to context {config.longest:,}: {config.shortened_by}"
    return State(compiles=True, why=why)


def config_of(model: Published) -> TransformerConfig:
    """The numbers of a published model. Raises RefusedModelError where it cannot be compiled by its name."""
    state = state_of(model)
    if not state.compiles:
        raise RefusedModelError(f"model: {model.name} is known, and {state}.")
    if model.lacks:
        raise RefusedModelError(
            f"model: {model.name} compiles from its own folder only; not held here: {model.lacks}. "
            "Fetch the checkpoint, then name its folder."
        )
    source = f"published config of {model.name} ({model.source})"
    return replace(_read(model), source=source, published_parameters=model.total)


def _read(model: Published) -> TransformerConfig:
    return config_from(Keys(Path(model.name), dict(model.config)), model.name)
