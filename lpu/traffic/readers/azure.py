"""Azure LLM inference traces: TIMESTAMP, ContextTokens, GeneratedTokens. Source: facts/serving.md 5.4."""

import re
from datetime import UTC, datetime

from lpu.traffic.readers.lines import NS_DIGITS, Ascending, At, table_of, tokens_in
from lpu.traffic.trace import Trace, TraceLines

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,12}))?(Z|[+-]\d\d:?\d\d)?")


def is_azure(first: str) -> bool:
    """Whether the first line of a file is that of such a trace."""
    return "TIMESTAMP" in first.split(",")[0] or {"ContextTokens", "GeneratedTokens"} <= set(first.split(","))


def read_azure(at: At) -> Trace:
    """The requests of the file. Raises FileError."""
    made, ascending = TraceLines(at.path.name), Ascending(at)
    for time, prompt, new in table_of(at, COLUMNS):
        made.add(
            ascending(_nanoseconds(at, time), time),
            tokens_in(at, "ContextTokens", prompt, 1),
            tokens_in(at, "GeneratedTokens", new, 0),
        )
    return made.trace()


def _nanoseconds(at: At, text: str) -> int:
    found = _TIME.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        whole, part, zone = found.groups()
        moment = datetime.fromisoformat(whole + (zone or "+00:00").replace("Z", "+00:00"))
    except ValueError:
        at.refuse(f"TIMESTAMP is {text[:40]!r}, needs a time such as 2023-11-16 18:15:46.6805900")
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _SECOND
    return seconds * 10**NS_DIGITS + int((part or "")[:NS_DIGITS].ljust(NS_DIGITS, "0"))


_SECOND = datetime(1970, 1, 1, 0, 0, 1) - datetime(1970, 1, 1)
