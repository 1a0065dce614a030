"""Holds the contract's JAX functions against every golden vector, under several settings of XLA.

    .venv/bin/python benchmarks/contract_vectors.py            (all settings, about 3 minutes of user CPU)
    .venv/bin/python benchmarks/contract_vectors.py jit avx    (some)

Each setting is a process of its own that compiles anew. Prints, per op, how many values differ in a bit and
how many were compared; exit code 1 if any differs. Source of the vectors: docs/facts/contract2.md section 12.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS: dict[str, tuple[str, bool]] = {  # XLA_FLAGS, compiled as a whole
    "jit": ("", True),
    "eager": ("", False),  # op by op: the first case of each op
    "opt0": ("--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true", True),
    "avx": ("--xla_cpu_max_isa=AVX", True),  # neither FMA nor AVX-512
    "devices": ("--xla_force_host_platform_device_count=8", True),
}


def count(jit: bool) -> dict[str, tuple[int, int]]:
    """Per op, values compared and values that differ."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from contract_forms.every import FORMS
    from contract_forms.form import cases, compute, differing, op_of

    found: dict[str, tuple[int, int]] = {}
    for name, case in cases().items():
        op = op_of(name)
        if op not in FORMS or (not jit and op in found):
            continue
        for array, got in compute(name, case, jit=jit).items():
            compared, wrong = found.get(op, (0, 0))
            found[op] = compared + case[array].size, wrong + differing(got, case[array])
    return found


def child(setting: str) -> dict[str, tuple[int, int]]:
    """The counts of a setting, from a process that was started with it."""
    flags, _ = SETTINGS[setting]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(
        [sys.executable, __file__, "--in", setting], env=environment, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def main(words: list[str]) -> int:
    if words[:1] == ["--in"]:
        print(json.dumps(count(SETTINGS[words[1]][1])))
        return 0
    if unknown := [word for word in words if word not in SETTINGS]:
        print(f"{unknown[0]!r} is no setting; there are {', '.join(SETTINGS)}.", file=sys.stderr)
        return 2
    chosen = words or list(SETTINGS)
    found = {setting: child(setting) for setting in chosen}
    ops = sorted({op for counts in found.values() for op in counts})
    print(f"{'differ / compared':<18}" + "".join(f"{setting:>16}" for setting in chosen))
    for op in ops:
        print(f"{op:<18}" + "".join(f"{_cell(found[setting], op):>16}" for setting in chosen))
    totals = {
        setting: [sum(column) for column in zip(*counts.values(), strict=True)]
        for setting, counts in found.items()
    }
    print(f"{'all':<18}" + "".join(f"{f'{wrong} / {compared}':>16}" for compared, wrong in totals.values()))
    return int(any(wrong for _, wrong in totals.values()))


def _cell(counts: dict[str, tuple[int, int]], op: str) -> str:
    if op not in counts:
        return "-"
    compared, wrong = counts[op]
    return f"{wrong} / {compared}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
