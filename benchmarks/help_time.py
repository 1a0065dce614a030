"""How long `lpu --help` takes, beside a Python that does nothing and one that imports jax."""

import subprocess
import sys
import time
from statistics import median

from measure import machine, show

REPEATS = 7
ARGUMENTS = {
    "lpu --help": ["-m", "lpu", "--help"],
    "python that does nothing": ["-c", "pass"],
    "python that imports jax": ["-c", "import jax"],
}


def main() -> None:
    print(machine() + "\n")
    seconds: dict[str, list[float]] = {name: [] for name in ARGUMENTS}
    for _ in range(REPEATS):
        for name, arguments in ARGUMENTS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    for name, took in seconds.items():
        show(f"{name}, median of {REPEATS}", median(took), "s", 0.7 if name == "lpu --help" else None)
    show(
        "lpu --help, of importing jax",
        median(seconds["lpu --help"]) / median(seconds["python that imports jax"]),
        "x",
    )
    code = "import sys, lpu.cli.app; sys.exit('jax' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=False).returncode
    print(f"jax is {'' if loaded else 'not '}loaded by the command line's own import")


if __name__ == "__main__":
    main()
