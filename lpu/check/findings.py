"""What the checker finds: violations with their place, the report, the error that a broken program raises."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from compiler.program.instruction_set import name_of
from compiler.program.isa import TAG_SHIFT, Columns

RULES = (
    "form: every row names a known opcode, kernel, chip and a possible time",
    "units: no two rows hold one unit or one lane at the same cycle",
    "values: every read finds the value it needs, committed and not yet overwritten",
    "commits: one commit per word and cycle, and never more words than ports",
    "transfers: over links that exist, no faster than the wire, forwarded after a store",
    "regions: disjoint, inside the chip, and every operand inside its own",
    "cycles: every instruction takes the cycles that the chip needs",
    "tags: the producer of every value is the one that was meant",
)
KEPT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One broken promise: the rule, the row (-1: the manifest or the preloaded values) and both numbers."""

    rule: int
    row: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a check found: rows looked at, violating rows per rule, the earliest few violations.

    bound: of which steps it holds, where not of all.
    """

    rows: int
    counts: tuple[int, ...]
    violations: tuple[Violation, ...]
    bound: str = ""

    @property
    def total(self) -> int:
        """Violations of all rules together."""
        return sum(self.counts)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return self.total == 0

    def __str__(self) -> str:
        if self.ok:
            steps = f", for steps {self.bound}" if self.bound else ""
            return f"check: {self.rows} rows, all {len(RULES)} rules hold{steps}"
        lines = [f"check: {self.rows} rows, {self.total} violations"]
        lines += [
            f"  rule {rule} {RULES[rule].split(':')[0]:<9} {count:>9}"
            for rule, count in enumerate(self.counts)
            if count
        ]
        lines += [f"  {violation.message}" for violation in self.violations]
        if self.total > len(self.violations):
            lines.append(f"  ... and {self.total - len(self.violations)} more")
        return "\n".join(lines)


class HazardError(Exception):
    """The program breaks its own promise; `report` says where."""

    exit_code = 4

    def __init__(self, report: Report) -> None:
        more = f" (and {report.total - 1} more)" if report.total > 1 else ""
        super().__init__(f"check: {report.violations[0].message}{more}")
        self.report = report


@dataclass(slots=True)
class Findings:
    """Violations as the rules report them: all are counted, the earliest few are put in words."""

    columns: Columns
    counts: list[int] = field(default_factory=lambda: [0] * len(RULES))
    kept: list[tuple[int, Violation]] = field(default_factory=list[tuple[int, Violation]])
    seen: dict[int, Bool[np.ndarray, " rows"]] = field(default_factory=dict[int, np.ndarray])

    def add(self, rule: int, rows: Int[np.ndarray, " found"], text: str | Callable[[int], str]) -> None:
        """Count the violating `rows`, each once a rule.

        text: what is wrong with all of them, or `text(i)` with `rows[i]`.
        """
        if len(rows) == 0:
            return
        seen = self.seen.setdefault(rule, np.zeros(len(self.columns), bool))
        unique, first = np.unique(rows, return_index=True)
        unique, first = unique[~seen[unique]], first[~seen[unique]]
        seen[unique] = True
        self.counts[rule] += len(unique)
        earliest = np.argsort(self.columns.t0[unique], kind="stable")[:KEPT]
        for row, i in zip(unique[earliest].tolist(), first[earliest].tolist(), strict=True):
            with np.errstate(over="ignore"):  # numbers out of any range still have to be named
                what = text if isinstance(text, str) else text(i)
                self._keep(rule, row, int(self.columns.t0[row]), f"{self.place(row)}: {what}")

    def note(self, rule: int, which: Int[np.ndarray, "found *axes"], text: Callable[[Any], str]) -> None:
        """Count violations that no row is to blame for; `text(w)` says what is wrong with one of them."""
        self.counts[rule] += len(which)
        for entry in which[:KEPT]:
            with np.errstate(over="ignore"):
                self._keep(rule, -1, -1, text(entry))

    def tell(self, rule: int, what: str) -> None:
        """Count one violation that no row is to blame for."""
        self.counts[rule] += 1
        self._keep(rule, -1, -1, what)

    def place(self, row: Any) -> str:
        """Row, opcode, chip and cycle in words."""
        c = self.columns
        return f"row {row} {name_of(int(c.op[row]))} chip {c.chip[row]} cycle {c.t0[row]}"

    def report(self) -> Report:
        """All of it, the earliest cycles first."""
        kept = sorted(self.kept, key=lambda pair: (pair[0], pair[1].rule, pair[1].row))[:KEPT]
        return Report(rows=len(self.columns), counts=tuple(self.counts), violations=tuple(v for _, v in kept))

    def _keep(self, rule: int, row: int, cycle: int, text: str) -> None:
        self.kept.append((cycle, Violation(rule=rule, row=row, message=f"rule {rule}: {text}")))


def tag(value: Any) -> str:
    """A tag as people read it: value and line."""
    return "none" if value < 0 else f"{value >> TAG_SHIFT}.{value & ((1 << TAG_SHIFT) - 1)}"
