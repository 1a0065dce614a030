"""What a verb says of itself: -h, defaults, examples, and what a shell completes."""

import re
import shlex
from collections.abc import Callable

import pytest

from fabric.catalog import rack_names
from lpu.cli import app as cli
from lpu.cli.terminal import TERMINAL, Terminal
from lpu.cli.verb import command, examples, summary
from models.catalog import catalog_names

NAMES = [verb.__name__.rstrip("_") for verb in cli.VERBS]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(words) == 0
    return capsys.readouterr().out


def test_the_list_of_verbs_says_all_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "-h")
    assert out == said(capsys, "--help") == said(capsys)
    assert "..." not in out.replace("[ARGS]...", "")
    for name, verb in zip(NAMES, cli.VERBS, strict=True):
        assert f"{name} {summary(verb)}" in " ".join(out.split())
    assert "--version Show the version and exit." in " ".join(out.split())
    assert re.fullmatch(r"lpu-emulator \d+\.\d+\.\S+\n", said(capsys, "--version"))


def test_a_command_line_makes_its_own_verb_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(cli, "command", lambda verb: made.append(verb.__name__) or command(verb))
    assert cli.main(["bounds", "-h"]) == 0
    assert made == ["bounds"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_option_that_takes_a_value_shows_its_default(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = said(capsys, name, "-h")
    assert out == said(capsys, name, "--help")
    options = re.split(r"^  (?=\S)", out[out.index("\nOptions:") :], flags=re.MULTILINE)[1:]
    flags = [option for option in options if re.match(r"(-\w, )?--[\w-]+  ", option)]  # off, if not given
    assert {"--json", "--debug", "-h,"} <= {flag.split()[0] for flag in flags}
    for option in options:
        assert option in flags or "[default:" in option or "[required]" in option, option


@pytest.mark.parametrize("verb", cli.VERBS, ids=NAMES)
def test_the_examples_of_a_verb_are_printed_whole_and_parse(
    capsys: pytest.CaptureFixture[str], verb: Callable[..., None]
) -> None:
    name = verb.__name__.rstrip("_")
    lines = examples(verb)
    printed = said(capsys, name, "-h").splitlines()
    TERMINAL.set(Terminal())
    assert lines[0].startswith(f"lpu {name}")
    for line in lines:
        assert f"    {line}" in printed
        assert len(line) <= 78
        _, asked, *words = shlex.split(line)
        cli.group().commands[asked].make_context(asked, words)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("lpu ce", ["certify"]),
        ("lpu compile --ra", ["--rack"]),
        ("lpu compile llama-tiny --layout c", ["column"]),
        ("lpu run smo", [name for name in catalog_names() if name.startswith("smo")]),
        ("lpu run llama-tiny --rack gro", [name for name in rack_names() if name.startswith("gro")]),
        ("lpu afd llama-tiny --bridge fpga", ["fpga-400g"]),
        ("lpu compile ./my", []),
    ],
)
def test_a_shell_completes_verbs_options_and_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: str, offered: list[str]
) -> None:
    monkeypatch.setenv("_LPU_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split() == offered
