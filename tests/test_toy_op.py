"""An op from outside: one module that registers it, and every verb takes a model that uses it.

tests/toy_op is the package. Each command runs in a process of its own, so that the registries of this one
stay as they are.
"""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

TOY = Path(__file__).parent / "toy_op"
MODEL = ("lpu_scale:scaled", "--rack", "pair", "--context", "32")
NAMED = ("--model", "lpu_scale:scaled")  # code is run where its name is typed
PROMPT = ("--tokens", "3", "--prompt-ids", "3,5")
IN_PROCESS = """
import json
import lpu_scale
from lpu import api
from lpu.decode.decoders import machine_of, reference_decode, restart
from lpu.decode.generate import generate

made = api.compile("lpu_scale:scaled", rack="pair", context=[32])
factors = [kernel.factor for kernel in made.program.manifest.kernels if kernel.family == "scale"]
ways = restart(machine_of(made.program, made.model, stream=False)), reference_decode(made.model)
run, reference = (generate(way, [[3, 5, 7]], 3, 1).digest for way in ways)
rows = int((made.program.expand(32).op == lpu_scale.OPCODE).sum())
print(json.dumps([factors, rows, run == reference, made.reports[32].ok, made.program.manifest.digest]))
"""
LEFT_OUT = """
import lpu_scale
from compiler import timing
from compiler.lower import rules
from compiler.program import instruction_set
from lpu import api
from lpu.check import cycles
from lpu.run.ops import registry as executor

for name, table, key in (
    ("timing", timing.RULES, 200),
    ("instruction", instruction_set.INSTRUCTIONS, 200),
    ("checker", cycles.CYCLES, 200),
    ("executor", executor.EXECUTED, 200),
    ("lowering", rules.RULES, "scale"),
):
    record = table.pop(key)
    try:
        made = api.compile("lpu_scale:scaled", rack="pair", context=[32])
        api.run(made, prompts=[[3]], tokens=1)
    except Exception as error:
        assert error.exit_code
        print(name, error, sep=" | ")
    table[key] = record
"""


def copied(folder: Path, name: str = "lpu_scale", **words: str) -> None:
    """The module of the toy op in a folder, as another module where words of it are others."""
    text = (TOY / "lpu_scale.py").read_text()
    for old, new in words.items():
        assert old in text
        text = text.replace(old, new)
    (folder / f"{name}.py").write_text(text)


def python(folder: Path, *words: str, extend: Iterable[str] = ()) -> subprocess.CompletedProcess[str]:
    """Python started in another folder, with the modules and the metadata of `folder` installed."""
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "LPU_EXTEND": ",".join(extend)}
    away = folder / "away"
    away.mkdir(exist_ok=True)
    command = [sys.executable, "-P", *words]
    return subprocess.run(command, cwd=away, env=env, capture_output=True, text=True, check=False)


def lpu(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", "lpu", *words)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module alone: nothing is imported that nobody names."""
    folder = tmp_path_factory.mktemp("module")
    copied(folder)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as an installer leaves it: the module, the name and the entry points of its project."""
    folder = tmp_path_factory.mktemp("installed")
    copied(folder)
    project = tomllib.loads((TOY / "pyproject.toml").read_text())["project"]
    info = folder / f"lpu_scale-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = project["entry-points"].items()
    groups = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in points]
    (info / "entry_points.txt").write_text("\n".join(groups))
    return folder


@pytest.fixture(scope="module")
def program(module: Path) -> Path:
    """A program of the model with the toy op, compiled where the op is known."""
    folder = module / "program"
    good(lpu(module, "--extend", "lpu_scale", "compile", *MODEL, "-o", str(folder)))
    return folder


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_the_module_is_short_and_nothing_of_the_project_knows_of_it() -> None:
    assert len((TOY / "lpu_scale.py").read_text().splitlines()) <= 140
    for package in ("lpu", "compiler", "fabric", "models"):
        for path in (TOY.parents[1] / package).rglob("*.py"):
            assert "lpu_scale" not in path.read_text(), path


@pytest.mark.slow
def test_a_model_with_the_op_compiles_checks_and_runs_with_the_bits_of_its_module(tmp_path: Path) -> None:
    """And the order in which two extensions are imported changes nothing of the program."""
    copied(tmp_path)
    copied(tmp_path, "lpu_other", **{"200": "201", '"scale"': '"other"'})
    found: list[str] = []
    for extend in (("lpu_scale", "lpu_other"), ("lpu_other", "lpu_scale")):
        done = python(tmp_path, "-c", IN_PROCESS, extend=extend)
        factors, rows, equal, legal, digest = json.loads(good(done))
        assert factors == [0.22]
        assert rows >= 2
        assert equal
        assert legal
        found.append(digest)
    assert found[0] == found[1]


def test_a_record_that_an_extension_leaves_out_is_an_error_that_says_where_it_goes(module: Path) -> None:
    done = python(module, "-c", LEFT_OUT)
    said = dict(line.split(" | ", 1) for line in done.stdout.splitlines())
    words = {
        "instruction": "opcode 200: no instruction has this number",
        "timing": "opcode 200 (SCALE): no rule says how long it takes",
        "lowering": "has no rows",
        "checker": "the checker has no timing rule for it",
        "executor": "no kernel for SCALE",
    }
    assert said.keys() == words.keys(), done.stderr
    assert [room for room in words if words[room] not in said[room]] == []


@pytest.mark.slow
def test_a_program_with_the_op_is_refused_in_one_line_where_the_op_is_unknown(
    module: Path, program: Path
) -> None:
    for verb in ("check", "run", "show"):
        error = one_line(lpu(module, verb, str(program)))
        assert f"{program}: kernel family 'scale' of this program is of no extension that is loaded" in error
        assert "name its module with --extend" in error
    assert lpu(module, "--extend", "lpu_scale", "check", str(program)).returncode == 0


def test_two_extensions_of_one_opcode_are_refused_in_one_line(tmp_path: Path) -> None:
    copied(tmp_path)
    copied(tmp_path, "lpu_other", **{'"scale"': '"other"', '"SCALE"': '"OTHER"'})
    error = one_line(lpu(tmp_path, "--extend", "lpu_scale", "--extend", "lpu_other", "racks"))
    assert "extension lpu_other: importing it raised ValueError: instruction OTHER: opcode 200" in error
    assert "is that of SCALE. Give it another number." in error


@pytest.mark.slow
def test_every_verb_takes_the_installed_package_from_the_shell(
    installed: Path,
) -> None:
    folder, trace = installed / "program", installed / "trace.json"
    good(lpu(installed, "compile", *MODEL, "-o", str(folder)))
    assert "verdict     legal" in good(lpu(installed, "check", str(folder)))
    shown = good(lpu(installed, "show", str(folder), "--op", "SCALE"))
    assert "SCALE  n 1  f32" in shown
    assert "scale  factor 0.22" in shown
    run = json.loads(good(lpu(installed, "run", str(folder), *NAMED, *PROMPT, "--json")))
    good(lpu(installed, "trace", str(folder), "-o", str(trace)))
    assert any(event["name"].startswith("SCALE ") for event in json.loads(trace.read_text())["traceEvents"])
    certified = json.loads(good(lpu(installed, "certify", *MODEL, *PROMPT, "--json")))
    assert certified["bits_equal"]
    assert certified["logits_sha256"] == run["logits_sha256"]
    children = [one for one in certified["comparisons"] if "hash seed 1" in one["name"]]
    assert [one["equal"] for one in children] == [True]
