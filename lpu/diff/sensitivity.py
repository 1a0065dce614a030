"""A step with each number of its machine ten percent off: compiled again, which is exact, or modelled."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from compiler.errors import CompileError
from compiler.program.program import Program
from fabric.faults.broken import break_rack
from fabric.rack import Rack, build_rack
from lpu.compiled import ProgramLike, programs_of
from lpu.diff.again import CannotRepeatError, Recipe, recipe_of
from lpu.diff.moved import KEPT, Change, MovedNumber, modelled, moved, numbers_of, ordered, said
from lpu.figures.bars import Swing, tornado_figure
from lpu.figures.drawing import Drawing
from lpu.figures.shown import Shown
from lpu.folder import Progress, quiet
from lpu.inputs.document import FileError
from lpu.report.walk import BlockChain, block_chains
from lpu.report.words import EXACT
from lpu.screen import plain

FEW_ROWS = 3_000  # of a step: programs that are compiled again without being asked for
LINK = ("a", "b", "lanes", "hop_ns")  # of a link that a rack states alone
HEADERS = ("number", "is", "known as", "how", "10 % smaller", "10 % larger", "source")

Links = tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sensitivity(Shown):
    """What a step takes with each number of the machine moved, the one that changes most first.

    how: how that was found, in words.
    """

    context: int
    cycles: int
    digest: str
    how: str
    numbers: tuple[MovedNumber, ...]

    def __str__(self) -> str:
        lines = [f"sensitivity {self.cycles:,} cycles at context {self.context}; {plain(self.how, 160)}"]
        lines += [
            f"  {plain(one.number)} ({one.kind}, {one.how}) {one.value} -> {one.smaller}; -> {one.larger}"
            for one in self.numbers
        ]
        return "\n".join(lines)

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The cells of a table under HEADERS."""
        return tuple(
            (one.number, one.value, one.kind, one.how, str(one.smaller), str(one.larger), one.source)
            for one in self.numbers
        )

    def drawing(self) -> Drawing:
        """A bar for each number and way."""
        swings = [
            Swing(
                f"{one.number} ({one.kind}, {one.how})",
                *((change.share, str(change)) for change in (one.smaller, one.larger)),
            )
            for one in self.numbers
        ]
        return tornado_figure(swings, self.how, HEADERS, self.rows())

    def records(self) -> list[dict[str, Any]]:
        """A line for each number and way."""
        return [
            {
                "number": one.number,
                "value": one.value,
                "known_as": one.kind,
                "how": one.how,
                "moved_to": change.value,
                "share_of_step": change.share,
                "cycles": change.cycles,
                "remark": change.remark,
                "source": one.source,
            }
            for one in self.numbers
            for change in (one.smaller, one.larger)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; shares are of the time of a step."""
        return {
            "schema": "lpu-sensitivity/1",
            "program_sha256": self.digest,
            "context": self.context,
            "cycles": self.cycles,
            "how": self.how,
            "numbers": self.records(),
        }


def sensitivity(
    program: ProgramLike,
    *,
    context: int | None = None,
    again: bool | None = None,
    progress: Progress = quiet,
) -> Sensitivity:
    """What a step takes if a number of its machine is 10 % smaller or larger, one number at a time.

    again: compile the program again for each, which is exact; else it is modelled by the critical path. None:
    again for programs of up to FEW_ROWS rows that decode. Where it cannot be compiled again, `how` says why.
    Raises FileError for a context that the program has not.
    """
    loaded, _ = programs_of(program)
    bucket = loaded.manifest.longest if context is None else context
    if bucket not in loaded.manifest.contexts:
        known = ", ".join(map(str, loaded.manifest.contexts))
        raise FileError(f"sensitivity: context {bucket}: the program has {known}.")
    return of(loaded, block_chains(loaded, bucket), bucket, again, progress)


def of(
    program: Program, chains: tuple[BlockChain, ...], context: int, again: bool | None, progress: Progress
) -> Sensitivity:
    """The same of a step whose chains are known."""
    manifest = program.manifest
    rows = sum(len(program.blocks[call.block].columns[context]) for call in program.calls)
    wanted = rows <= FEW_ROWS if again is None else again
    if wanted:
        try:
            found = ordered(tuple(_again(program, context, progress)))
            how = f"{EXACT}: compiled again for each number, the others kept"
        except CannotRepeatError as error:
            found = modelled(program, chains, context)
            how = f"modelled, the critical path kept; not compiled again: {error}"
    else:
        found = modelled(program, chains, context)
        how = "modelled: the critical path is kept, the schedule is not made again (--again does)"
    return Sensitivity(
        context=context, cycles=manifest.cycles[context], digest=manifest.digest, how=how, numbers=found
    )


def _again(program: Program, context: int, progress: Progress) -> Iterator[MovedNumber]:
    """Every number moved, and the program compiled again for each. Raises CannotRepeatError."""
    manifest = program.manifest
    recipe = recipe_of(manifest, manifest, (), (context, context)).traced()
    same = _cycles(recipe, recipe.rack, context)
    if same != manifest.cycles[context]:
        raise CannotRepeatError(
            f"compiled again it takes {same} cycles, not {manifest.cycles[context]:,}: from another version"
        )
    known = numbers_of(program)
    values = {number: value for number, value in _stated(recipe.rack).items() if number in known}
    for i, (number, value) in enumerate(values.items()):
        progress("sensitivity", i, len(values))
        smaller, larger = (
            _change(recipe, program, context, (number, moved(value, sign))) for sign in (-1, 1)
        )
        _, kind, source = known[number]
        yield MovedNumber(
            number=number,
            value=said(value),
            kind=kind,
            source=source,
            how="exact",
            smaller=smaller,
            larger=larger,
        )


def _change(recipe: Recipe, program: Program, context: int, to: tuple[str, float]) -> Change:
    """What a step takes of the time that it took, with a number moved `to` a value."""
    number, value = to
    manifest, text = program.manifest, said(value)
    try:
        machine = with_number(recipe.rack, number, value)
        cycles = _cycles(recipe, machine, context)
    except (CompileError, ValueError) as error:
        return Change(value=text, share=None, remark=" ".join(str(error).split()))
    before = manifest.cycles[context] / manifest.clock_hz
    return Change(value=text, share=cycles / machine.chip.clock_hz / before - 1, cycles=cycles)


def _cycles(recipe: Recipe, rack: Rack, context: int) -> int:
    try:
        return recipe.program(rack).manifest.cycles[context]
    except CompileError as error:
        raise CannotRepeatError(" ".join(str(error).split())) from None


def _stated(rack: Rack) -> dict[str, int | float]:
    """The numbers of a rack and its chip by name, as they are stated."""
    found = {name: value for name, value in rack.chip.numbers().items() if name not in KEPT}
    found["forward_ns"] = rack.spec.forward_ns
    for level in rack.spec.levels:
        found |= {f"{level.name}.lanes": level.lanes, f"{level.name}.hop_ns": level.hop_ns}
        if level.slot_cycles is not None:
            found[f"{level.name}.slot_cycles"] = level.slot_cycles
    if rack.spec.links:
        found |= {"links.lanes": rack.spec.links[0][2], "links.hop_ns": rack.spec.links[0][3]}
    return found


def with_number(rack: Rack, number: str, value: float) -> Rack:
    """The rack with one number of `_stated` changed and all others kept; ValueError if it cannot be so.

    The number keeps its source: marked as stated by somebody, the compiler would leave units idle where that
    is shorter (`compiler/choose/planes.py`), and the result would not be that number's alone.
    """
    spec, chip = rack.spec, rack.chip
    level, _, what = number.rpartition(".")
    change: Any = {what: value}
    if level == "links":
        spec = replace(spec, links=_links(spec.links, LINK.index(what), value))
    elif level:
        levels = tuple(replace(one, **change) if one.name == level else one for one in spec.levels)
        spec = replace(spec, levels=levels)
    elif number == "forward_ns":
        spec = replace(spec, **change)
    else:
        chip = replace(chip, **change)
    made = build_rack(spec, chip)
    return made if rack.damage is None else break_rack(made, rack.damage.faults)


def _links(links: Links, column: int, value: float) -> Links:
    """Links whose number in a column is the first one's new value; the others change by the same factor."""
    factor = value / links[0][column]
    changed = [[*link[:column], max(round(link[column] * factor), 1), *link[column + 1 :]] for link in links]
    return tuple((a, b, lanes, hop) for a, b, lanes, hop in changed)
