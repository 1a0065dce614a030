"""Options on the command line: made from the records that verbs take, each written once."""

from dataclasses import dataclass
from inspect import signature
from typing import Annotated

import pytest
from refusals import refused

from compiler.errors import CompileError, OptionError
from compiler.options import CompileOptions, Option
from fabric.catalog import UnknownBridgeError, UnknownRackError
from lpu.check.findings import HazardError
from lpu.cli import app as cli
from lpu.cli.verb import Given, OneOf, Only, flags, options_of, parts_of
from lpu.inputs.document import FileError
from lpu.link.error import LinkError
from models.catalog import UnknownModelError

MOST_PARAMETERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast."""

    speed: Annotated[int, Option("--speed", "Steps a second.", least=1)] = 3
    words: Annotated[tuple[str, ...], Option("--word", "A word; repeatable.")] = ()
    gait: Annotated[str, Option("-g --gait", "On how many legs.", choices=("two", "four"))] = "four"


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A way to go."""

    shoes: Annotated[str | None, Option("--shoes", "whose.", shown="one's own")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Swim:
    """Another way to go."""

    depth: Annotated[float, Option("--depth", "metres.")] = 1.5


Way = Annotated[object, OneOf(Option("--way", "How to go."), {"walk": Walk, "swim": Swim}, "walk")]
seen: list[object] = []


def move(
    place: Annotated[str, Option("PLACE", "Where to.")],
    pace: Pace,
    way: Way,
    options: Annotated[CompileOptions, Only(("tp",))],
    given: Given,
    far: Annotated[bool, Option("--far", "Farther.")] = False,
) -> None:
    """Go somewhere."""
    seen[:] = [place, pace, way, options, given, far]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verb `move` beside the others."""
    monkeypatch.setattr(cli, "VERBS", (move, *cli.VERBS))


@pytest.mark.usefixtures("verb")
def test_a_verb_gets_its_records() -> None:
    assert cli.main(["move", "home"]) == 0
    assert seen == ["home", Pace(), Walk(), CompileOptions(), frozenset({"place"}), False]
    words = ["--speed", "7", "--word", "a", "--word", "b", "-g", "two", "--way", "swim", "--depth", "2"]
    assert cli.main(["move", "home", *words, "--tp", "4", "--far"]) == 0
    pace = Pace(speed=7, words=("a", "b"), gait="two")
    assert seen[:4] == ["home", pace, Swim(depth=2.0), CompileOptions(tp=4)]
    assert seen[4:] == [{"place", "speed", "words", "gait", "way", "depth", "tp", "far"}, True]


@pytest.mark.usefixtures("verb")
def test_help_shows_every_field_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["move", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for text in (
        "PLACE <str> Where to. [required]",
        "Steps a second. [default: 3; x>=1]",
        "-g, --gait two|four On how many legs. [default: four]",
        "--way walk|swim How to go. [default: walk]",
        "walk: whose. [default: (one's own)]",
        "swim: metres. [default: 1.5]",
        "--json One JSON object on stdout.",
        "--debug",
    ):
        assert text in out
    assert "--pp" not in out


@pytest.mark.usefixtures("verb")
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--depth", "2"], "options: --depth: means nothing in way walk. Use --way swim."),
        (["--way", "swim", "--shoes", "red"], "options: --shoes: means nothing in way swim. Use --way walk."),
        (["--way", "fly"], "Invalid value for '--way': 'fly' is none of walk, swim."),
        (["--gait", "three"], "'three' is none of two, four"),
        (["--speed", "0"], "--speed"),
        (["--tp", "some"], "'some' is neither a positive count nor auto"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    assert text in refused(capsys, 2, "move", "home", *words)


def test_no_verb_has_many_parameters() -> None:
    for verb in cli.VERBS:
        assert len(signature(verb).parameters) <= MOST_PARAMETERS, verb.__name__


def test_every_option_of_the_compiler_can_be_chosen_and_is_declared_once() -> None:
    compile_, run, compare = (v for v in cli.VERBS if v.__name__ in ("compile_", "run", "compare"))
    every = {flag for field in options_of(CompileOptions) for flag in field.option.flags.split("/")}
    assert every < flags(compile_)
    assert flags(run) & every == every - {
        "--objective",
        "--interval-slack",
        "--users",
        "--request",
        "--waves",
        "--no-waves",
    }
    assert flags(compare) & every == {"--tp", "--layout"}
    of_compile, of_run = (
        {field.name: field.option for part in parts_of(verb).values() for field in part.fields}
        for verb in (compile_, run)
    )
    for name in of_compile.keys() & of_run.keys() - {"model"}:
        assert of_compile[name] is of_run[name], name


def test_options_of_a_verb_have_different_names() -> None:
    for verb in cli.VERBS:
        names = [field.name for part in parts_of(verb).values() for field in part.fields]
        assert len(names) == len(set(names)), verb.__name__


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (FileError, 2),
        (OptionError, 2),
        (UnknownModelError, 2),
        (UnknownRackError, 2),
        (UnknownBridgeError, 2),
        (CompileError, 3),
        (HazardError, 4),
        (LinkError, 4),
    ],
)
def test_an_error_says_with_what_the_command_line_ends(kind: type[Exception], code: int) -> None:
    made = kind("stage", "subject", "reason") if issubclass(kind, CompileError) else kind.__new__(kind)
    assert cli.exit_code(made) == code
    assert cli.exit_code(ValueError("a bug")) is None


@pytest.mark.parametrize(
    "words",
    [
        ["--interval-slack", "0.5"],
        ["--interval-slack", "1.5"],
        ["--users", "2"],
        ["--placement", "annealling"],
        ["--placement", "annealing", "--pp", "2"],
        ["--objective", "throughput", "--prefill", "4"],
        ["--cp", "9"],
    ],
    ids=" ".join,
)
def test_a_wrong_value_of_an_option_is_usage(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    refused(capsys, 2, "compile", "llama-tiny", "--rack", "quad", "--context", "32", *words)
