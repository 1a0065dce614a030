"""The models that are known by name: one YAML file each in `models/catalog/`, and the published ones."""

from difflib import get_close_matches
from pathlib import Path

import yaml

from models.config import TransformerConfig
from models.published.entries import published

FOLDER = Path(__file__).with_name("catalog")


class UnknownModelError(ValueError):
    """A name that the catalog does not hold."""

    exit_code = 2


def catalog_names() -> tuple[str, ...]:
    """Names of all models in `models/catalog/`, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def is_named(name: str) -> bool:
    """Whether a model is known by that name: of the catalog, or a published one, compiling or not."""
    return name in catalog_names() or name in published()


def catalog(name: str) -> TransformerConfig:
    """The model of that name; an unknown name raises `UnknownModelError` with the closest one.

    A published model that cannot be compiled raises `RefusedModelError`, with what it lacks.
    """
    names = catalog_names()
    if name not in names:
        if name in published():
            from models.published.state import config_of as published_config  # brings JAX

            return published_config(published()[name])
        if "/" in name or name.startswith("."):
            raise UnknownModelError(f"model: {name}: there is no such folder or file.")
        near = get_close_matches(name, [*names, *published()], n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UnknownModelError(
            f"model: {name!r} is not in the catalog.{hint} It holds: {', '.join(names)}, and the published "
            "ones that lpu models lists."
        )
    fields = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    if "family" not in fields:
        return TransformerConfig.of_fields({"name": name, **fields})
    from models.families.registry import config_of  # brings JAX, which no list of models needs

    return config_of({"name": name, **fields})
