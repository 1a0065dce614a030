"""Results as Python shows them: a screen of text at most, and the same in a notebook."""

from html import escape

LINES, COLUMNS = 40, 120


class OnScreen:
    """A record that `repr` and notebooks show by its `str`, cut to a screen."""

    __slots__ = ()

    def __str__(self) -> str:
        """What a person wants to know of it, in lines."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return on_screen(str(self))

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


def on_screen(text: str) -> str:
    """The text, its lines cut at COLUMNS characters and after LINES lines."""
    lines = [line if len(line) <= COLUMNS else f"{line[: COLUMNS - 3]}..." for line in text.splitlines()]
    if len(lines) <= LINES:
        return "\n".join(lines)
    return "\n".join([*lines[: LINES - 1], f"... and {len(lines) - LINES + 1} more lines"])


def fact_lines(rows: list[tuple[str, str]]) -> str:
    """Names and values, one to a line, as the command line prints them."""
    return "\n".join(f"{name:<12}{value}" for name, value in rows)
