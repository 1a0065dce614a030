"""CONTRIBUTING.md names files that exist, and lists all that an op or an instruction touches."""

import re
from pathlib import Path

import pytest

from compiler.lower.rules import RULES
from compiler.options import STRATEGIES
from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import Op
from lpu.afd.registry import MODES
from models.contract.ops import OPS
from models.families.registry import FAMILIES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PACKAGES = ("lpu", "compiler", "fabric", "models")
MOST = 6  # files to touch: five, and one of the proof


def listed(title: str) -> list[str]:
    """The files of the numbered list below a bold title."""
    after = TEXT.split(f"**{title}**", 1)[1].split("**")[0]
    return re.findall(r"^\d\. `([^`]+)`", after, re.MULTILINE)


def there(name: str) -> str:
    """A file by its name in a list, or in a folder of its kind one level below."""
    path = Path(name)
    found = [path] if (ROOT / path).is_file() else sorted((ROOT / path.parent).glob(f"*/{path.name}"))
    assert len(found) == 1, name
    return str(found[0].relative_to(ROOT) if found[0].is_absolute() else found[0])


def naming(pattern: str) -> set[str]:
    """The files of the packages with a line of code that matches."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {str(path.relative_to(ROOT)) for path in paths if re.search(pattern, path.read_text())}


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"`([\w./]+/[\w./]*)`", TEXT)
    assert len(named) > 10
    for name in named:
        places = re.sub(r"(?<![A-Za-z])[A-Z]{2,}(?=\.(py|yaml))", "*", name)
        assert list(ROOT.glob(places)), name


# Two of one kind, in one file or beside each other: (file of the vocabulary, file of the lowering).
SHARING = {
    "round8": ("rounding", "ops/rounding"),
    "round16": ("rounding", "ops/rounding"),
    "matmul_scaled": ("matmul", "ops/matmul"),
    "multiply": ("multiply", "ops/multiply"),
    "multiply_add": ("multiply", "ops/multiply"),
    "multiply_lanes": ("multiply", "ops/multiply"),
    "prescale": ("prescale", "ops/prescale"),
    "rms_stat": ("prescale", "ops/prescale"),
    "matmul16": ("matmul16", "ops/router"),
    "route": ("route", "ops/router"),
    "head_matmul": ("latent", "latent/heads"),
    "latent_attention": ("latent", "latent/attention"),
}

TITLES = (
    *("An op of the vocabulary", "An instruction", "A family", "A chip"),
    *("A collective", "A strategy", "A verb", "A mode"),
)


@pytest.mark.parametrize("title", TITLES)
def test_no_list_is_longer_than_five_files_and_that_of_the_proof(title: str) -> None:
    assert 1 <= len(listed(title)) <= MOST


@pytest.mark.parametrize("op", sorted(OPS.keys() - SHARING))
def test_the_files_of_an_op_are_those_listed(op: str) -> None:
    files = [there(name.replace("OP", op)) for name in listed("An op of the vocabulary")]
    assert OPS[op].home == files[0].removesuffix(".py").replace("/", ".")
    assert naming(rf"vocabulary\.(\w+\.)?{op} import {op.upper()}\b") == {files[1]}
    assert naming(rf"LoweringRule\(\s*op=\"{op}\"") == {files[2]}
    assert naming(rf"\b{op}\.RULE\b") == {files[3]}
    assert RULES[op].op == op


@pytest.mark.parametrize("op", sorted(SHARING))
def test_an_op_that_shares_a_file_lies_in_the_same_rooms(op: str) -> None:
    vocabulary, lowering = SHARING[op]
    assert OPS[op].home == f"models.contract.vocabulary.{vocabulary}"
    assert naming(rf"vocabulary\.{vocabulary} import (\w+, )*{op.upper()}\b") == {"models/contract/ops.py"}
    assert naming(rf"LoweringRule\(\s*op=\"{op}\"") == {f"compiler/lower/{lowering}.py"}
    assert RULES[op].op == op


@pytest.mark.parametrize(("op", "family"), [(Op.CAST, "vector"), (Op.GLU, "vector")])
def test_the_files_of_an_instruction_are_those_listed_and_the_rule_that_uses_it(op: Op, family: str) -> None:
    files = [name.replace("FAMILY", family) for name in listed("An instruction")]
    assert re.search(rf"^    {op.name} = {int(op)}\b", (ROOT / files[0]).read_text(), re.MULTILINE)
    found = naming(rf"\bOp\.{op.name}\b")
    assert {name for name in found if not name.startswith("compiler/lower/ops/")} == set(files[1:])
    assert INSTRUCTIONS[op].name == op.name


def test_the_name_of_a_kernel_is_known_to_its_own_rooms() -> None:
    kernels = naming(r"\bGluKernel\b")
    assert kernels == {
        "compiler/program/instructions/vector.py",
        "compiler/lower/ops/glu.py",
        "lpu/run/ops/vector.py",
    }


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_files_of_a_family_are_those_listed(family: str) -> None:
    files = [name.replace("FAMILY", family) for name in listed("A family")]
    folder = ROOT / "models/families" / family
    assert (ROOT / files[0]).is_file() or (folder / "family.py").is_file()
    assert naming(rf"\bfamilies\.{family}(\.family)? import {family.upper()}\b") == {files[1]}


@pytest.mark.parametrize("mode", sorted(MODES))
def test_the_files_of_a_mode_are_those_listed(mode: str) -> None:
    files = [name.replace("MODE", mode) for name in listed("A mode")]
    assert all((ROOT / name).is_file() for name in files)
    assert files[1] in naming(rf"\bafd\.modes\.{mode} import ")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_files_of_a_strategy_are_those_listed(strategy: str) -> None:
    files = [name.replace("STRATEGY", strategy.replace("-", "_")) for name in listed("A strategy")]
    assert all((ROOT / name).is_file() for name in files)
    assert f'"{strategy}"' in (ROOT / files[1]).read_text()
