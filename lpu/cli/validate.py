"""The verb that holds the models against published figures: validate."""

from typing import TYPE_CHECKING, Annotated

import typer

from compiler.errors import OptionError
from compiler.options import Option
from lpu.cli.terminal import TERMINAL

if TYPE_CHECKING:
    from lpu.validate.cases.point import PublishedPoint

VERDICTS = {True: "pass", False: "FAIL", None: "-"}


def validate(
    case: Annotated[
        int | None, Option("--case", "This case only, by its number.", metavar="N", shown="all")
    ] = None,
    gpu: Annotated[bool, Option("--gpu", "The GPU model against measured operators; docs/gpu.md.")] = False,
    afd: Annotated[
        bool,
        Option("--afd", "The schedule of divided models against published ones; docs/afd-timing.md."),
    ] = False,
) -> None:
    """Hold the models against published figures, of GroqChip1 by default (exit 1 beyond a tolerance).

    Examples:
      lpu validate
      lpu validate --case 3
      lpu validate --gpu
    """
    from lpu import api

    terminal = TERMINAL.get()
    if gpu and afd:
        raise OptionError("options", "--gpu and --afd", "are two suites", "Give one at a time.")
    found = api.validate(case, suite="gpu" if gpu else "afd" if afd else "lpu")
    headers = ("case", "point", "role", found.figure, "modelled", "unit", "error", "tolerance", "verdict")
    terminal.table(headers, [_line(point) for point in found.points])
    terminal.say("")
    facts = [(f"case {one.number}", f"{one.title}: {one.remark}") for one in found.cases]
    facts += [("fitted", str(one)) for one in found.fitted]
    facts += [(name, ", ".join(names)) for name, names in found.inputs.items() if names]
    terminal.facts([*facts, ("verdict", found.verdict)])
    terminal.result({"schema": "lpu-validate/2"} | found.to_json())
    if not found.passed:
        raise typer.Exit(1)


def _line(point: "PublishedPoint") -> list[str]:
    return [
        str(point.case),
        point.name,
        point.kind,
        _limit(point) + _number(point.published),
        _number(point.modelled),
        point.unit,
        "-" if point.kind == "gate" else f"{point.error_percent + 0.0:+.2f} %",
        _tolerance(point),
        VERDICTS[point.passed],
    ]


def _limit(point: "PublishedPoint") -> str:
    return ">= " if point.at_least else "<= " if point.kind == "gate" else ""


def _tolerance(point: "PublishedPoint") -> str:
    if point.tolerance_percent is None or _limit(point):
        return "-"
    return "exact" if point.tolerance_percent < 1e-6 else f"{point.tolerance_percent:g} %"


def _number(value: int | float) -> str:
    """Up to three decimals."""
    text = f"{value:,.3f}"
    return text.rstrip("0").rstrip(".")


VERBS = (validate,)
