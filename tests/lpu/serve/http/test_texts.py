"""The text of an answer in pieces."""

import pytest

from lpu.inputs.text import byte_tokenizer
from lpu.serve.http.texts import GrowingText, stop_reason


@pytest.mark.parametrize(
    ("text", "stops", "whole"),
    [
        ("plain", (), "plain"),
        ("h\u00e9\u20ac", (), "h\u00e9\u20ac"),
        ("one two", ("tw",), "one "),
        ("abcabd", ("abd",), "abc"),
    ],
)
def test_pieces_are_whole_characters_before_the_stop_text(
    text: str, stops: tuple[str, ...], whole: str
) -> None:
    tokens = list(text.encode())
    growing = GrowingText(byte_tokenizer().decode, stops)
    pieces = [growing.grow(tokens[: i + 1], i == len(tokens) - 1) for i in range(len(tokens))]
    assert "".join(pieces) == whole
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_the_stop_text_that_comes_first_is_the_reason() -> None:
    assert stop_reason("a then b", ("b", "the")) == "the"
    assert stop_reason("a", ("b",)) is None
