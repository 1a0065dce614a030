"""Which rows of a program a person asks for. Nothing heavy is imported here: the command line reads it."""

from dataclasses import dataclass
from typing import Annotated

from compiler.options import Option


def cycle_range(text: str) -> tuple[int, int]:
    """The first and the last cycle of `A-B`."""
    first, dash, last = text.partition("-")
    if not (dash and all(word.isascii() and word.isdigit() for word in (first, last))):
        raise ValueError(f"{text!r} is no range of cycles. Give two numbers, as in 100-250")
    if int(first) > int(last):
        raise ValueError(f"{text!r} begins after it ends. Give {last}-{first}")
    return int(first), int(last)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowOptions:
    """Which rows of a program to show; None takes all. docs/programs.md says what each field can be."""

    chip: Annotated[int | None, Option("--chip", "Rows of this chip.", shown="all")] = None
    unit: Annotated[
        str | None,
        Option(
            "--unit",
            "Rows of units: plane, drain, chain, 'host in', 'host out', link, or one: 'plane 3'; "
            "'link 3' leads to chip 3.",
            shown="all",
        ),
    ] = None
    cycles: Annotated[
        tuple[int, int] | None,
        Option(
            "--cycles",
            "Rows that run from cycle A to cycle B.",
            metavar="A-B",
            parse=cycle_range,
            shown="all",
        ),
    ] = None
    op: Annotated[str | None, Option("--op", "Rows of one instruction, as MM.", shown="all")] = None
    call: Annotated[
        str | None,
        Option(
            "--call",
            "Rows of a layer (3), of one part of all layers (ffn), or of one call (layers.3.ffn).",
            metavar="LAYER",
            shown="all",
        ),
    ] = None
    context: Annotated[int | None, Option("--context", "Context bucket.", shown="the first")] = None
    limit: Annotated[int | None, Option("--limit", "Rows to show at most.", least=1, shown="200")] = None
