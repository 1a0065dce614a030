"""Compile and check seconds per million rows from 1.2B to 405B, each model in a process of its own.

Growth is the exponent e of seconds = rows ** e between the second and the last model (the first is mostly
fixed costs); 1 is linear, and the goal allows a twentieth for noise. Wall seconds, and below them seconds of
processor time, which other work on the machine disturbs less.
"""

import json
import math
import subprocess
import sys
import time

from measure import machine, peak_gb, show

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.rack import load_rack
from lpu import api
from lpu.check.check import check

CASES = (
    ("llama-1.2b", "lpx", 1024),
    ("llama-3.1-8b", "lpx", 8192),
    ("llama-3.1-70b", "lpx", 8192),
    ("llama-3.1-405b", "lpx-x4", 8192),
)
TP = 8
LINEAR = 1.05
COMPILE, CHECK = "compile_seconds", "check_seconds"
COMPILE_CPU, CHECK_CPU = "compile_cpu_seconds", "check_cpu_seconds"


def one(name: str, rack: str, context: int) -> None:
    """Compile and check one model; print its figures as JSON."""
    start = time.perf_counter()
    model = api.open_model(name, context=[context])
    machine = load_rack(rack)
    opened, opened_cpu = time.perf_counter(), time.process_time()
    program = compile_program(model.source(), machine, CompileOptions(tp=TP))
    compiled, compiled_cpu = time.perf_counter(), time.process_time()
    memory = peak_gb()
    report = check(program, context)
    checked, checked_cpu = time.perf_counter(), time.process_time()
    figures = {
        "rows": report.rows,
        "open_seconds": opened - start,
        "compile_seconds": compiled - opened,
        "check_seconds": checked - compiled,
        "compile_cpu_seconds": compiled_cpu - opened_cpu,
        "check_cpu_seconds": checked_cpu - compiled_cpu,
        "compile_gb": memory,
        "check_gb": peak_gb(),
    }
    print(json.dumps(figures))


def main() -> None:
    print(f"{machine()}\n\ntp {TP}; seconds for a million rows, peak GB of the compile and with the check")
    heads = (("model", -16), ("rows", 12), ("compile s", 11), ("/ Mrows", 9), ("check s", 9), ("/ Mrows", 9))
    print("".join(f"{name:>{w}}" if w > 0 else f"{name:<{-w}}" for name, w in (*heads, ("GB", 8), ("GB", 8))))
    found: list[dict[str, float]] = []
    for case in CASES:
        command = [sys.executable, __file__, *map(str, case)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        f = json.loads(done.stdout)
        seconds = [f[part] / by for part in (COMPILE, CHECK) for by in (1, f["rows"] / 1e6)]
        cells = f"{seconds[0]:>11.2f}{seconds[1]:>9.2f}{seconds[2]:>9.2f}{seconds[3]:>9.2f}"
        print(f"{case[0]:<16}{f['rows']:>12,}{cells}{f['compile_gb']:>8.2f}{f['check_gb']:>8.2f}", flush=True)
        cpu = [f[part] / by for part in (COMPILE_CPU, CHECK_CPU) for by in (1, f["rows"] / 1e6)]
        print(f"{'  processor':<28}{cpu[0]:>11.2f}{cpu[1]:>9.2f}{cpu[2]:>9.2f}{cpu[3]:>9.2f}", flush=True)
        found.append(f)
    print()
    first, last = found[1], found[-1]
    parts = (("compile", COMPILE), ("check", CHECK), ("compile CPU", COMPILE_CPU), ("check CPU", CHECK_CPU))
    for what, part in parts:
        exponent = math.log(last[part] / first[part]) / math.log(last["rows"] / first["rows"])
        show(f"growth of {what} seconds with rows", exponent, "(exponent)", LINEAR)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        one(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main()
