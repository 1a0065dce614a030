import pytest

from lpu.cli.stream import TextStream, quoted
from lpu.inputs.text import byte_tokenizer


def printed(capsys: pytest.CaptureFixture[str], text: str, stop: list[str], end: str) -> list[str]:
    """What is on stdout after every byte of a text, and after its end."""
    found, begun = list[str](), list[bool]()
    stream, raw, out = (
        TextStream(byte_tokenizer().decode, stop, lambda: begun.append(True)),
        text.encode(),
        "",
    )
    for i in range(1, len(raw) + 1):
        stream(0, list(raw[:i]))
        out += capsys.readouterr().out
        found.append(out)
    stream.finish(end)
    assert begun == [True]
    return [*found, out + capsys.readouterr().out]


def test_text_comes_byte_by_byte_and_in_whole_characters(capsys: pytest.CaptureFixture[str]) -> None:
    start = "text 0      '"
    assert printed(capsys, "aü\n", [], "aü\n") == [
        start + "a",
        start + "a",
        start + "aü",
        start + "aü\\n",
        start + "aü\\n'\n",
    ]


def test_what_a_stop_text_may_take_away_is_held_back(capsys: pytest.CaptureFixture[str]) -> None:
    start = "text 0      '"
    assert printed(capsys, "abEND", ["END"], "ab")[-2:] == [start + "ab", start + "ab'\n"]


def test_quotes_and_controls_are_escaped() -> None:
    assert quoted("it's\t\\ ü") == "'it\\'s\\t\\\\ ü'"
