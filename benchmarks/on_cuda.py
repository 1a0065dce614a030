"""Certify and time on a CUDA device: install first, `pip install -e . 'jax[cuda12]'`, then run this file.

Certificates of llama-tiny and llama-1.2b are made with the device's kernels, and the logits are held against
those of the CPU of the same machine; `decode_1b.py` gives the ratio to plain f32 JAX. What is not done when
the time is up is named and left out. Exit code 1 if a bit differs or something fails, 2 without a device.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from measure import machine, show

GOAL_SECONDS = 480
HERE = Path(__file__).parent
ASKED = ("--prompt-ids", "1,17,42", "--tokens", "4", "--json")
ABOUT = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep='|')"


class Case(NamedTuple):
    """A script, or the model, rack and options of a certificate whose logits the CPU must have, too."""

    name: str
    script: str = ""
    options: tuple[str, ...] = ()


CASES = (
    Case("certify llama-tiny", options=("llama-tiny", "--rack", "quad")),
    Case("decode_1b.py", script=str(HERE / "decode_1b.py")),
    Case("certify llama-1.2b", options=("llama-1.2b", "--rack", "lpx", "--tp", "8")),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--any-device", action="store_true", help="without a CUDA device, too: to try this file"
    )
    parser.add_argument("--only", choices=[case.name for case in CASES], action="append", help="repeatable")
    parser.add_argument("--seconds", type=int, default=GOAL_SECONDS, help="for all together")
    args = parser.parse_args()
    platform, kind = _ran(("-c", ABOUT), {}, 120).split("|")
    print(f"{machine()}\ndevice    {platform}: {kind}")
    if platform not in ("gpu", "cuda") and not args.any_device:
        print(
            "on_cuda: jax finds no CUDA device. Install jax[cuda12], or give --any-device.", file=sys.stderr
        )
        return 2
    start, wrong = time.perf_counter(), 0
    for case in (case for case in CASES if not args.only or case.name in args.only):
        left = args.seconds - (time.perf_counter() - start)
        wrong += not _done(case, left)
    show("all together", time.perf_counter() - start, "s", GOAL_SECONDS)
    return int(wrong > 0)


def _done(case: Case, left: float) -> bool:
    """Run a case on the device, its logits on the CPU as well; print what came of it, say if all is well."""
    begin = time.perf_counter()
    try:
        if case.script:
            print(_ran((case.script,), {}, left))
            return True
        there = json.loads(_ran(_lpu("certify", case), {}, left))
        show(case.name, time.perf_counter() - begin, "s")
        left -= time.perf_counter() - begin
        here = json.loads(_ran(_lpu("run", case), {"JAX_PLATFORMS": "cpu"}, left))
    except subprocess.TimeoutExpired:
        print(f"{case.name}: not done in the time that was left")
        return True
    except subprocess.CalledProcessError as error:
        print(f"{case.name}: exit {error.returncode}: {(error.stderr or error.stdout).strip()[-500:]}")
        return False
    digests = [found["logits_sha256"] for found in (there, here)]
    print(f"{case.name}: logits {digests[0][:16]}, on the CPU {digests[1][:16]}")
    return digests[0] == digests[1]


def _lpu(verb: str, case: Case) -> tuple[str, ...]:
    return ("-P", "-m", "lpu", verb, *case.options, *ASKED)


def _ran(arguments: tuple[str, ...], environment: dict[str, str], seconds: float) -> str:
    """What a Python process printed."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=max(seconds, 1),
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
