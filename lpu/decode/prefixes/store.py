"""A prefix cache in a folder: written whole or not at all, read only by a run that it is bound to.

`prefix.json` says what it is bound to and lists the blocks; `blocks/` is an Orbax checkpoint of their bytes.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from lpu.decode.prefixes.cache import DTYPES, Binding, KVBlock, PrefixCache
from lpu.inputs.document import FileError
from lpu.inputs.files import read_json
from lpu.outputs.ours import is_sealed, sealed_json
from lpu.outputs.write import atomic_folder
from models.version import CONTRACT

SCHEMA = f"lpu-prefix-2, contract {CONTRACT}"  # 1 had no seal over prefix.json
INDEX, BLOCKS = "prefix.json", "blocks"
NAMES = {
    "weights": "weights are",
    "tokenizer": "tokenizer is",
    "positions": "positions are",
    "arithmetic": "arithmetic is",
    "kv": "kv format is",
    "layout": "layout is",
    "adapter": "adapter is",
    "block_tokens": "block size is",
}
MOST_BYTES = 1 << 30  # of the index
HASH_DIGITS = 64  # of a sha256
Wanted = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]  # shape and type of each array
REMEDY = "Remove it, or name another folder: `lpu afd --run --kv-cache DIR` makes it anew."


def save(folder: str | Path, cache: PrefixCache) -> None:
    """Write the cache to a folder, which may be empty or hold an earlier one; anything else is refused.

    Raises FileError if it cannot be written.
    """
    with atomic_folder(folder, "--kv-cache") as part:
        write(part, cache)


def write(folder: Path, cache: PrefixCache) -> None:
    """Write the cache into an empty folder. Raises OSError if it cannot be written."""
    import orbax.checkpoint as ocp  # pyright: ignore[reportMissingTypeStubs]

    held = cache.blocks()
    index = {
        "schema": SCHEMA,
        "bound_to": bound_to(cache.binding, cache.block_tokens),
        "digest": _digest(held),
        "before": [block.before.hex() for block in held],
        "tokens": [block.tokens.tolist() for block in held],
    }
    if cache.binding.layout.states:
        index["stated"] = [block.state is not None for block in held]
    if held:  # Orbax keeps no empty arrays
        tree = {"kv": np.stack([[one.k for one in held], [one.v for one in held]])}
        if states := [one.state for one in held if one.state is not None]:
            tree["states"] = np.stack(states)
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(folder / BLOCKS, tree)
    (folder / INDEX).write_bytes(sealed_json(index))


def load(
    folder: str | Path, binding: Binding, block_tokens: int, capacity_bytes: int | None = None
) -> PrefixCache:
    """The cache of a folder. Raises FileError if it is bound to something else, not whole, or not one."""
    folder = Path(folder)
    if not (folder / INDEX).is_file():
        found = f"it holds no {INDEX}" if folder.is_dir() else "there is no such folder"
        raise FileError(f"kv-cache: {folder}: is no prefix cache, {found}. Name the folder of one.")
    index: Any = read_json(folder / INDEX, MOST_BYTES)
    try:
        schema = index.get("schema")
        if schema != SCHEMA:
            raise FileError(
                f"kv-cache: {folder}: schema is {schema!r}, this version reads {SCHEMA!r}. {REMEDY}"
            )
        if not is_sealed(folder / INDEX):
            raise FileError(f"kv-cache: {folder / INDEX}: its sha256 differs: the file was altered. {REMEDY}")
        check_bound(folder, index["bound_to"], bound_to(binding, block_tokens))
        before = [bytes.fromhex(key) for key in index["before"]]
        tokens = np.array(index["tokens"], "<i4").reshape(len(before), block_tokens)
        digest = str(index["digest"])
        stated = np.array(index["stated"] if binding.layout.states else [False] * len(before), bool)
        if stated.shape != (len(before),):
            raise ValueError(f"stated is of {stated.size} blocks, there are {len(before)}")
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FileError(f"kv-cache: {folder / INDEX}: cannot be read ({reason}). {REMEDY}") from None
    layout = binding.layout
    shape = (2, len(before), layout.layers, block_tokens, layout.kv_heads, layout.head_dim)
    wanted: Wanted = {"kv": (shape, DTYPES[binding.kv])}
    if stated.any():
        wanted["states"] = (int(stated.sum()), layout.states), np.dtype(np.float32)
    found = _read(folder / BLOCKS, wanted) if before else {}
    k, v = found.get("kv", ((), ()))
    kept = iter(found.get("states", ()))
    states = [next(kept).copy() if one else None for one in stated]
    each = zip(before, tokens, map(np.copy, k), map(np.copy, v), states, strict=True)
    blocks = [KVBlock(*one) for one in each]
    if (made := _digest(blocks)) != digest:
        raise FileError(
            f"kv-cache: {folder}: sha256 of tokens and KV bytes is {made[:16]}, "
            f"{INDEX} says {digest[:16]}. {REMEDY}"
        )
    cache = PrefixCache(binding, block_tokens, capacity_bytes)
    cache.restore(blocks)
    return cache


def _read(folder: Path, wanted: Wanted) -> dict[str, Shaped[np.ndarray, "*axes"]]:
    """The arrays of the Orbax checkpoint: keys and values of all blocks, and states of some."""
    import orbax.checkpoint as ocp  # pyright: ignore[reportMissingTypeStubs]

    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            tree: Any = checkpointer.restore(
                folder.absolute(),
                args=ocp.args.PyTreeRestore(
                    restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in wanted}
                ),
            )
        found = {name: np.asarray(tree[name]) for name in wanted}
    except Exception as error:  # Orbax and TensorStore raise many kinds
        reason = str(error).strip().split("\n")[0][:200]
        raise FileError(
            f"kv-cache: {folder}: cannot be read ({type(error).__name__}: {reason}). {REMEDY}"
        ) from error
    for name, (shape, dtype) in wanted.items():
        array = found[name]
        if (array.shape, array.dtype) != (shape, dtype):
            raise FileError(
                f"kv-cache: {folder}: holds {array.dtype} {list(array.shape)}, {INDEX} says {dtype} "
                f"{list(shape)}. {REMEDY}"
            )
    return found


def check_bound(folder: Path, held: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise FileError, one line that names every field that differs."""
    if set(held) != set(NAMES):
        raise KeyError(f"bound_to has the keys {', '.join(held)}")
    unequal = [name for name in NAMES if held[name] != wanted[name]]
    if unequal:
        said = [f"{NAMES[n]} {_short(held[n])}, this run has {_short(wanted[n])}" for n in unequal]
        raise FileError(f"kv-cache: {folder}: {'; '.join(said)}. {REMEDY}")


def bound_to(binding: Binding, block_tokens: int) -> dict[str, Any]:
    """Everything that blocks depend on, as it is written."""
    return {**binding.fields(), "block_tokens": block_tokens}


def _short(value: Any) -> str:
    """A hash by its first digits, a layout by its numbers, no adapter as none."""
    if isinstance(value, Mapping):
        return " ".join(f"{name} {number}" for name, number in value.items())
    text = str(value)
    return text[:16] if len(text) == HASH_DIGITS else text or "none"


def _digest(blocks: list[KVBlock]) -> str:
    sha = hashlib.sha256()
    for block in blocks:
        state = b"" if block.state is None else block.state.tobytes()
        for part in (block.before, block.tokens.tobytes(), block.k.tobytes(), block.v.tobytes(), state):
            sha.update(part)
    return sha.hexdigest()
