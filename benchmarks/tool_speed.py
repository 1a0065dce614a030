"""User CPU seconds of compile, check, link, certify and run beside their goals; medians of cold processes.

Each case is a process of its own, with the children that it starts; what XLA compiled is kept in a folder of
this benchmark's own, empty at first, so `cold` cases compile everything. Without arguments all cases run.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import NamedTuple

from measure import machine, show

HERE = Path(__file__).parent
COMPILE = ("-m", "lpu", "compile", "--context", "8192", "--no-prove")
CERTIFY = ("-m", "lpu", "certify", "llama-tiny", "--rack", "quad")
RUN = ("-m", "lpu", "run", "llama-tiny")
PART = """
import resource, sys
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.rack import load_rack
from lpu import api
from lpu.check.check import check
from lpu.link.link import link
program = compile_program(api.open_model("llama-3.1-70b", context=[8192]).source(), load_rack("lpx"),
                          CompileOptions(tp=8))
columns, loads = program.expand(8192), program.loads()
what = {"check": lambda: check(program, 8192), "link": lambda: link(program.manifest, loads, columns)}
start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
what[sys.argv[1]]()
seconds = resource.getrusage(resource.RUSAGE_SELF).ru_utime - start
print(seconds * 1e6 / len(columns) if sys.argv[1] == "check" else seconds)
"""


class Case(NamedTuple):
    """A command of Python, and the user CPU seconds that it may take. printed: it prints its own seconds.

    cold: with nothing compiled before.
    """

    name: str
    goal: float | None
    command: tuple[str, ...]
    printed: bool = False
    cold: bool = False


CASES = (
    Case("compile 70b, lpx", 6, (*COMPILE, "llama-3.1-70b", "--rack", "lpx")),
    Case("compile 405b, lpx-x4", 12, (*COMPILE, "llama-3.1-405b", "--rack", "lpx-x4")),
    Case("compile 70b, 4096 chips", 6, (*COMPILE, "llama-3.1-70b", "--rack", "lpx-x16")),
    Case("compile 70b, 576 chips", None, (*COMPILE, "llama-3.1-70b", "--rack", str(HERE / "lpx_576.yaml"))),
    Case("check, a million rows", 0.7, ("-c", PART, "check"), printed=True),
    Case("link 70b", 1.2, ("-c", PART, "link"), printed=True),
    Case("certify llama-tiny, quad, first", 12, CERTIFY, cold=True),
    Case("certify llama-tiny, quad, again", 12, CERTIFY),
    Case("second run of llama-tiny", 5, RUN),
)


def seconds(case: Case, kept: Path) -> float:
    """User CPU seconds of one process of the case and of its children."""
    with tempfile.TemporaryDirectory() as empty:
        environ = os.environ | {"JAX_COMPILATION_CACHE_DIR": empty if case.cold else str(kept)}
        environ |= {
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        done = subprocess.run(
            [sys.executable, *case.command], check=True, env=environ, capture_output=True, text=True
        )
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    return float(done.stdout) if case.printed else used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[case.name for case in CASES], action="append", help="repeatable")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(f"{machine()}\n\nuser CPU seconds, medians of {args.repeats}, children included")
    with tempfile.TemporaryDirectory() as kept:
        for case in (case for case in CASES if not args.only or case.name in args.only):
            if case.command in (CERTIFY, RUN) and not case.cold:
                seconds(case, Path(kept))  # what is compiled here, the next ones find
            show(case.name, median(seconds(case, Path(kept)) for _ in range(args.repeats)), "s", case.goal)


if __name__ == "__main__":
    main()
