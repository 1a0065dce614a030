"""A user's YAML or JSON file with the place of every key, and the frozen record that it spells."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints
from unicodedata import category

import yaml

T = TypeVar("T")
Key = tuple[str | int, ...]
MOST_BYTES = 1 << 22  # of a text that a user writes
POWER = re.compile(r"[+-]?(\d[\d_]*)?\.?\d*[eE][+-]?\d{1,2}")


class FileError(Exception):
    """A user's file, or an option, is wrong."""

    exit_code = 2


class Document(NamedTuple):
    """What a file says, and the line and column of each key."""

    path: Path
    data: dict[str, Any]
    places: dict[Key, tuple[int, int]]

    def complaint(self, key: Key, message: str) -> str:
        """`file:line:col: key: message`, at the key or at the mapping that lacks it."""
        at = key
        while at not in self.places:
            at = at[:-1]
        line, column = self.places[at]
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")
        return f"{self.path}:{line}:{column}: {name + ': ' if name else ''}{message}"


def read_document(path: Path) -> Document:
    """A YAML or JSON file whose top is a mapping, with the place of every key; no key twice, no aliases."""
    loader = None
    try:
        loader = yaml.SafeLoader(read_text(path))
        node = loader.get_single_node()
        places: dict[Key, tuple[int, int]] = {(): (1, 1)}
        data = None if node is None else _value(loader, path, node, (), places, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise FileError(f"{path}:{_place(mark)}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise FileError(f"{path}:1:1: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise FileError(f"{path}:1:1: is nested too deeply") from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(data, dict):
        what = "is empty" if data is None else f"holds a {type(data).__name__}"
        raise FileError(f"{path}:1:1: {what}, needs keys with values")
    return Document(path, data, places)


def parse(record: type[T], document: Document) -> T:
    """The frozen dataclass `record` that the document spells; every problem of it in one FileError."""
    from pydantic import TypeAdapter, ValidationError  # a tenth of a second

    try:
        text = json.dumps(document.data, default=str)
        return TypeAdapter(record).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        lines = [_complaint(record, document, problem) for problem in error.errors()]
        raise FileError("\n".join(lines)) from None


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file, or a FileError that says why not: it is missing, no text, or longer than `most`."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise FileError(f"{path}: is longer than {most} bytes, which no such file needs.")
        return data.decode()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from None


def _value(
    loader: yaml.SafeLoader,
    path: Path,
    node: yaml.Node,
    key: Key,
    places: dict[Key, tuple[int, int]],
    seen: set[int],
) -> Any:
    """The value of a YAML node; notes the place of every key below it."""
    if id(node) in seen:
        raise FileError(
            f"{path}:{_place(node.start_mark)}: an alias (*name) is not allowed; write the value again"
        )
    seen.add(id(node))
    places.setdefault(key, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, path, item, (*key, i), places, seen) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        out: dict[str, Any] = {}
        for name_node, item in node.value:
            name = name_node.value if isinstance(name_node, yaml.ScalarNode) else "?"
            place = _place(name_node.start_mark)
            if name in out:
                raise FileError(f"{path}:{place}: {name}: is there twice")
            places[(*key, name)] = (name_node.start_mark.line + 1, name_node.start_mark.column + 1)
            out[name] = _value(loader, path, item, (*key, name), places, seen)
        return out
    try:
        value = loader.construct_object(node)
    except ValueError as error:
        raise FileError(f"{path}:{_place(node.start_mark)}: {error}") from None
    if isinstance(value, str) and (steering := next((one for one in value if category(one)[0] == "C"), "")):
        raise FileError(
            f"{path}:{_place(node.start_mark)}: the text holds the control character U+{ord(steering):04X}, "
            "which no program may; write it without"
        )
    return value


def _complaint(record: type, document: Document, problem: Mapping[str, Any]) -> str:
    key, message, value = tuple(problem["loc"]), str(problem["msg"]), problem["input"]
    if problem["type"] == "value_error":
        message = message.removeprefix("Value error, ")
        name, _, rest = message.partition(": ")
        return (
            document.complaint((*key, name), rest)
            if name.isidentifier()
            else document.complaint(key, message)
        )
    if problem["type"] == "unexpected_keyword_argument":
        names = _names(record, key[:-1])
        near = get_close_matches(str(key[-1]), names, n=1, cutoff=0.0)
        return document.complaint(key, f"is no key here. Did you mean {near[0]}? Keys: {', '.join(names)}.")
    if problem["type"] == "missing":
        return document.complaint(key, "is required")
    message = f"{message[:1].lower()}{message[1:]}, got {value!r}"
    if isinstance(value, str) and problem["type"] in ("int_type", "float_type") and POWER.fullmatch(value):
        number = float(value.replace("_", ""))
        message += f": YAML reads it as text, write {int(number) if number.is_integer() else number:_}"
    return document.complaint(key, message)


def _names(record: Any, key: Key) -> list[str]:
    """The keys that a mapping at `key` inside `record` may have."""
    for part in key:
        if isinstance(part, str):
            record = get_type_hints(record)[part]
        while not is_dataclass(record) and get_args(record):
            record = get_args(record)[0]
    return [field.name for field in fields(record)]


def _place(mark: Any) -> str:
    return "1:1" if mark is None else f"{mark.line + 1}:{mark.column + 1}"
