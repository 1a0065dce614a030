"""Certify a Hugging Face folder (config.json and safetensors): our bits, and how near they are to plain f32.

python examples/huggingface_folder/run_folder.py [FOLDER]; without one, the test fixture of this repository.
"""

import sys
from pathlib import Path

from compiler.options import CompileOptions
from lpu import api

FIXTURES = Path(__file__).parents[2] / "tests" / "models" / "data"


def main() -> None:
    folders = (
        [Path(sys.argv[1])]
        if len(sys.argv) > 1
        else sorted(path.parent for path in FIXTURES.glob("*/config.json"))
    )
    if not folders:
        sys.exit(f"{FIXTURES} holds no folder with a config.json. Give a folder: run_folder.py FOLDER")
    for folder in folders:
        certificate = api.certify(folder, rack="quad", options=CompileOptions(tp=2), context=[80], tokens=8)
        print(f"\n{folder.name}: program {certificate.program_sha256[:16]}")
        print(f"  tokens {list(certificate.tokens[0])}")
        for one in certificate.comparisons:
            print(f"  {one.name:<28} {'equal' if one.equal else one.detail}")
        print(f"  {certificate.numerical_equivalence}\n  {certificate.quantisation}")
        if not certificate.ok:
            sys.exit(1)


if __name__ == "__main__":
    main()
