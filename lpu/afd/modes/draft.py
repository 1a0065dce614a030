"""Mode draft: a small model on the LPUs drafts, the GPUs verify all drafts in one step."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from compiler.options import Option
from lpu.afd.mode import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft(Mode):
    """A small model on the LPUs, the model itself on the GPUs."""

    name: ClassVar[str] = "draft"
    layer: ClassVar[str] = "a round"

    drafter: Annotated[str | None, Option("--drafter", "the small model.")] = None
    drafts: Annotated[int, Option("--drafts", "tokens proposed a round.")] = 4
    acceptance: Annotated[float, Option("--acceptance", "assumed chance that a draft is right.")] = 0.7
