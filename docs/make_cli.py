"""Writes docs/cli.md from the verbs themselves: `make docs`."""

from collections.abc import Callable, Iterator
from dataclasses import MISSING
from pathlib import Path

from lpu.cli import app
from lpu.cli.verb import Field, examples, parts_of, summary

PAGE = Path(__file__).parent / "cli.md"
HEAD = """# The command line

Every verb with its options, made from the verbs by `make docs`; edit those, not this page. Each takes
`--json` (one object on stdout) and `--debug` (tracebacks of errors) too. `lpu VERB -h` prints the same.
"""


def page() -> str:
    """The page as text."""
    return "\n".join([HEAD, *(section(verb) for verb in app.VERBS)])


def section(verb: Callable[..., None]) -> str:
    """The part of the page on one verb."""
    name = verb.__name__.rstrip("_")
    lines = [f"## lpu {name}", "", summary(verb), "", "```sh", *examples(verb), "```", ""]
    rows = list(options(verb))
    table = ["| option | what | default |", "|---|---|---|", *rows, ""] if rows else []
    return "\n".join([*lines, *table])


def options(verb: Callable[..., None]) -> Iterator[str]:
    """The lines of the table of a verb's options."""
    seen: set[str] = set()
    for part in parts_of(verb).values():
        for field in part.fields:
            if field.option.hidden or field.option.flags in seen:
                continue
            seen.add(field.option.flags)
            flags = ", ".join(f"`{flag}`" for flag in field.option.flags.split())
            what = " ".join(field.option.help.split()).replace("|", "\\|")
            yield f"| {flags} | {what} | {default(field)} |"


def default(field: Field) -> str:
    """The default of an option in words."""
    if field.option.shown:
        return field.option.shown
    if field.default is MISSING:
        return "required"
    if field.default in (None, (), ""):
        return ""
    return str(field.default).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
