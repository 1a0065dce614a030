"""The tutorial as a session of its own: its commands alone, from a fresh clone to a report of an own model.

`python3 tests/tutorial_session.py [FOLDER]` clones this repository's HEAD into FOLDER (an empty or a new one,
a temporary one if not given) and runs in one shell what docs/tutorial.md shows, in its order, nothing else.
It needs Python 3.11, git, make and the network once. `make tutorial` calls it; the tests run the same
commands in their own environment (tests/docs/test_pages.py).
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def script(page: str) -> str:
    """A shell script of what a page shows: commands, and files whose first line names them."""
    out = ["set -euo pipefail"]
    for kind, text in BLOCK.findall(page):
        if kind == "sh":
            out.append(text.rstrip())
        elif kind == "console":
            commands = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
            out += [f"echo {_quoted('$ ' + command)}\n{command}" for command in commands]
        elif text.startswith("# "):
            name = text.splitlines()[0][2:].strip()
            out.append(f"cat >{_quoted(name)} <<'END_OF_FILE'\n{text}END_OF_FILE")
    return "\n".join(out) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def main() -> int:
    """Clone, and run; the exit code is that of the first command that fails."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="lpu-tutorial-"))
    clone = folder / "lpu-emulator"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    done = subprocess.run(
        ["bash", "-c", script((clone / "docs" / "tutorial.md").read_text())], cwd=clone, check=False
    )
    last = clone / "mine.html"
    print(f"{clone}: exit {done.returncode}, {last.name} {'is' if last.is_file() else 'is not'} there")
    return done.returncode or (0 if last.is_file() else 1)


if __name__ == "__main__":
    sys.exit(main())
