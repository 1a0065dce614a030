"""Lines of a trace file, each with its number, and the numbers in them; mistakes name file and line."""

import csv
import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from lpu.inputs.document import FileError

MOST_TOKENS = 1 << 31
MOST_LINE = 1 << 24  # characters
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0+)?")
_SECONDS = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,30}))?")
NS_DIGITS = 9
MOST_SPAN = 100 * 365 * 86400 * 10**NS_DIGITS  # nanoseconds


class At:
    """A place in a file: `path`, and the line that is read now."""

    def __init__(self, path: Path) -> None:
        self.path, self.line = path, 0

    def refuse(self, why: str) -> NoReturn:
        """Raise FileError at the line."""
        raise FileError(f"{self.path}:{self.line}: {why}")


def lines_of(at: At) -> Generator[str]:
    """The lines of a UTF-8 file without their ends; empty ones are passed over."""
    try:
        with at.path.open("rb") as file:
            for at.line, raw in enumerate(iter(lambda: file.readline(MOST_LINE + 1), b""), 1):
                if len(raw) > MOST_LINE:
                    at.refuse(f"is longer than {MOST_LINE:,} bytes, which no request needs")
                try:
                    text = raw.decode("utf-8-sig" if at.line == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    at.refuse(f"is not UTF-8 text ({error.reason} at byte {error.start} of the line)")
                if text.strip():
                    yield text.rstrip("\r\n")
    except OSError as error:
        raise FileError(f"{at.path}: {error.strerror}") from None


def table_of(at: At, columns: Sequence[str]) -> Iterator[list[str]]:
    """The cells under `columns` of each row of a CSV file, whose first line names the columns."""
    rows = lines_of(at)
    header = [name.strip() for name in _cells(at, next(rows, ""))]
    missing = [name for name in columns if name not in header]
    if missing:
        at.line = max(at.line, 1)
        at.refuse(f"no column {', '.join(missing)}; the first line has {', '.join(header) or 'nothing'}")
    twice = [name for name in columns if header.count(name) > 1]
    if twice:
        at.refuse(f"column {twice[0]} is there {header.count(twice[0])} times")
    places = [header.index(name) for name in columns]
    for text in rows:
        cells = _cells(at, text)
        if len(cells) != len(header):
            at.refuse(f"has {len(cells)} cells, the first line has {len(header)}")
        yield [cells[place].strip() for place in places]


def _cells(at: At, text: str) -> list[str]:
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        at.refuse(f"is no line of a table ({error})")


def tokens_in(at: At, name: str, text: str, least: int) -> int:
    """A count of tokens in a cell."""
    if not _WHOLE.fullmatch(text):
        at.refuse(f"{name} is {text[:40]!r}, needs a whole number of tokens")
    return checked_tokens(at, name, int(text.split(".")[0]), least)


def checked_tokens(at: At, name: str, count: int, least: int) -> int:
    """The count, if it may be one."""
    if not least <= count < MOST_TOKENS:
        at.refuse(f"{name} is {count}, must be {least} to {MOST_TOKENS - 1}")
    return count


def seconds_in(at: At, name: str, text: str) -> int:
    """Seconds in a cell, in whole nanoseconds."""
    found = _SECONDS.fullmatch(text)
    if found is None:
        at.refuse(f"{name} is {text[:40]!r}, needs seconds of at least 0")
    whole, part = found.groups()
    return int(whole + (part or "")[:NS_DIGITS].ljust(NS_DIGITS, "0"))


class Ascending:
    """Holds arrivals against the one before: a trace is sorted by time."""

    def __init__(self, at: At) -> None:
        self._at, self._text = at, ""
        self._first: int | None = None
        self._last = 0

    def __call__(self, moment: int, text: str) -> int:
        """The moment, if it is not before the last one; `text` is how the file writes it."""
        if self._first is None:
            self._first = moment
        elif moment < self._last:
            self._at.refuse(
                f"time {text} is before {self._text}, that of the request above it: sort the trace"
            )
        if moment - self._first > MOST_SPAN:
            self._at.refuse(f"time {text} is more than 100 years after the first: cut the trace")
        self._last, self._text = moment, text
        return moment
