"""Three questions to `lpu plan`: each best answer is replayed and meets its targets, the next cheaper misses.

`python benchmarks/plan_questions.py` asks of llama-tiny on a rack of four chips; exit code 1 if a replay says
otherwise. As plan does it takes the upper end of the 99th percentile's interval. What plan refused by
arithmetic is replayed all the same: its queue grows as long as requests come.
"""

import io
import json
import shlex
import sys
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

from lpu.cli import app as cli

COMMON = ["plan", "llama-tiny", "--racks", "quad", "--gpus", "0,1,2,4", "--requests", "2000"]
QUESTIONS = (
    ["--rate", "6000", "--isl", "60+-20", "--osl", "20", "--ttft", "1", "--tpot", "0.01"],
    ["--rate", "3000", "--isl", "100", "--osl", "10+-4", "--ttft", "0.7", "--tpot", "0.02"],
    ["--rate", "20000", "--isl", "30+-10", "--osl", "8", "--ttft", "1", "--tpot", "0.02"],
)
P99 = 3  # among the percentiles of a replay


def told(words: list[str]) -> dict[str, Any]:
    """What a verb prints with --json."""
    text = io.StringIO()
    with redirect_stdout(text):
        cli.main([*words, "--json"])
    return json.loads(text.getvalue())


def met(replay: str, question: list[str]) -> tuple[bool, str]:
    """Whether a replay meets the targets, and its numbers."""
    found = told(shlex.split(replay)[1:])
    words, ok = [], True
    for name in ("ttft", "tpot"):
        target = float(question[question.index(f"--{name}") + 1])
        told_ms = 1000 * found["spans_seconds"][name]["percentiles"][P99]["high_95"]
        ok &= told_ms <= target
        words.append(f"{name} {told_ms:.4g} of {target:g} ms")
    return ok, ", ".join(words)


def asked(question: list[str]) -> bool:
    """Whether the answer holds; prints what was found."""
    found = told([*COMMON, *question])
    print(" ".join(question))
    if not found["configurations"]:
        print("  nothing meets the targets")
        return False
    Path("plan.yaml").write_text(found["requests_file"])
    best = found["configurations"][0]
    good, words = met(best["replay"], question)
    print(f"  best {best['rack_equivalents']:.3f} racks: {words}")
    cheaper = [one for one in found["refused"] if one["rack_equivalents"] < best["rack_equivalents"]]
    replayed = [one for one in cheaper if one["replay"]]  # also what arithmetic refused: it has a program
    if not replayed:
        print(f"  {len(cheaper)} cheaper ones, none with a program: {cheaper[:1] and cheaper[0]['refused']}")
        return False
    below = max(replayed, key=lambda one: one["rack_equivalents"])
    bad, words = met(below["replay"], question)
    print(f"  next cheaper {below['rack_equivalents']:.3f} racks: {words}; refused as {below['refused']}")
    print(f"  {len(cheaper)} cheaper ones refused, {len(cheaper) - len(replayed)} of them without a program")
    return good and not bad


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        return 0 if min(list(map(asked, QUESTIONS))) else 1


if __name__ == "__main__":
    sys.exit(main())
