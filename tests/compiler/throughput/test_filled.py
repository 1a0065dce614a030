"""Without a slack the users fill the pipeline: no slack gives more tokens per second and faster users."""

from dataclasses import replace

import pytest
from steps import llama

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.manifest import Waves
from compiler.program.program import Program
from compiler.throughput import filled
from fabric.rack import load_rack

FILLED = CompileOptions(tp=2, objective="throughput", users=3)


def compiled(options: CompileOptions, context: int = 160) -> Program:
    return compile_program(llama(context=context), load_rack("ring-8"), options)


def rates(program: Program) -> tuple[float, float]:
    """Tokens per cycle of all users, and of each."""
    waves, context = program.manifest.waves, max(program.manifest.contexts)
    assert isinstance(waves, Waves)
    each = 1 / (waves.contexts[context].turn * waves.contexts[context].interval)
    return waves.users * each, each


@pytest.fixture(scope="module")
def program() -> Program:
    return compiled(FILLED)


def test_the_interval_is_the_step_over_the_users(program: Program) -> None:
    waves, cycles = program.manifest.waves, program.manifest.cycles[160]
    assert waves is not None
    entry = waves.contexts[160]
    assert waves.users == entry.turn == 3
    assert cycles <= 3 * entry.interval <= 1.02 * cycles


@pytest.mark.parametrize("slack", [1.0, 1.5, 3.0, 5.0, 8.0, 16.0])
def test_no_slack_is_better_in_both(program: Program, slack: float) -> None:
    all_users, each = rates(program)
    others, other = rates(compiled(replace(FILLED, interval_slack=slack)))
    assert (others, other) <= (all_users, each) or others < all_users or other < each
    assert others <= 1.01 * all_users


def test_users_beyond_what_a_step_holds_leave_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    many = compiled(replace(FILLED, users=60)).manifest.waves
    assert many is not None
    assert many.contexts[160].interval <= 2.5 * many.contexts[160].bound
    monkeypatch.setattr(filled, "ROUNDS", 1)  # the long interval alone
    alone = compiled(replace(FILLED, users=60)).manifest.waves
    assert alone is not None
    assert alone.contexts[160].interval >= 8 * alone.contexts[160].bound
