"""Print the numbers of every engine, fitted to all measured steps that count: lpu/gpu/served/engines.yaml."""

import numpy as np

from lpu.gpu.served.fit import fit
from lpu.gpu.served.step import bodies
from lpu.validate.cases.gpu.step_rows import step_rows


def main() -> None:
    """Print the YAML."""
    print("# By benchmarks/calibrate_engines.py, from lpu/validate/cases/gpu/step_points.csv. docs/gpu.md")
    print("engines:")
    every = [row for row in step_rows() if not row.left_out]
    for name in sorted({row.engine for row in every}):
        mine = [row for row in every if row.engine == name]
        asked = [bodies(row.spec, row.shape, row.how) for row in mine]
        numbers = fit(asked, [row.seconds for row in mine])
        modelled = np.array([sum(numbers[key] * one[key] for key in numbers) for one in asked])
        errors = np.abs(modelled / np.array([row.seconds for row in mine]) - 1)
        shown = ", ".join(f"{key}: {round(value, 4)}" for key, value in numbers.items())
        print(
            f"  - {{name: {name}, band: {np.quantile(errors, 0.9):.2f}, rows: {len(mine)},\n"
            f"     numbers: {{{shown}}}}}"
        )


if __name__ == "__main__":
    main()
