"""What the verb `validate` asks for: one suite, all of them, or the reference tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpu.screen import OnScreen
from lpu.validate.reference.changes import parse_changes, read_changes
from lpu.validate.reference.reference import Reference
from lpu.validate.reference.reference import reference as recomputed
from lpu.validate.validate import SUITES, Validation
from lpu.validate.validate import validate as run_suite


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Everything(OnScreen):
    """Every suite and the reference tables."""

    suites: tuple[Validation, ...]
    reference: Reference

    @property
    def passed(self) -> bool:
        """Whether no figure of any of them is beyond its tolerance."""
        return self.reference.passed and all(one.passed for one in self.suites)

    @property
    def verdict(self) -> str:
        """The suites that are not within their tolerances."""
        off = [one.suite for one in self.suites if not one.passed]
        off += [] if self.reference.passed else ["reference"]
        points = sum(len(one.points) for one in self.suites)
        count = (
            f"{points} figures of {len(self.suites)} suites and {len(self.reference.results)} reference cases"
        )
        return f"{count}: BEYOND tolerance: {', '.join(off)}" if off else f"{count}: all within tolerance"

    def __str__(self) -> str:
        own = [f"{one.suite:<11} {one.verdict}" for one in self.suites]
        return "\n".join([*own, f"{'reference':<11} {self.reference.verdict}", self.verdict])

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "schema": "lpu-validate-all/1",
            "passed": self.passed,
            "verdict": self.verdict,
            "suites": [one.to_json() for one in self.suites],
            "reference": self.reference.to_json(),
        }


def validate(case: int | str | None = None, suite: str = "lpu") -> Validation:
    """Hold the models against published or measured figures: all cases of a suite, or one. Raises FileError.

    suite: a name of `lpu.validate.validate.SUITES`; docs/validation.md says what each holds.
    """
    return run_suite(case, suite=suite)


def validate_all() -> Everything:
    """Every suite, one after another."""
    return Everything(suites=tuple(run_suite(suite=suite) for suite in SUITES), reference=recomputed())


def reference(
    case: str | None = None, *, changed: Sequence[str] = (), inputs: str | Path | None = None
) -> Reference:
    """The tables of the reference documents, from first principles. Raises FileError.

    changed: inputs as `C-002-01.weights_gb=140` or `weights_gb=140`; inputs: a YAML file of them by case.
    """
    changes = read_changes(Path(inputs)) if inputs is not None else {}
    for key, some in parse_changes(changed).items():
        changes[key] = {**changes.get(key, {}), **some}
    return recomputed(case, changes)
