"""Mode pd: GPUs prefill, KV goes to the LPUs layer by layer behind the prefill, the LPUs decode."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from compiler.options import Option
from lpu.afd.mode import Mode

POLICIES = ("recompute", "copy-back")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pd(Mode):
    """Prefill on the GPUs, decode on the LPUs."""

    name: ClassVar[str] = "pd"
    layer: ClassVar[str] = "a layer of the last prefill"

    kv_policy: Annotated[
        str,
        Option(
            "--kv-policy",
            "GPUs recompute the KV of decoded tokens, or the LPUs copy-back theirs.",
            choices=POLICIES,
        ),
    ] = "recompute"
    cached_tokens: Annotated[
        int, Option("--cached-tokens", "of the first prompt, tokens whose KV the GPUs have.")
    ] = 0
    kv_cache: Annotated[
        str | None, Option("--kv-cache", "with --run: a folder of KV to begin with and leave.")
    ] = None
