"""The verb that holds the models against published figures: validate."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compiler.errors import OptionError
from compiler.options import Option
from lpu.cli.terminal import TERMINAL

if TYPE_CHECKING:
    from lpu.validate.cases.point import PublishedPoint
    from lpu.validate.reference.reference import Reference
    from lpu.validate.validate import Validation

VERDICTS = {True: "pass", False: "FAIL", None: "-"}
REFERENCE = "reference"
FORMATS = ("text", "markdown", "html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """What the models are held against."""

    suite: Annotated[
        str | None,
        Option(
            "--suite",
            "lpu, gpu, steps, ttft, experts, served, afd or reference.",
            metavar="NAME",
            shown="lpu",
        ),
    ] = None
    all: Annotated[bool, Option("--all", "Every suite in one run.")] = False
    gpu: Annotated[bool, Option("--gpu", "--suite gpu: GPU operators that were measured.")] = False
    afd: Annotated[
        bool, Option("--afd", "--suite afd: the schedule of divided models; docs/afd-timing.md.")
    ] = False
    reference: Annotated[
        bool,
        Option("--reference", "--suite reference: tables that documents print, from first principles."),
    ] = False

    def chosen(self) -> str | None:
        """The suite's name, None for all of them. Raises OptionError where two are asked for."""
        named = [name for name in ("gpu", "afd", REFERENCE) if getattr(self, name)]
        named += [self.suite] if self.suite else []
        if len(named) + self.all > 1:
            flags = [*named, *(["--all"] if self.all else [])]
            raise OptionError("options", " and ".join(flags), "are two suites", "Give one at a time.")
        return None if self.all else (*named, "lpu")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceInputs:
    """Of the reference: inputs that are changed, and how it is written."""

    set: Annotated[
        tuple[str, ...],
        Option(
            "--set",
            "reference: change an input, C-002-01.batch=4, or batch=4 in every case that has it; repeatable.",
            metavar="KEY=N",
        ),
    ] = ()
    inputs: Annotated[
        str | None, Option("--inputs", "reference: a YAML file of inputs by case.", metavar="FILE")
    ] = None
    format: Annotated[str, Option("--format", "reference: how it is written.", choices=FORMATS)] = "text"
    output: Annotated[
        str | None, Option("-o --output", "reference: file to write instead of stdout.", metavar="FILE")
    ] = None


def validate(
    against: Against,
    inputs: ReferenceInputs,
    case: Annotated[
        str | None, Option("--case", "This case only: 4, or C-002-12.", metavar="CASE", shown="all")
    ] = None,
) -> None:
    """Hold the models against published figures, of GroqChip1 by default (exit 1 beyond a tolerance).

    Examples:
      lpu validate
      lpu validate --case 4
      lpu validate --suite served
      lpu validate --reference --case C-002-12
      lpu validate --all
    """
    from lpu import api

    terminal = TERMINAL.get()
    suite = against.chosen()
    if suite != REFERENCE and inputs != ReferenceInputs():
        flags = "--set, --inputs, --format and -o"
        raise OptionError("options", flags, "are of the reference", "Add --reference.")
    if suite is None:
        if case is not None:
            raise OptionError("options", "--case", "is of one suite", "Leave out --all, or name the suite.")
        every = api.validate_all()
        for one in every.suites:
            terminal.say(f"== {one.suite}")
            _show(one)
            terminal.say("")
        terminal.say("== reference")
        terminal.say(every.reference.verdict)
        terminal.facts([("verdict", every.verdict)])
        terminal.result(every.to_json())
        passed = every.passed
    elif suite == REFERENCE:
        found = api.reference(case, changed=inputs.set, inputs=inputs.inputs)
        _write(found, inputs)
        passed = found.passed
    else:
        one = api.validate(case, suite=suite)
        _show(one)
        terminal.result({"schema": "lpu-validate/2"} | one.to_json())
        passed = one.passed
    if not passed:
        raise typer.Exit(1)


def _show(found: "Validation") -> None:
    terminal = TERMINAL.get()
    headers = ("case", "point", "role", found.figure, "modelled", "unit", "error", "tolerance", "verdict")
    terminal.table(headers, [_line(point) for point in found.points])
    terminal.say("")
    facts = [(f"case {one.number}", f"{one.title}: {one.remark}") for one in found.cases]
    facts += [("fitted", str(one)) for one in found.fitted]
    facts += [(name, ", ".join(names)) for name, names in found.inputs.items() if names]
    terminal.facts([*facts, ("verdict", found.verdict)])


def _write(found: "Reference", how: ReferenceInputs) -> None:
    from lpu.outputs.write import check_writable, write_file
    from lpu.validate.reference import show

    terminal = TERMINAL.get()
    if how.format == "text" and how.output is None:
        terminal.table(show.HEADERS, show.rows(found))
        terminal.say("")
        terminal.facts([*((r.case.id, f"{r.case.title}: {r.case.says}") for r in found.results)])
        terminal.facts([("verdict", found.verdict)])
        terminal.result(found.to_json())
        return
    text = show.written(found, how.format)
    if how.output is None:
        terminal.say(text)
    else:
        check_writable(how.output, "-o")
        write_file(how.output, text.encode())
        terminal.facts([("written", how.output), ("verdict", found.verdict)])
    terminal.result(found.to_json())


def _line(point: "PublishedPoint") -> list[str]:
    return [
        str(point.case),
        point.name,
        point.kind,
        _limit(point) + _published(point),
        _number(point.modelled),
        point.unit,
        "-" if point.kind == "gate" else f"{point.error_percent + 0.0:+.2f} %",
        _tolerance(point),
        VERDICTS[point.passed],
    ]


def _published(point: "PublishedPoint") -> str:
    return _number(point.published)


def _limit(point: "PublishedPoint") -> str:
    return ">= " if point.at_least else "<= " if point.kind == "gate" else ""


def _tolerance(point: "PublishedPoint") -> str:
    if point.band is not None:
        return f"{_number(round(point.band[0]))} to {_number(round(point.band[1]))}"
    if point.tolerance_percent is None or _limit(point):
        return "-"
    return "exact" if point.tolerance_percent < 1e-6 else f"{point.tolerance_percent:g} %"


def _number(value: Any) -> str:
    """Up to three decimals."""
    text = f"{value:,.3f}"
    return text.rstrip("0").rstrip(".")


VERBS = (validate,)
