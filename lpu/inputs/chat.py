"""A user's message as the prompt that a folder's chat template makes of it.

Templates are run in a sandbox that calls nothing of Python's. They are not told the date: the same message
makes the same prompt on every day. Source: transformers 5.24, utils/chat_template_utils.py.
"""

import json
from pathlib import Path
from typing import Any, NoReturn

from lpu.inputs.document import FileError
from models.sources.error import WeightError
from models.sources.json_keys import read_object

FILE = "chat_template.jinja"
_CONFIG, _KEY, _DEFAULT = "tokenizer_config.json", "chat_template", "default"


def chat_prompt(folder: Path | None, message: str) -> str:
    """The prompt of one user message, up to where the answer begins. Raises FileError."""
    return conversation_prompt(folder, [{"role": "user", "content": message}])


def conversation_prompt(
    folder: Path | None, messages: list[dict[str, Any]], *, answer: bool = True, **given: Any
) -> str:
    """The prompt of a conversation; answer: up to where the next answer begins. given: for the template.

    Raises FileError.
    """
    if folder is None:
        raise FileError("chat: the model has no folder, and so no chat template. Leave out --chat.")
    try:
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise FileError(
            f"chat: {folder}: needs jinja2. pip install 'lpu-emulator[chat]', or leave out --chat."
        ) from None
    path, text, tokens = _template(folder)
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = _to_json
    known = tokens | given | {"raise_exception": _refuse, "messages": messages}
    try:
        return made.from_string(text).render(known, add_generation_prompt=answer)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        reason = str(error).split("\n")[0]
        raise FileError(f"chat: {path}: the template cannot be used: {reason}. Leave out --chat.") from error


def _template(folder: Path) -> tuple[Path, str, dict[str, Any]]:
    """(its file, the template, the special tokens that it may name)."""
    config = folder / _CONFIG
    try:
        held = read_object(config) if config.is_file() else {}
    except WeightError as error:
        raise FileError(f"chat: {error}") from error
    tokens = {name: _content(value) for name, value in held.items() if name.endswith("_token")}
    known: dict[str, Any] = {name: value for name, value in tokens.items() if isinstance(value, str)}
    path = folder / FILE
    if path.is_file():
        try:
            return path, path.read_text(encoding="utf-8"), known
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"chat: {path}: cannot be read: {error}") from error
    found: Any = held.get(_KEY)
    if isinstance(found, list):
        named: dict[Any, Any] = {
            one.get("name"): one.get("template") for one in found if isinstance(one, dict)
        }
        found = named.get(_DEFAULT)
    if not isinstance(found, str):
        raise FileError(
            f"chat: {folder}: has no chat template ({FILE}, or {_KEY} in {_CONFIG}). Leave out --chat."
        )
    return config, found, known


def _content(value: Any) -> Any:
    return value.get("content") if isinstance(value, dict) else value


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)
