"""A figure as a document prints it, and whether a computed one agrees with it within the printed rounding."""

import re
from dataclasses import dataclass

from lpu.validate.reference.expression import Value

TOLERANCE_PERCENT = 3.0
MORE = 1.1  # `1,600+` is at most a tenth more: a far larger value is another figure
MOST = 1e300
EXACT = 1e-9
NOTHING = "-"  # what a row shows as printed where the document prints no figure
NUMBER = r"[0-9][0-9,]*(?:\.[0-9]+)?"
WORDS = {"yes": True, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """low, high: the interval that the text allows, rounding included; of yes and no: `word` alone."""

    text: str
    low: float = 0.0
    high: float = 0.0
    word: bool | None = None

    def agrees(self, value: Value) -> bool:
        """Whether `value` is what the text says."""
        if self.word is not None:
            return bool(value) is self.word
        return self.low <= value <= self.high


def printed(text: str, tolerance_percent: float = TOLERANCE_PERCENT) -> Printed:
    """`27`, `1,600+`, `2-5`, `<0.1`, `yes`: a number, at least and just above it, a range, a limit, a word.

    A number agrees within `tolerance_percent`, or within one unit of its last printed digit; of 0 %, exactly.
    ValueError if the text is none of these.
    """
    if text in WORDS:
        return Printed(text=text, word=WORDS[text])
    share = tolerance_percent / 100
    if found := re.fullmatch(rf"({NUMBER})-({NUMBER})", text):
        low, high = (float(one.replace(",", "")) for one in found.groups())
        if low > high:
            raise ValueError(f"{text!r}: {low:g} is above {high:g}")
        return Printed(text=text, low=low * (1 - share), high=high * (1 + share))
    if found := re.fullmatch(rf"([<>]?)({NUMBER})(\+?)", text):
        limit, number, more = found.groups()
        value = float(number.replace(",", ""))
        slack = max(value * share, 10.0 ** -len(number.partition(".")[2]) if share else value * EXACT)
        if limit == "<":
            return Printed(text=text, low=-MOST, high=value)
        if limit == ">":
            return Printed(text=text, low=value, high=MOST)
        if more:
            return Printed(text=text, low=value * (1 - share), high=value * MORE)
        return Printed(text=text, low=value - slack, high=value + slack)
    raise ValueError(f"{text!r} is no printed figure")
