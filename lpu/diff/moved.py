"""What a step takes if a number of its machine is ten percent off: by the critical path, which is kept.

That is modelled: the program is not made again. `sensitivity.py` makes it again, which is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from compiler.program.program import Program
from fabric.chip import ChipSpec
from lpu.report.walk import BlockChain
from lpu.report.words import kind_of

STEP = 0.10  # by how much a number is moved
How = Literal["exact", "modelled", "not known"]

# Which part of a chain is proportional to which number of the chip or of a level, and which way.
# Source: docs/timing.md: hold and t1 - t0 of each row.
LEVERS: dict[str, tuple[str, int]] = {
    "hop_ns": ("link hops", 1),
    "slot_cycles": ("link slots", 1),
    "lanes": ("link slots", -1),
    "mxm_fill_cycles": ("MXM fill", 1),
    "weight_install_frac": ("MXM", -1),
    "sram_bytes_per_cycle": ("MXM", -1),
}
VXM = ("vxm_latency_cycles", "lane_reduce_cycles")  # every result of a chain waits for the one, some for both
KEPT = ("sram_bytes", "lanes")  # of a chip: how much fits on it and how it may be wired, not how fast it is
OF_LEVELS = ("lanes", "hop_ns", "slot_cycles")
NO_LEVER = "the critical path says nothing of it: --again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A number moved. value: it. share: of the time of a step that it takes more, None if nobody knows.

    cycles: of the step that was compiled with it. remark: why nothing is known.
    """

    value: str
    share: float | None
    cycles: int | None = None
    remark: str = ""

    def __str__(self) -> str:
        if self.share is None:
            return f"{self.value}: {self.remark}"
        cycles = "" if self.cycles is None else f", {self.cycles:,} cycles"
        return f"{self.value}: {100 * self.share:+.2f} %{cycles}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedNumber:
    """A number of the machine, ten percent smaller and larger. kind, source: how it is known.

    how: exact (compiled again), modelled (the critical path is kept) or not known.
    """

    number: str
    value: str
    kind: str
    source: str
    how: How
    smaller: Change
    larger: Change

    @property
    def most(self) -> float:
        """The larger of both changes, whichever way."""
        return max(abs(one.share or 0.0) for one in (self.smaller, self.larger))


def numbers_of(program: Program) -> dict[str, tuple[float, str, str]]:
    """Numbers that a step may depend on, as the manifest has them: value, kind, source.

    Those of a level are named by it, as `tray.hop_ns`; the manifest has them as cycles of each link, so that
    their value is not a number (nan) here.
    """
    manifest = program.manifest
    mine = {name: value for name, value in manifest.chip.numbers().items() if name not in KEPT}
    found: dict[str, tuple[float, str, str]] = {}
    for one in manifest.sources:
        level, _, what = one.field.rpartition(".")
        if one.field in mine or one.field == "forward_ns" or (level and what in OF_LEVELS):
            found[one.field] = mine.get(one.field, float("nan")), kind_of(one), one.source
        elif one.field == "links":
            found |= {f"links.{what}": (float("nan"), kind_of(one), one.source) for what in OF_LEVELS[:2]}
    return found


def modelled(program: Program, chains: Sequence[BlockChain], context: int) -> tuple[MovedNumber, ...]:
    """Every number moved along the chains of a step, which are kept; the one that changes most first."""
    manifest = program.manifest
    cycles = manifest.cycles[context]
    names = [level.name for level in manifest.levels]
    found: list[MovedNumber] = []
    for number, (value, kind, source) in numbers_of(program).items():
        level, _, what = number.rpartition(".")
        part, way = None, 1
        if what in LEVERS:
            name, way = LEVERS[what]
            part = _part(chains, name, level if level in names else "")
        elif number == "clock_hz":  # hops keep their nanoseconds
            part, way = cycles - _part(chains, "link hops", ""), -1
        if number in VXM:
            plain = manifest.chip.vxm_latency_cycles * _rows(chains, "VXM latency")
            part = plain if number == "vxm_latency_cycles" else _part(chains, "VXM latency", "") - plain
        share = None if part is None or not value else part / max(cycles, 1)
        smaller, larger = (_change(manifest.chip, number, value, sign, share, way) for sign in (-1, 1))
        found.append(
            MovedNumber(
                number=number,
                value=said(value) or "as stated",
                kind=kind,
                source=source,
                how="not known" if share is None else "modelled",
                smaller=smaller,
                larger=larger,
            )
        )
    return ordered(found)


def ordered(found: Sequence[MovedNumber]) -> tuple[MovedNumber, ...]:
    """Those that change most first; of equal ones in the order of their names."""
    return tuple(sorted(found, key=lambda one: (-one.most, one.number)))


def moved(value: float, sign: int) -> float:
    """A number ten percent smaller or larger; a whole number by one at least."""
    if isinstance(value, int):
        return value + sign * max(round(STEP * value), 1)
    return round(value * (1 + sign * STEP), 6)


def _part(chains: Sequence[BlockChain], name: str, level: str) -> int:
    return sum(
        block.calls * part.cycles
        for block in chains
        for part in block.parts
        if part.part == name and level in ("", part.level)
    )


def _rows(chains: Sequence[BlockChain], name: str) -> int:
    return sum(block.calls * part.rows for block in chains for part in block.parts if part.part == name)


def _change(chip: ChipSpec, number: str, value: float, sign: int, share: float | None, way: int) -> Change:
    """share: of the step that is proportional to the number (way 1), or to one by it (-1)."""
    new = moved(value, sign)
    text = said(new) or f"{100 * sign * STEP:+g} %"
    if number in chip.numbers():
        try:
            replace(chip, **{number: new})  # pyright: ignore[reportArgumentType]
        except ValueError as error:
            return Change(value=text, share=None, remark=str(error))
    if share is None:
        return Change(value=text, share=None, remark=NO_LEVER)
    factor = new / value if value == value else 1 + sign * STEP
    return Change(value=text, share=share * ((factor if way > 0 else 1 / factor) - 1))


def said(value: float) -> str:
    """A number as a table has it; nothing for one that is none."""
    return "" if value != value else f"{value:.6g}" if isinstance(value, float) else f"{value:,}"
