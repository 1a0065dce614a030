"""Whether we agree with transformers on the folders that hf_variants.py made: not part of the test suite.

    python benchmarks/hf_agreement.py DIR [NAME ...]

A folder agrees if its logits in plain f32 are within 1e-5 of transformers' largest; one is refused in one
line that names its file, and the key or tensor. `alone`: transformers does not take its config.json, we do.
Anything else is a fault, and the exit code is 1.
"""

import argparse
import sys
import traceback
from collections import Counter
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from models.contract.numerics import enable
from models.contract.plain import plain, plain_cache
from models.sources.error import WeightError
from models.sources.huggingface.config import read_config
from models.sources.huggingface.folder import open_folder
from models.sources.weights import check_shapes, weight_shapes
from models.step import family_step

CONTEXT, CLOSE = 24, 1e-5


def outcome(folder: Path) -> tuple[str, str]:
    """(agrees, refused, wrong or traceback; in words) of a folder."""
    try:
        if not any(folder.glob("*.safetensors")):  # transformers does not take the config
            read_config(folder)
            return "alone", "accepted, transformers: " + (folder / "refused.txt").read_text()[:100]
        weights = open_folder(folder)
        if weights.config.longest < CONTEXT:
            raise WeightError(f"{folder}/config.json: sliding_window: the longest context is shorter")
        step = family_step(weights.config, batch=1, context=CONTEXT, chunk=CONTEXT)
        check_shapes(weights, weight_shapes(step))
        params = {name: jnp.asarray(weights.plain(name)) for name in weights.shapes}
        params |= {name: jnp.asarray(value) for name, value in step.plain_constants.items()}
        if not (folder / "expected.npz").is_file():
            return "alone", "accepted, transformers: " + (folder / "refused.txt").read_text()[:100]
        with np.load(folder / "expected.npz") as expected:
            at = jnp.arange(CONTEXT, dtype=jnp.int32)
            got = np.asarray(
                plain(step.fn)(params, jnp.asarray(expected["tokens"]), at, plain_cache(step.cache))[0]
            )
            error = float(np.abs(got - expected["logits"]).max() / np.abs(expected["logits"]).max())
        return ("agrees" if error <= CLOSE else "wrong"), f"{error:.1e}"
    except WeightError as error:
        named = str(folder) in str(error) and "\n" not in str(error)
        return ("refused" if named else "unnamed"), str(error).replace(f"{folder.parent}/", "")
    except Exception as error:
        return "traceback", "".join(traceback.format_exception_only(error)).strip()


def check(folder: Path, names: list[str]) -> int:
    """Print what becomes of every folder, then how many of each; 1 if there is a fault."""
    enable()
    counts: Counter[str] = Counter()
    for one in sorted(at for at in folder.iterdir() if at.is_dir() and (not names or at.name in names)):
        found, words = outcome(one)
        counts[found] += 1
        print(f"{found:<10}{one.name:<36}{words}", flush=True)
    print(f"{sum(counts.values())} folders: {', '.join(f'{n} {name}' for name, n in sorted(counts.items()))}")
    return int(any(counts[name] for name in ("wrong", "unnamed", "traceback")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="of the folders; all of them without")
    given = parser.parse_args()
    sys.exit(check(given.folder, given.names))
