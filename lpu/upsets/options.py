"""What can be chosen of `upsets`. Nothing heavy is imported here: the command line reads it."""

from dataclasses import dataclass
from typing import Annotated

from compiler.options import Option
from lpu.inputs.document import FileError

DRAWN = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class UpsetOptions:
    """Rates of errors, and what is drawn or run with them."""

    frame_loss: Annotated[
        float, Option("--frame-loss", "Of a frame of 320 bytes over one link, after FEC (assumed).", least=0)
    ] = 1e-12
    word_upset: Annotated[
        float, Option("--word-upset", "Of a word of SRAM read or written, after ECC (assumed).", least=0)
    ] = 0.0
    tokens: Annotated[int, Option("--tokens", "Tokens that are drawn, or run.", least=1)] = DRAWN
    seed: Annotated[int, Option("--seed", "Of the draws.", least=0)] = 0
    run: Annotated[bool, Option("--run/--no-run", "Run the tokens with real math and errors in it.")] = False
    replay: Annotated[bool, Option("--replay/--no-replay", "Take a token again whose step met an error.")] = (
        True
    )

    def __post_init__(self) -> None:
        for name, value in (("--frame-loss", self.frame_loss), ("--word-upset", self.word_upset)):
            if not 0 <= value < 1:
                raise FileError(f"options: {name} is {value:g}, must be at least 0 and below 1.")
        if not self.replay and not self.run:
            raise FileError("options: --no-replay means nothing without math. Add --run.")
