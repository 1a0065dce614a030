"""Results as Python shows them: a screen of text at most, and the same in a notebook."""

import re
from html import escape

LINES, COLUMNS = 40, 120
NAME = 80  # characters of a name that stands in a sentence
# What steers a terminal, turns or hides text: controls, marks of direction, invisible characters.
STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


class OnScreen:
    """A record that `repr` and notebooks show by its `str`, cut to a screen."""

    __slots__ = ()

    def __str__(self) -> str:
        """What a person wants to know of it, in lines."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return on_screen(inert(str(self)))

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


def inert(text: str) -> str:
    """The text with every character that would steer a terminal or turn its direction written as its code."""
    return STEERING.sub(lambda one: one.group().encode("unicode_escape", "surrogatepass").decode(), text)


def plain(name: str, most: int = NAME) -> str:
    """A name as one word of a sentence: inert, on one line, of at most `most` characters."""
    words = " ".join(inert(name).split())
    return words if len(words) <= most else f"{words[: most - 3]}..."


def on_screen(text: str) -> str:
    """The text, its lines cut at COLUMNS characters and after LINES lines."""
    lines = [line if len(line) <= COLUMNS else f"{line[: COLUMNS - 3]}..." for line in text.splitlines()]
    if len(lines) <= LINES:
        return "\n".join(lines)
    return "\n".join([*lines[: LINES - 1], f"... and {len(lines) - LINES + 1} more lines"])


def fact_lines(rows: list[tuple[str, str]]) -> str:
    """Names and values, one to a line, as the command line prints them."""
    return "\n".join(f"{name:<12}{value}" for name, value in rows)
