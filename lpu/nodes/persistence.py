"""Whether KV that was kept on a drive is still valid: what must be equal, and from which token it is not.

K and V of a token depend on every token before it. So what was kept is valid up to the first token that
differs, rounded down to blocks, and not at all where the function that made it has changed. Source: facts
C-000-11, which corrects reference 000 9.3 (a changed system prompt leaves nothing, not "the rest").
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from compiler.errors import OptionError

BLOCK = 16
MOST_TOKENS = 1 << 22
RESHARDED = "layout"
CHANGES = ("weights", "rope", "tokenizer", "system-prompt", "kv", "adapter", "layout", "nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class KvOrigin:
    """What decides the numbers of a KV cache besides its tokens, as digests or names.

    layout: which chip holds which head and token; another one moves numbers, it changes none.
    """

    weights: str = "a"
    rope: str = "a"
    tokenizer: str = "a"
    kv: str = "a"
    adapter: str = "a"
    layout: str = "a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """tokens: how many are valid from the first on. reason: what ended it. resharded: they must be moved."""

    tokens: int
    reason: str
    resharded: bool = False


def valid(
    kept: KvOrigin, now: KvOrigin, kept_tokens: Sequence[int], tokens: Sequence[int], block: int = BLOCK
) -> Validity:
    """How much of what was kept for `kept_tokens` serves a prompt of `tokens`."""
    for field in fields(KvOrigin):
        if field.name != RESHARDED and getattr(kept, field.name) != getattr(now, field.name):
            return Validity(tokens=0, reason=f"{field.name} changed")
    equal = 0
    for a, b in zip(kept_tokens, tokens, strict=False):
        if a != b:
            break
        equal += 1
    whole = len(kept_tokens) == equal
    reason = "all of it" if whole else f"token {equal} differs"
    at = equal if whole else equal // block * block
    return Validity(tokens=at, reason=reason, resharded=kept.layout != now.layout)


def after(change: str, system: int, session: int, block: int = BLOCK) -> Validity:
    """What a change leaves of a session of `session` tokens after a system prompt of `system`.

    A changed system prompt differs from its first token on. Raises OptionError for a change nobody knows.
    """
    if change not in CHANGES:
        raise OptionError("nodes", change, "is no change", f"Take one of {', '.join(CHANGES)}.")
    if system + session > MOST_TOKENS:
        raise OptionError("nodes", f"{system + session} tokens", f"are above {MOST_TOKENS}", "Give fewer.")
    tokens = range(1, system + session + 1)
    new = [-token for token in tokens[:system]] + list(tokens[system:])
    if change == "system-prompt":
        return valid(KvOrigin(), KvOrigin(), tokens, new, block)
    now = KvOrigin() if change == "nothing" else replace(KvOrigin(), **{change: "b"})
    return valid(KvOrigin(), now, tokens, tokens, block)
