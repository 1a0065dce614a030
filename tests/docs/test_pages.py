"""Every page against the code: its examples print what it shows, its commands parse, its files are there."""

import ast
import re
import runpy
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import Op
from lpu.check.findings import RULES
from lpu.cli import app as cli
from lpu.prove.ops.registry import PROVED

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = ("lpu/", "compiler/", "fabric/", "models/", "docs/", "examples/", "benchmarks/", "tests/")
SLOW = (
    "certify",
    "--run",
    "llama-3.1-70b",
    "deepseek-v3-dense",
    "qwen3-30b-a3b",
    "gpt-oss-120b",
    "nodes compare",
)  # examples with one of these words take more than a few seconds
# Of pytest and pip, and of lpu itself.
OTHERS = {
    "--update-golden",
    "--cpu",
    "--user",
    "--group",
    "--extend",
    "--install-completion",
}


VERBS = cli.group().commands


@cache
def options(verb: str) -> set[str]:
    """The options of a verb."""
    return {option for p in VERBS[verb].params for option in (*p.opts, *p.secondary_opts)}


@dataclass(frozen=True)
class Example:
    """The commands of a block of a page, in order, and the lines that it shows of what each prints.

    files: those whose blocks begin with their name, as in `# rack.yaml`. A tutorial is one example.
    """

    page: str
    commands: tuple[tuple[str, tuple[str, ...]], ...]
    files: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.page}: {'; '.join(command for command, _ in self.commands)}"


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def examples() -> list[Example]:
    found: list[Example] = []
    for page in PAGES:
        text = page.read_text()
        files = tuple(re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", text, re.DOTALL))
        blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
        for block in ["".join(blocks)] if page.stem == "tutorial" else blocks:
            commands: list[tuple[str, tuple[str, ...]]] = []
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, *lines = part.rstrip().split("\n")
                commands.append((command, tuple(lines)))
            found.append(Example(name(page), tuple(commands), files))
    return found


def as_shown(lines: tuple[str, ...], printed: str) -> None:
    """Asserts that the lines are those printed, in order; `...` alone stands for any, at the end for more."""
    left, anywhere = printed.split("\n"), False
    for line in lines:
        if line.strip() == "...":
            anywhere = True
            continue
        start, cut = line.removesuffix("..."), line.endswith("...")
        fits = [i for i, one in enumerate(left) if (one.startswith(start) if cut else one == line)]
        assert fits, f"not printed: {line}\n{printed}"
        assert anywhere or fits[0] == 0, f"not next: {line}, but {left[0]}"
        left, anywhere = left[fits[0] + 1 :], False
    assert anywhere or not "".join(left), f"not shown: {left[0]}"


def marked(example: Example) -> object:
    slow = any(word in str(example) for word in SLOW)
    marks = [pytest.mark.slow] if slow else []
    return pytest.param(example, marks=marks, id=str(example))


def test_there_are_examples_and_each_is_a_command_of_ours() -> None:
    assert len(examples()) >= 6
    commands = [command for example in examples() for command, _ in example.commands]
    assert all(command.startswith("lpu ") for command in commands)


@pytest.mark.parametrize("example", [marked(example) for example in examples()])
def test_an_example_prints_what_its_page_shows(
    example: Example, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, body in example.files:
        (tmp_path / name).write_text(body)
    for command, lines in example.commands:
        assert cli.main(shlex.split(command)[1:]) == 0
        as_shown(lines, capsys.readouterr().out)


def test_lines_that_are_left_out_changed_or_swapped_are_found() -> None:
    printed = "a\nb\nc 1\n"
    for good in (("a", "b", "c 1"), ("a", "...", "c 1"), ("...", "b", "..."), ("a", "b", "c ...")):
        as_shown(good, printed)
    for bad in (
        ("a", "b"),
        ("b", "c 1"),
        ("a", "c 1"),
        ("...", "b", "a"),
        ("a", "B", "..."),
        ("a", "...", "c"),
    ):
        with pytest.raises(AssertionError):
            as_shown(bad, printed)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_that_a_page_names_have_these_options(page: Path) -> None:
    for code in re.findall(r"`lpu ([a-z][^`\n]*)`", page.read_text()):
        words = shlex.split(code)
        assert words[0] in VERBS, code
        assert {word for word in words if word.startswith("--")} <= options(words[0]), code


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "facts"], ids=name)
def test_files_and_options_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text()
    for word in text.replace("(", " ").replace(")", " ").replace("`", " ").split():
        path = word.rstrip(".,:;").split("#")[0]
        pattern = re.search(r"[*]|\.\.\.|[A-Z]{2,}\.(py|yaml)$", path)  # stands for several files
        if path.startswith(FOLDERS) and not pattern:
            assert (ROOT / path).exists(), path
    for link in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (page.parent / link).exists() or link.startswith("gallery/"), link  # made by `make docs`
    known = OTHERS.union(*map(options, VERBS))
    scripts = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text):
        assert option in known or f'"{option}"' in scripts, option


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_that_a_page_shows_is_code(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        ast.parse(block if not block.rstrip().endswith(":") else f"{block.rstrip()} ...")


@pytest.mark.parametrize("what", ["api", "cli"])
def test_the_pages_of_the_api_and_of_the_command_line_are_made_from_the_code(what: str) -> None:
    made = runpy.run_path(str(ROOT / f"docs/make_{what}.py"))
    assert (ROOT / f"docs/{what}.md").read_text() == made["page"](), "make docs"


def test_every_page_is_in_the_menu_of_the_site() -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    pages = [page for page in PAGES if page.is_relative_to(ROOT / "docs") and page.parent.name != "decisions"]
    missing = [name(page) for page in pages if str(page.relative_to(ROOT / "docs")) not in menu]
    assert missing == []


def test_the_record_of_the_rules_is_their_list() -> None:
    text = (ROOT / "docs/decisions/0005-the-program-and-its-rules.md").read_text()
    for number, rule in enumerate(RULES):
        assert f"\n{number}. **{rule.split(':')[0]}**: " in text
    assert f"\n{len(RULES)}. " not in text


def test_every_decision_is_listed_in_order() -> None:
    records = sorted((ROOT / "docs/decisions").glob("0*.md"))
    assert [record.name[:4] for record in records] == [f"{i:04}" for i in range(1, len(records) + 1)]
    index = (ROOT / "docs/decisions/README.md").read_text()
    assert re.findall(r"\]\((0[\w.-]+)\)", index) == [record.name for record in records]


def test_the_page_of_the_proof_has_a_row_for_every_rule_and_no_other() -> None:
    text = (ROOT / "docs/proof.md").read_text().split("\n## Rules\n")[1].split("\n## ")[0]
    cells = " ".join(re.findall(r"^\| (.*?) \|", text, re.MULTILINE))
    named = set(re.findall(r"\b[A-Z][A-Z0-9]+\b", cells))
    assert named == {INSTRUCTIONS[op].name for op in Op if op in PROVED}
