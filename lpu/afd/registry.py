"""All modes by name. To add one: a record like those of lpu/afd/modes/, and `register`."""

from lpu.afd.mode import Mode
from lpu.afd.modes.afd import Afd
from lpu.afd.modes.draft import Draft
from lpu.afd.modes.pd import Pd

MODES: dict[str, type[Mode]] = {mode.name: mode for mode in (Pd, Afd, Draft)}
"""In the order that help and messages name them."""


def register(mode: type[Mode]) -> type[Mode]:
    """Add a mode; a name that another one has is an error. Usable as a decorator."""
    if MODES.setdefault(mode.name, mode) is not mode:
        raise ValueError(f"mode {mode.name}: {MODES[mode.name].__qualname__} has this name already.")
    return mode
