"""Parametrised tests of which some cases are quick enough for `make test`, and all run in `make test-all`."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(quick: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """The cases for `parametrize`, those that are not in `quick` marked slow."""
    keep = list(quick)
    return [case if case in keep else slow(*_values(case)) for case in cases]


def slow(*values: Any) -> Any:
    """One case, marked slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


def _values(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)
