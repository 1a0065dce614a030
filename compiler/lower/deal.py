"""How the context of a KV head is dealt: into stripes, and these over chips."""

from typing import NamedTuple


class Deal(NamedTuple):
    """A context dealt in `stripes` over `chips`: all but the head's owner keep `lent`, the owner the rest.

    Stripes are dealt `run` blocks at a time, those of the owner first.
    """

    chips: int = 1
    stripes: int = 1
    lent: int = 1
    run: int = 1

    @property
    def slots(self) -> tuple[int, ...]:
        """Which of the chips keeps each stripe, the owner 0."""
        others = (chip for chip in range(1, self.chips) for _ in range(self.lent))
        return (0,) * self.kept + tuple(others)

    @property
    def kept(self) -> int:
        """Stripes that the owner keeps."""
        return self.stripes - (self.chips - 1) * self.lent


WHOLE = Deal()


def evenly(chips: int, run: int) -> Deal:
    """A stripe for each chip."""
    return Deal(chips, chips, run=run)
