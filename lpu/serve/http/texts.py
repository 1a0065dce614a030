"""The text of an answer as it grows: what can be sent, before a stop text and without half characters."""

from collections.abc import Callable, Sequence

from lpu.decode.choose import until_stop

HALF = "\N{REPLACEMENT CHARACTER}"


class GrowingText:
    """Text of new tokens, in pieces that together are the text of all of them."""

    def __init__(self, decode: Callable[[Sequence[int]], str] | None, stops: Sequence[str]) -> None:
        self._decode, self._stops = decode, stops
        self.sent = ""

    def grow(self, tokens: Sequence[int], over: bool) -> str:
        """What is new to send. over: nothing follows, so nothing is held back."""
        if self._decode is None or not tokens:
            return ""
        text = until_stop(self._decode(tokens), self._stops)
        if not over:
            text = text.rstrip(HALF)
            text = text[: len(text) - self._begun(text)]
        if len(text) <= len(self.sent):
            return ""
        new, self.sent = text[len(self.sent) :], text
        return new

    def _begun(self, text: str) -> int:
        """Characters in the end that may begin a stop text."""
        return max(
            (
                size
                for stop in self._stops
                for size in range(1, min(len(stop), len(text) + 1))
                if text.endswith(stop[:size])
            ),
            default=0,
        )


def stop_reason(text: str, stops: Sequence[str]) -> str | None:
    """The stop text that comes first in a text."""
    found = [(text.index(stop), stop) for stop in stops if stop in text]
    return min(found)[1] if found else None
