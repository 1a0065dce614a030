"""Print the numbers of every expert and MLA kernel, fitted to all of its rows: `... calibrate_gpu.py moe`.

The output is lpu/gpu/experts/kernels.yaml (moe) or lpu/gpu/latent.yaml (mla_decode).
"""

import sys

from lpu.validate.cases.gpu.expert_rows import FORMS, counted, rows


def main(op: str) -> None:
    """Print the YAML of one op."""
    print(
        f"# By benchmarks/calibrate_gpu.py {op}, from lpu/validate/cases/gpu/expert_points.csv. docs/gpu.md"
    )
    print("kernels:")
    form, columns = FORMS[op]
    every = counted(op, rows())
    for gpu, group in dict.fromkeys((row.gpu, row.group) for row in every):
        mine = [row for row in every if (row.gpu, row.group) == (gpu, group)]
        numbers = form.fit(columns([row.asked for row in mine]), [row.seconds for row in mine])
        about = f"kernel: {group[1]}, format: {group[2]}" if op == "moe" else f"kv: {group[2]}"
        shown = ", ".join(f"{name}: {value:.5g}" for name, value in numbers.items())
        print(f"  - {{gpu: {gpu}, {about}, rows: {len(mine)},\n     numbers: {{{shown}}}}}")


if __name__ == "__main__":
    main(sys.argv[1])
