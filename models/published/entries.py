"""The published models: one YAML file in `models/published/rows/` for each, or for several that are alike.

A file holds `source`, `common` keys of config.json, and `models` by name: their other keys (`config`), what
is `published` of their parameters, how their `weights` are stored, what of the config the sources do not
hold (`lacks`), and which keys are taken from elsewhere (`assumed`: why, by key).
`{cycle: [...], length: N}` stands for a list of N entries that repeats.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).with_name("rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published model. row: the file that holds it. config: keys of its config.json, its text part alone.

    total, active: parameters as its authors count them, basis: what they count. lacks: what of its config the
    sources do not hold, so that it can be run from its own folder only. assumed: why, of keys of config that
    the sources do not hold and that are taken to be so.
    """

    name: str
    row: str
    source: str
    config: Mapping[str, Any]
    total: int | None = None
    active: int | None = None
    basis: str | None = None
    weights: str | None = None
    lacks: str | None = None
    assumed: Mapping[str, str] = field(default_factory=dict[str, str])


@cache
def published() -> Mapping[str, Published]:
    """All of them by name, row by row."""
    found: dict[str, Published] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        file = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, one in file["models"].items():
            config = {**file.get("common", {}), **one.get("config", {})}
            found[name] = Published(
                name=name,
                row=path.stem,
                source=file["source"],
                config={key: _long(value) for key, value in config.items()},
                weights=one.get("weights"),
                lacks=one.get("lacks"),
                assumed=one.get("assumed", {}),
                **one.get("published", {}),
            )
    return found


def _long(value: Any) -> Any:
    """A value of config.json from the short form of a row."""
    if isinstance(value, dict) and value.keys() == {"cycle", "length"}:
        return [value["cycle"][i % len(value["cycle"])] for i in range(value["length"])]
    if isinstance(value, dict):
        return {key: _long(one) for key, one in value.items()}
    return value
