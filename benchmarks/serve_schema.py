"""Schemathesis against `lpu serve` of llama-tiny, by the server's own OpenAPI document.

`python benchmarks/serve_schema.py [examples]`; the program is taken from the path, or from $SCHEMATHESIS, for
it is installed in an environment of its own (`python -m venv st && st/bin/pip install schemathesis`).

Left out by name: `positive_data_acceptance`. A schema cannot say that a prompt fits the context or that the
model's name is known, so requests that are right by it are refused all the same (4xx with both numbers).
"""

import json
import os
import shutil
import signal
import subprocess
import sys

COMMAND = [
    sys.executable,
    "-m",
    "lpu",
    "serve",
    "llama-tiny",
    "--rack",
    "quad",
    "--batch",
    "4",
    "--context",
    "64",
    "--tokens",
    "synthetic",
    "--port",
    "0",
    "--json",
]


def main() -> int:
    program = os.environ.get("SCHEMATHESIS") or shutil.which("schemathesis")
    if program is None:
        print("left out: schemathesis is not there (pip install schemathesis, then $SCHEMATHESIS)")
        return 0
    examples = sys.argv[1] if len(sys.argv) > 1 else "200"
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        try:
            found = subprocess.run(
                [
                    program,
                    "run",
                    f"{address}/openapi.json",
                    f"--max-examples={examples}",
                    "--exclude-checks=positive_data_acceptance",
                    "--seed=1",
                    "--continue-on-failure",
                ],
                check=False,
            )
        finally:
            process.send_signal(signal.SIGTERM)
        print(f"schemathesis exit code {found.returncode}, server's {process.wait(60)}")
    return found.returncode


if __name__ == "__main__":
    sys.exit(main())
