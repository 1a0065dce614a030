"""Print the numbers of every engine, fitted to all measured steps that count: lpu/gpu/served/engines.yaml.

With `first`: those of its loads, fitted to all times to the first token: lpu/gpu/served/first_tokens.yaml.
"""

import sys
from collections.abc import Mapping, Sequence

import numpy as np

from lpu.gpu.served.engine import engine
from lpu.gpu.served.first_token import LIMITS, waits
from lpu.gpu.served.fit import fit
from lpu.gpu.served.step import bodies
from lpu.validate.cases.gpu.step_rows import step_rows

LOADS = (
    ("vllm", "vllm", ("h100", "h200", "b200")),
    ("trtllm", "trtllm", ("h100", "gb200")),
    ("sglang-h100", "sglang", ("h100",)),
    ("sglang-h200", "sglang", ("h200",)),
)
"""Collections of rows: what load an engine was sent the file does not say, and it differs."""


def first_tokens() -> None:
    """Print the YAML of the loads."""
    print(
        "# By benchmarks/calibrate_engines.py first, from lpu/validate/cases/gpu/step_points.csv. docs/gpu.md"
    )
    print("loads:")
    for name, by, gpus in LOADS:
        mine = [row for row in step_rows() if row.engine == by and row.spec.name in gpus]
        asked = [waits(row.spec, row.shape, row.how, engine(by)) for row in mine]
        numbers = fit(asked, [row.first for row in mine], LIMITS)
        _print(
            name, f"engine: {by}, gpus: [{', '.join(gpus)}], ", numbers, asked, [row.first for row in mine]
        )


def _print(
    name: str,
    about: str,
    numbers: dict[str, float],
    asked: Sequence[Mapping[str, float]],
    measured: Sequence[float],
) -> None:
    modelled = np.array([sum(numbers[key] * one[key] for key in numbers) for one in asked])
    errors = np.abs(modelled / np.array(measured) - 1)
    shown = ", ".join(f"{key}: {round(value, 4)}" for key, value in numbers.items())
    print(
        f"  - {{name: {name}, {about}band: {np.quantile(errors, 0.9):.2f}, rows: {len(measured)},\n"
        f"     numbers: {{{shown}}}}}"
    )


def main() -> None:
    """Print the YAML."""
    if sys.argv[1:] == ["first"]:
        first_tokens()
        return
    print("# By benchmarks/calibrate_engines.py, from lpu/validate/cases/gpu/step_points.csv. docs/gpu.md")
    print("engines:")
    every = [row for row in step_rows() if not row.left_out]
    for name in sorted({row.engine for row in every}):
        mine = [row for row in every if row.engine == name]
        asked = [bodies(row.spec, row.shape, row.how) for row in mine]
        numbers = fit(asked, [row.seconds for row in mine])
        _print(name, "", numbers, asked, [row.seconds for row in mine])


if __name__ == "__main__":
    main()
