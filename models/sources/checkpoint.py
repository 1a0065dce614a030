"""Weights in the contract's format as an Orbax checkpoint: written once, read tensor by tensor.

A folder holds `weights.json` (what it is, shapes, digest) and `tensors/` (the checkpoint: a tree of arrays by
the parts of their paths). It appears under its name only when it is complete.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp  # pyright: ignore[reportMissingTypeStubs]
from jaxtyping import Shaped

from models.sources.error import WeightError
from models.sources.quantise import dequantise, power_of_two, widen
from models.sources.weights import SealedTensor, Shapes, Weights, table_digest

__all__ = ["OrbaxWeights", "open_orbax", "save_orbax"]

SCHEMA = "lpu-weights-2"  # 1 had no sha256 of each tensor
REMEDY = "Write it again with `lpu convert`."
IDENTITY, TENSORS = "weights.json", "tensors"


def save_orbax(
    folder: str | Path, weights: Weights, *, model: str = "", names: Iterable[str] | None = None
) -> "OrbaxWeights":
    """Write the tensors (all unless named) to a new or empty folder and open it; memory holds all meanwhile.

    `model` is written beside them, for the reader. `weights.json` comes last: without it the folder is none.
    """
    target = Path(folder).absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise WeightError(f"{folder}: exists already. Remove it or name another folder.")
    held = {name: weights[name] for name in sorted(weights.shapes if names is None else names)}
    identity = {
        "schema": SCHEMA,
        "model": model,
        "source": weights.identity,
        "source_digest": weights.digest(),
        "tensors": {name: SealedTensor.of(array)._asdict() for name, array in held.items()},
    }
    identity["seal"] = _seal(identity)
    target.mkdir(parents=True, exist_ok=True)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(target / TENSORS, _nested(held))
    (target / IDENTITY).write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
    return open_orbax(folder)


def open_orbax(folder: str | Path) -> "OrbaxWeights":
    """The weights of a folder that `save_orbax` wrote; `WeightError` when it is missing or not complete."""
    root = Path(folder)
    path = root / IDENTITY
    if not path.is_file():
        found = f"it holds no {IDENTITY}" if root.is_dir() else "there is no such folder"
        raise WeightError(f"{root}: no checkpoint of ours, {found}. Write one with `lpu convert`.")
    try:
        identity = json.loads(path.read_text(encoding="utf-8"))
        schema = identity.get("schema")
        if schema != SCHEMA:
            raise WeightError(f"{path}: schema is {schema!r}, this version reads {SCHEMA!r}. {REMEDY}")
        if identity.pop("seal", None) != _seal(identity):
            raise WeightError(f"{path}: its seal differs: the file was altered. {REMEDY}")
        return OrbaxWeights(root, identity)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, WeightError):
            raise
        raise WeightError(f"{path}: cannot be read ({type(error).__name__}: {error}). {REMEDY}") from error


class OrbaxWeights:
    """`Weights` of an Orbax checkpoint; see `open_orbax`. `plain` gives what the codes stand for."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self.model = str(identity["model"])
        self.source = str(identity["source"])
        self.identity = f"orbax {folder.resolve().name} ({self.source})"
        self.relative_errors: dict[str, float] = {}
        self.notes: tuple[str, ...] = ()
        self._sealed = {name: SealedTensor.read(one) for name, one in identity["tensors"].items()}
        self.shapes: Shapes = {
            name: jax.ShapeDtypeStruct(one.shape, np.dtype(one.dtype)) for name, one in self._sealed.items()
        }
        if not (folder / TENSORS / "_METADATA").is_file():
            raise WeightError(
                f"{folder / TENSORS}: no complete Orbax checkpoint (no _METADATA), {IDENTITY} lists "
                f"{len(self.shapes)} tensors. Copy the whole folder, or write it again with `lpu convert`."
            )

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "*axes"]:
        """The tensor of that path, read now and held against its sha256."""
        if name not in self.shapes:
            raise WeightError(f"{self.folder}: no tensor {name} among {len(self.shapes)}. Check the model.")
        shape = self.shapes[name]
        wanted = _nested({name: np.broadcast_to(np.zeros((), shape.dtype), shape.shape)})
        arguments = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=True,
        )
        try:
            with ocp.PyTreeCheckpointer() as checkpointer:
                tree: Any = checkpointer.restore((self.folder / TENSORS).absolute(), args=arguments)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            reason = str(error).strip().split("\n")[0][:200]
            raise WeightError(
                f"{self.folder / TENSORS}: {name} cannot be read ({type(error).__name__}: {reason}). "
                "Copy the whole folder, or write it again with `lpu convert`."
            ) from error
        array = np.asarray(jax.tree.leaves(tree)[0])
        found, stated = SealedTensor.of(array), self._sealed[name]
        if found[:2] != stated[:2]:
            raise WeightError(
                f"{self.folder / TENSORS}: {name} is {array.dtype} {list(array.shape)}, {IDENTITY} says "
                f"{shape.dtype} {list(shape.shape)}. {REMEDY}"
            )
        if found.sha256 != stated.sha256:
            raise WeightError(
                f"{self.folder / TENSORS}: sha256 of {name} is {found.sha256[:16]}, {IDENTITY} says "
                f"{stated.sha256[:16]}: the file was altered. {REMEDY}"
            )
        return array

    def plain(self, name: str) -> Shaped[np.ndarray, "*axes"]:
        """The tensor in f32; of codes their values, as the checkpoint holds no others."""
        if name.endswith(".codes"):
            path = name.removesuffix("codes")
            if f"{path}scale" in self.shapes:
                return dequantise(self[name], None) * self[f"{path}scale"]
            return dequantise(self[name], self[f"{path}exponent"])
        values = self[name]
        if name.endswith(".halves"):
            return widen(values) * power_of_two(self[name.removesuffix("halves") + "exponent"])
        return values if name.endswith(".exponent") else widen(values)

    def digest(self) -> str:
        """Sha256 over the tensors (`content_digest`): each is held against its own when it is read."""
        return table_digest(self._sealed.items())


def _seal(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _nested(tensors: dict[str, Shaped[np.ndarray, "*axes"]]) -> dict[str, Any]:
    """A tree by the parts of the paths, as Orbax keeps it."""
    root: dict[str, Any] = {}
    for name, array in tensors.items():
        *parents, leaf = name.split(".")
        node = root
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return root
