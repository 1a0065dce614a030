"""States of fixed size that go back: a copy from before a token is put in their place when it is taken again.

KV needs none of that: what lies behind the end is overwritten. A state has seen its tokens, so whoever takes
some of them back, as drafting does, keeps copies. They are the emulator's own: no program has them, so their
words are in no region and the cycles of copying are in no figure.
"""

from typing import Any

import jax
import numpy as np

from lpu.decode.decoders import restart
from lpu.decode.generate import BatchIds, BatchResult, Decode
from lpu.run.error import MachineError
from lpu.run.kv import KV
from lpu.run.machine import Machine

States = tuple[Any, ...]


def states_of(state: KV, sequence: int) -> States:
    """A copy of the states of one sequence."""
    return tuple(store[:, sequence] for store in state.states)


def with_states(state: KV, sequence: int, held: States) -> KV:
    """The state with those of one sequence put back."""
    stores = zip(state.states, held, strict=True)
    return state._replace(states=tuple(store.at[:, sequence].set(one) for store, one in stores))


def with_sequence(state: KV, other: KV, sequence: int) -> KV:
    """The state with all that one sequence keeps taken from another."""
    return jax.tree.map(lambda held, new: held.at[:, sequence].set(new[:, sequence]), state, other)


def rewinding(machine: Machine, depth: int) -> Decode:
    """The machine's decode step from an empty start; each row may go back up to `depth` positions, or to 0.

    Of a machine without states, that of `restart`: any row may go anywhere.
    """
    if not machine.stores.states:
        return restart(machine)
    state = machine.start()
    copies: list[dict[int, States]] = [{} for _ in range(machine.rows)]
    ahead = np.zeros(machine.rows, np.int64)

    def decode(tokens: BatchIds, at: BatchIds) -> BatchResult:
        nonlocal state
        for row, position in enumerate(np.asarray(at).tolist()):
            if position not in (0, ahead[row]):
                if position not in copies[row]:
                    raise MachineError(
                        f"run: sequence {row} goes from position {ahead[row]} to {position}, copies of "
                        f"its states go back {depth}."
                    )
                state = with_states(state, row, copies[row][position])
            if not position:
                copies[row].clear()  # another sequence
            copies[row][position] = states_of(state, row)
            for old in sorted(copies[row])[: -depth - 1]:
                del copies[row][old]
            ahead[row] = position + 1
        logits, chosen, state = machine.step(state, tokens, at)
        return np.asarray(logits), np.asarray(chosen)

    return decode
