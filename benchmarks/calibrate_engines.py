"""Print the numbers of every engine, fitted to all measured steps that count: lpu/gpu/served/engines.yaml.

With `first`: those of its loads, fitted to all times to the first token: lpu/gpu/served/first_tokens.yaml.
"""

import sys
from collections.abc import Callable, Mapping, Sequence

from lpu.gpu.served.engine import LIMITS as STEP_LIMITS
from lpu.gpu.served.engine import engine
from lpu.gpu.served.first_token import LIMITS, waits
from lpu.gpu.served.fit import fit
from lpu.gpu.served.step import bodies
from lpu.validate.cases.gpu.folds import band, group, held_out, lengths
from lpu.validate.cases.gpu.step_rows import StepRow, step_rows

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
        asked = {row.id: waits(row.spec, row.shape, row.how, engine(by)) for row in mine}
        _print(name, f"engine: {by}, gpus: [{', '.join(gpus)}], ", mine, asked, lambda row: row.first, LIMITS)


def _print(
    name: str,
    about: str,
    mine: Sequence[StepRow],
    asked: Mapping[str, Mapping[str, float]],
    seconds: Callable[[StepRow], float],
    limits: Mapping[str, tuple[float, float]],
) -> None:
    numbers = fit([asked[row.id] for row in mine], [seconds(row) for row in mine], limits)
    bands = f"band: {band(held_out(mine, lengths, asked, seconds, limits)):.2f}"
    if len({group(row) for row in mine}) > 1:
        bands += f", unseen: {band(held_out(mine, group, asked, seconds, limits)):.2f}"
    shown = ", ".join(f"{key}: {round(value, 4)}" for key, value in numbers.items())
    print(f"  - {{name: {name}, {about}{bands}, rows: {len(mine)},\n     numbers: {{{shown}}}}}")


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
        asked = {row.id: bodies(row.spec, row.shape, row.how) for row in mine}
        models = ", ".join(sorted({row.shape.name for row in mine}))
        _print(name, f"models: [{models}], ", mine, asked, lambda row: row.seconds, STEP_LIMITS)


if __name__ == "__main__":
    main()
