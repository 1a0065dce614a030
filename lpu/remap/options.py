"""What can be chosen of a remap. Nothing heavy is imported here: the command line reads it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from compiler.options import Option
from lpu.inputs.document import FileError

LADDER = ("users", "context", "tp")
Way = Literal["stay", "chips", "groups", "anew"]
WAYS: dict[Way, str] = {
    "stay": "every block stays where it is, messages go round",
    "chips": "a spare chip takes the place of each lost one",
    "groups": "a spare group takes the place of each group that lost a chip",
    "anew": "placed anew on what is left",
}
PREFERENCES: dict[str, tuple[Way, ...]] = {
    "latency": ("stay", "groups", "chips", "anew"),
    "moves": ("stay", "chips", "groups", "anew"),
    "anew": ("anew",),
}
"""By what is preferred, the ways in the order in which they are tried; the first that can be is taken. Of
latency, where all can stay, the next one is tried too, and the shorter step is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemapOptions:
    """What is preferred, and what may be given up where the model no longer fits."""

    prefer: Annotated[
        str,
        Option(
            "--prefer",
            "latency: the shortest step of those that keep the groups; moves: the fewest bytes; anew: as if "
            "compiled for what is left.",
            choices=tuple(PREFERENCES),
        ),
    ] = "latency"
    degrade: Annotated[
        str,
        Option(
            "--degrade",
            "What may be given up where the model no longer fits, in this order, or none.",
            metavar="WHAT,WHAT",
        ),
    ] = ",".join(LADDER)

    def rungs(self) -> tuple[str, ...]:
        """What may be given up, in order. Raises FileError."""
        words = tuple(word.strip() for word in self.degrade.split(",") if word.strip())
        words = () if words == ("none",) else words
        if wrong := [word for word in words if word not in LADDER] or [
            w for w in words if words.count(w) > 1
        ]:
            known = ", ".join(LADDER)
            raise FileError(f"options: --degrade {self.degrade}: {wrong[0]!r} is to be one of {known}, once.")
        return words
