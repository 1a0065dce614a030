"""What `lpu prove` takes: user CPU and peak memory of large programs, each loaded and proved in a process.

The programs are compiled unchecked first, which is not counted. Reading the folder is counted apart: its
digest is the larger part of that. The exit code is 1 if a bound is missed.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import machine, show

CASES: tuple[tuple[str, tuple[str, ...], float, float], ...] = (
    ("llama-tiny", ("llama-tiny", "--rack", "quad", "--tp", "4"), 0.1, 300),
    (
        "llama-3.1-70b, tp 8, 8192",
        ("llama-3.1-70b", "--rack", "lpx", "--tp", "8", "--context", "8192"),
        2,
        300,
    ),
    (
        "llama-3.1-70b, tp 16, rows, 2048",
        *(("llama-3.1-70b", "--rack", "lpx", "--tp", "16", "--layout", "row", "--context", "2048"), 5, 1e9),
    ),
    (
        "llama-3.1-70b, tp 16, cp 2, 131072, fp8",
        (
            *("llama-3.1-70b", "--rack", "lpx", "--tp", "16", "--cp", "2", "--context", "131072"),
            *("--kv", "fp8"),
        ),
        *(5, 1e9),
    ),
    (
        "llama-3.1-405b, lpx-x4, tp 16",
        ("llama-3.1-405b", "--rack", "lpx-x4", "--tp", "16", "--context", "8192"),
        *(15, 1e9),
    ),
)
CHILD = """
import json, resource, sys
from lpu.folder import load_step
from lpu.prove.prove import prove
def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_utime
start = used()
program = load_step(sys.argv[1])
loaded = used()
found = prove(program)
print(json.dumps({
    "read": loaded - start, "prove": used() - loaded, "ok": found.ok, "reason": found.reason,
    "rows": found.rows, "followed": found.followed,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def main(names: list[str]) -> int:
    print(machine())
    missed = 0
    for name, words, seconds, megabytes in CASES:
        if names and not any(one in name for one in names):
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = str(Path(place) / "p")
            subprocess.run([sys.executable, "-m", "lpu", "compile", *words, "--no-check", "-o", folder],
                           check=True, stdout=subprocess.DEVNULL)  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-c", CHILD, folder], check=True, capture_output=True, text=True
            )
        body = json.loads(done.stdout)
        print(f"\n{name}: {body['rows']:,} rows, {body['followed']:,} followed; {body['reason'] or 'proved'}")
        show("read (measured, user CPU)", body["read"], "s")
        show("prove (measured, user CPU)", body["prove"], "s", seconds)
        show("most memory (measured)", body["peak_mb"], "MB", megabytes if megabytes < 1e9 else None)
        missed += not body["ok"] or body["prove"] > seconds or body["peak_mb"] > megabytes
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
