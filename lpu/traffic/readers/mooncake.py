"""Mooncake traces: a JSON object per line, a hash id for every 512 tokens. Source: facts/serving.md 5.4."""

import json
from typing import Any

from lpu.traffic.readers.lines import NS_DIGITS, Ascending, At, checked_tokens, lines_of
from lpu.traffic.trace import Trace, TraceLines

BLOCK_TOKENS = 512
KEYS = ("timestamp", "input_length", "output_length", "hash_ids")
_NS_PER_MS = 10 ** (NS_DIGITS - 3)
_MOST_ID = 1 << 63


def read_mooncake(at: At) -> Trace:
    """The requests of the file. Raises FileError."""
    made, ascending = TraceLines(at.path.name), Ascending(at)
    for text in lines_of(at):
        line = _object(at, text)
        time, prompt, new, ids = (line[key] for key in KEYS)
        moment = ascending(_nanoseconds(at, time), str(time))
        prompt = checked_tokens(at, "input_length", _whole(at, "input_length", prompt), 1)
        new = checked_tokens(at, "output_length", _whole(at, "output_length", new), 0)
        made.add(moment, prompt, new, _ids(at, ids, prompt))
    return made.trace(BLOCK_TOKENS)


def _object(at: At, text: str) -> dict[str, Any]:
    try:
        found: Any = json.loads(
            text,
            object_pairs_hook=lambda pairs: _once(at, pairs),
            parse_constant=lambda name: at.refuse(f"holds {name}, which is no number"),
        )
    except (ValueError, RecursionError) as error:
        at.refuse(f"is no JSON ({str(error).splitlines()[0][:80]})")
    if not isinstance(found, dict):
        at.refuse(f"holds a {type(found).__name__}, needs an object with {', '.join(KEYS)}")
    missing = [key for key in KEYS if key not in found]
    if missing:
        at.refuse(f"has no {', '.join(missing)}")
    return found


def _once(at: At, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        at.refuse(f"has a key twice among {', '.join(key for key, _ in pairs)}")
    return made


def _whole(at: At, name: str, value: Any) -> int:
    if type(value) is not int:
        at.refuse(f"{name} is {str(value)[:40]!r}, needs a whole number")
    return value


def _nanoseconds(at: At, value: Any) -> int:
    if type(value) not in (int, float) or not 0 <= value < 10**15:
        at.refuse(f"timestamp is {str(value)[:40]!r}, needs milliseconds of at least 0")
    return round(value * _NS_PER_MS)


def _ids(at: At, ids: Any, prompt: int) -> list[int]:
    if not isinstance(ids, list) or any(type(one) is not int or not 0 <= one < _MOST_ID for one in ids):
        at.refuse(f"hash_ids are no list of whole numbers from 0 to {_MOST_ID - 1}")
    need = -(-prompt // BLOCK_TOKENS)
    if len(ids) != need:
        at.refuse(
            f"has {len(ids)} hash_ids, {prompt} tokens of input_length in blocks of {BLOCK_TOKENS} "
            f"need {need}"
        )
    return ids
