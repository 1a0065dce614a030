"""What rules know besides the row: terms, lane maps, and the numbers of the program."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from compiler.program.isa import Kernel
from compiler.program.manifest import Manifest
from lpu.prove.lanes import LaneMaps
from lpu.prove.models.record import Piece
from lpu.prove.refused import RefusedError, need
from lpu.prove.terms import Terms


@dataclass(slots=True)
class Known:
    """One proof's tables. context: of the bucket that is looked at; names: of slots and inputs, for messages.

    message, wires: of the hop that is looked at, what it is sent and the formats of that and of its answer.
    pieces: of tensors and slots, as in `ModelTerms`.
    things: records of `lpu.prove.lines`, and tuples of them, by number.
    """

    manifest: Manifest
    terms: Terms = field(default_factory=Terms)
    lanes: LaneMaps = field(default_factory=LaneMaps)
    context: int = 0
    message: int = -1
    wires: tuple[str, str] = ("", "")
    names: dict[int, str] = field(default_factory=dict[int, str])
    pieces: dict[int, list[Piece]] = field(default_factory=dict[int, list[Piece]])
    things: list[Any] = field(default_factory=list[Any])
    _number: dict[Hashable, int] = field(default_factory=dict[Hashable, int])

    def number(self, thing: Hashable) -> int:
        """The number of a record; equal records have one."""
        found = self._number.setdefault(thing, len(self.things))
        if found == len(self.things):
            self.things.append(thing)
        return found

    def kernel(self, index: int) -> Kernel:
        """A kernel of the manifest."""
        return self.manifest.kernels[index]

    def show(self, term: int) -> str:
        """A term in words."""
        return self.terms.show(term, self.names)

    def same(self, values: list[int] | tuple[int, ...], what: str) -> int:
        """The one value that all of these are."""
        need(len(values) > 0, f"{what} has no lines")
        for other in values:
            if other != values[0]:
                raise RefusedError(f"{what} is of {self.show(values[0])} and of {self.show(other)}")
        return values[0]
