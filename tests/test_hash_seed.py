"""Nothing that is decided or written depends on PYTHONHASHSEED: two interpreters are asked the same."""

import json
import os
import subprocess
import sys

import pytest

ASKED = {
    "weights by seed": """
from models.catalog import catalog
from models.sources.weights import content_digest, weight_shapes
from models.sources.seeded import seeded
from models.step import family_step
weights = seeded(weight_shapes(family_step(catalog("llama-tiny"), batch=1, context=16)), 0)
print(weights.digest(), content_digest(weights))
""",
    "a program": """
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.rack import load_rack
from steps import llama
print(compile_program(llama(), load_rack("lpx-tray"), CompileOptions(tp=8, layout="2d")).manifest.digest)
""",
    "hops": """
from test_hops import compiled
print(compiled(tp=8, layout="2d").manifest.digest)
""",
    "placements": """
from compiler.place.registry import search
from compiler.place.truth import cases
for name in ("annealing", "genetic", "spectral"):
    for case in cases()[-3:]:
        cost = case.cost()
        print(name, search(name, cost.shards, cost.rack, cost, 7, 3000).tolist())
""",
    "times of GPUs and LPUs": """
from lpu.cli.app import main
ratios = "ratios llama-tiny --rack pair --gpus 1,2 --batches 2,4 --micro-batches 1,2 --kv-tokens 32 --json"
afd = "afd llama-tiny --rack pair --gpus 1 --prompt-tokens 8 --new-tokens 2 --mode afd --batch 2 --json"
print(main(ratios.split()), main([*afd.split(), "--gpu-jitter", "0.1"]))
""",
}
CHILD = """
import contextlib, io, json, sys
said = {}
for name, code in json.load(sys.stdin).items():
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        exec(code, {})
    said[name] = text.getvalue()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def answers() -> list[dict[str, str]]:
    """What each of two interpreters says, by what it was asked."""
    out: list[dict[str, str]] = []
    for seed in ("0", "1"):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", CHILD], input=json.dumps(ASKED), env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        out.append(json.loads(done.stdout))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", ASKED)
def test_the_answer_is_the_same_under_another_hash_seed(answers: list[dict[str, str]], name: str) -> None:
    one, other = answers
    assert one[name] == other[name]
    assert len(one[name]) > 1
