"""The models that ship with the project: one YAML file each in `models/catalog/`."""

from difflib import get_close_matches
from pathlib import Path

import yaml

from models.config import TransformerConfig

FOLDER = Path(__file__).with_name("catalog")


class UnknownModelError(ValueError):
    """A name that the catalog does not hold."""

    exit_code = 2


def catalog_names() -> tuple[str, ...]:
    """Names of all models in the catalog, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def catalog(name: str) -> TransformerConfig:
    """The model of that name; an unknown name raises `UnknownModelError` with the closest one."""
    names = catalog_names()
    if name not in names:
        near = get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UnknownModelError(f"model: {name!r} is not in the catalog.{hint} It holds: {', '.join(names)}.")
    fields = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    if "family" not in fields:
        return TransformerConfig.of_fields({"name": name, **fields})
    from models.families.registry import config_of  # brings JAX, which no list of models needs

    return config_of({"name": name, **fields})
