"""What can be chosen of a switch. Nothing heavy is imported here: the command line reads it."""

from dataclasses import dataclass
from typing import Annotated

from compiler.options import Option


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchOptions:
    """While what weights come, and where the model after is placed."""

    serving: Annotated[
        bool,
        Option(
            "--serving/--stopped",
            "A runs on while words come that it leaves room for; or it stops first.",
        ),
    ] = True
    keep_kv: Annotated[
        bool,
        Option("--keep-kv", "B is the model of A with other --weights: users of A go on with their KV."),
    ] = False
    free: Annotated[
        bool,
        Option("--free/--alone", "Place B on chips that A leaves free, if it fits there; or as if alone."),
    ] = True
