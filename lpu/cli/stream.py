"""The text of a sequence on stdout as it comes, in the form in which it would be printed at the end."""

import sys
from collections.abc import Callable, Sequence

from lpu.decode.choose import until_stop

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


def quoted(text: str) -> str:
    """The text on one line, in single quotes."""
    return f"'{escaped(text)}'"


def escaped(text: str) -> str:
    """The text on one line: what cannot be printed, backslashes and single quotes are escaped."""
    return "".join("\\'" if one == "'" else repr(one)[1:-1] for one in text)


class TextStream:
    """Prints the text of sequence 0, `text 0      '...'`, without what a stop text may still take away.

    begin: called before the first character.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: Sequence[str], begin: Callable[[], None]
    ) -> None:
        self._decode, self._stop, self._begin = decode, tuple(stop), begin
        self._held_back = max((len(one) - 1 for one in stop), default=0)
        self._printed = ""

    def __call__(self, sequence: int, tokens: Sequence[int]) -> None:
        """A new token is there: print what is sure by now."""
        text = self._decode(tokens)
        sure = until_stop(text, self._stop)
        if sure == text:
            sure = text[: len(text) - self._held_back]
        self._put(sure.rstrip(UNFINISHED))

    def finish(self, text: str) -> None:
        """Print the rest, and the end of the line."""
        self._put(text)
        if not self._printed:
            self._start()
        print("'", flush=True)

    def _put(self, text: str) -> None:
        if len(text) <= len(self._printed) or not text.startswith(self._printed):
            return
        if not self._printed:
            self._start()
        sys.stdout.write(escaped(text[len(self._printed) :]))
        sys.stdout.flush()
        self._printed = text

    def _start(self) -> None:
        self._begin()
        sys.stdout.write("text 0      '")
