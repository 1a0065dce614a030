"""What a certificate compares, besides other layouts and placements."""

from collections.abc import Callable
from dataclasses import dataclass

from compiler.program.program import Program
from lpu.run.streamed.feed import StreamRate


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifyOptions:
    """What a model's bits are compared with, besides other layouts and placements.

    prefill: also take the prompts in chunks of that many tokens. plain: add the numerical-equivalence report.
    pythons: other interpreters with lpu-emulator installed, perhaps under another JAX. stream: take weights
    call by call and layer by layer; None: if they exceed the host's memory. The f32 reports, which need all
    weights at once, are left out then. estimated: called before the first streamed step, with what a step
    takes. chunks: of a saved program the prefill program beside it, proved and compared as for `prefill`;
    moves: those that move its KV, proved. corrupt: for tests, the comparison (or "all") whose run gets one
    flipped bit in one weight.
    """

    prefill: int | None = None
    plain: bool = True
    pythons: tuple[str, ...] = ()
    stream: bool | None = None
    estimated: Callable[[StreamRate], None] | None = None
    chunks: Program | None = None
    moves: tuple[Program | None, Program | None] = (None, None)
    corrupt: str = ""
