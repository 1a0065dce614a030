"""What can be asked of `lpu nodes`, as records of options. Nothing heavy is imported here."""

from dataclasses import dataclass
from typing import Annotated

from compiler.options import Option

FORMATS = ("fp16", "fp8", "fp4")


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLoad:
    """What is served on a node, and which nodes."""

    context: Annotated[int, Option("--context", "Tokens of each sequence.", least=1)] = 8192
    batch: Annotated[int, Option("--batch", "Sequences at once.", least=1)] = 1
    weights: Annotated[str, Option("--weights", "Format of the weights.", choices=FORMATS)] = "fp8"
    kv: Annotated[str, Option("--kv", "Format of the KV cache.", choices=FORMATS)] = "fp8"
    nodes: Annotated[
        str | None, Option("--nodes", "Names or files, with commas.", metavar="A,B", shown="all of them")
    ] = None
    rack: Annotated[
        str, Option("--rack", "compare: the rack beside the nodes, a name or a file; none for no rack.")
    ] = "lpx"
    duty: Annotated[
        float,
        Option("--duty", "Share of the time in use; the rest costs idle power.", metavar="X", parse=_share),
    ] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cold:
    """How tokens reach for cold KV on the drive."""

    places: Annotated[
        int,
        Option("--places", "Cold places that a token reaches for (k), on the drive with --miss.", least=0),
    ] = 4
    miss: Annotated[
        float, Option("--miss", "Chance that such a place is on the drive.", metavar="X", parse=_share)
    ] = 0.02
    page: Annotated[int, Option("--page", "Tokens of a page.", least=1)] = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session whose KV was kept on the drive."""

    system: Annotated[int, Option("--system", "persistence: tokens of the system prompt.", least=1)] = 2048
    session: Annotated[int, Option("--session", "persistence: tokens after it.", least=0)] = 30_720
    block: Annotated[int, Option("--block", "persistence: tokens of a block that is kept.", least=1)] = 16
