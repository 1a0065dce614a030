"""The tokens that end a sequence, as a Hugging Face folder states them."""

from pathlib import Path
from typing import Any

from lpu.inputs.document import FileError
from models.sources.error import WeightError
from models.sources.json_keys import read_object

KEY = "eos_token_id"


def end_tokens(folder: Path | None) -> frozenset[int]:
    """Of generation_config.json, without which of config.json; none without a folder. Raises FileError."""
    if folder is None:
        return frozenset()
    path = folder / "generation_config.json"
    path = path if path.is_file() else folder / "config.json"
    if not path.is_file():
        return frozenset()
    try:
        held = read_object(path)
    except WeightError as error:
        raise FileError(f"run: {error}") from error
    nested = held.get("text_config")
    value: Any = held.get(KEY)
    if value is None and isinstance(nested, dict):
        value = nested.get(KEY)
    ids: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
    for one in ids:
        if type(one) is not int:
            raise FileError(f"run: {path}: {KEY} is {value!r}: it is a token id or a list of them.")
    return frozenset(ids)


def named_end(folder: Path) -> str | None:
    """The end token as tokenizer_config.json writes it; None if it names none."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return None
    try:
        token = read_object(path).get("eos_token")
    except WeightError as error:
        raise FileError(f"text: {error}") from error
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None
