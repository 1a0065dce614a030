"""Rows of a program as text, those that a person asks for."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any, NoReturn

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import Kernel
from compiler.program.program import Program
from compiler.program.text import Line, Selection, count, kernel_text, lines, table, units_of
from lpu.inputs.document import FileError
from lpu.report.show_options import ShowOptions
from lpu.screen import OnScreen

MOST_LINES = 200  # rows that are shown if nobody says how many


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Listing(OnScreen):
    """Rows in words, by cycle, chip and unit. total: of those asked for. kernels: what the rows refer to."""

    context: int
    lines: tuple[Line, ...]
    total: int
    kernels: dict[int, Kernel]

    def __str__(self) -> str:
        if not self.lines:
            return "no rows"
        legend = [f"kernel {index}  {kernel_text(kernel)}" for index, kernel in self.kernels.items()]
        return "\n".join([table(self.lines), *legend])

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "context": self.context,
            "total": self.total,
            "rows": [line.to_json() for line in self.lines],
            "kernels": {str(index): kernel_text(kernel) for index, kernel in self.kernels.items()},
        }


def show(program: Program, options: ShowOptions | None = None) -> Listing:
    """Rows of a program in words, at most as many as the options' limit; see docs/programs.md.

    Raises FileError for a chip, unit, instruction, call, context or range of cycles that is not there.
    """
    asked, manifest = options or ShowOptions(), program.manifest
    context = manifest.contexts[0] if asked.context is None else asked.context
    if context not in manifest.contexts:
        _refuse("--context", context, f"the program has {', '.join(map(str, manifest.contexts))}")
    if asked.chip is not None and not 0 <= asked.chip < manifest.chips:
        _refuse("--chip", asked.chip, f"{manifest.rack} has {manifest.chips} chips, numbered from 0")
    last = manifest.cycles[context] - 1
    if asked.cycles is not None and asked.cycles[0] > last:
        _refuse("--cycles", f"{asked.cycles[0]}-{asked.cycles[1]}", f"the program has cycles 0 to {last}")
    limit = asked.limit or MOST_LINES
    chosen = Selection(
        chip=asked.chip,
        cycles=asked.cycles,
        units=None if asked.unit is None else _units(program, asked.unit),
        op=None if asked.op is None else _op(asked.op),
        calls=None if asked.call is None else _calls(program, asked.call),
    )
    found = tuple(islice(lines(program, context, chosen), limit))
    used = sorted({line.kernel for line in found if line.kernel is not None})
    return Listing(
        context=context,
        lines=found,
        total=count(program, context, chosen) if len(found) == limit else len(found),
        kernels={index: manifest.kernels[index] for index in used},
    )


def _op(name: str) -> int:
    numbers = {record.name.upper(): op for op, record in INSTRUCTIONS.items()}
    if name.upper() not in numbers:
        _refuse("--op", name, f"no instruction has this name.{_nearest(name.upper(), numbers)}")
    return numbers[name.upper()]


def _units(program: Program, name: str) -> range:
    """The numbers of the units that a class, or a class and an index, names."""
    known = units_of(program)
    if name in known:
        return known[name]
    kind, _, index = name.rpartition(" ")
    if kind not in known or not (index.isascii() and index.isdigit()):
        _refuse("--unit", name, f"the classes are {', '.join(known)}.{_nearest(kind or name, known)}")
    if int(index) >= len(known[kind]):
        _refuse("--unit", name, f"there are {len(known[kind])}, numbered from 0")
    return known[kind][int(index) :][:1]


def _calls(program: Program, name: str) -> tuple[int, ...]:
    """The calls in whose names the words of this one follow one another."""
    names = [call.name for call in program.calls]
    found = tuple(i for i, one in enumerate(names) if f".{name}." in f".{one}.")
    if not found:
        known = dict.fromkeys(names + [word for one in names for word in one.split(".")])
        _refuse(
            "--call", name, f"no call from {names[0]} to {names[-1]} has this name.{_nearest(name, known)}"
        )
    return found


def _nearest(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, list(names), n=1, cutoff=0.4)
    return f" Did you mean {near[0]}?" if near else ""


def _refuse(option: str, value: object, why: str) -> NoReturn:
    raise FileError(f"show: {option} {value}: {why.rstrip('.')}{'' if why.endswith('?') else '.'}")
