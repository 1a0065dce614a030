"""A prefix cache whose blocks lie in a folder, each in a file of its own that is there whole or not at all.

`prefix.json` says what the blocks are bound to; `N-KEY.kv` is block N: a line of JSON, then keys and values,
then the states behind its last token if they are kept. A block that gets states later is another file, and
the one before goes when that is there. A process that is killed loses no block that was written, and leaves
none that is read by half.
"""

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from lpu.decode.prefixes.cache import DTYPES, Binding, KVBlock, PrefixCache
from lpu.decode.prefixes.store import INDEX, REMEDY, bound_to, check_bound
from lpu.inputs.document import FileError
from lpu.inputs.files import read_json
from lpu.outputs.ours import is_sealed, sealed_json
from models.version import CONTRACT

SCHEMA = f"lpu-prefix-folder-1, contract {CONTRACT}"
LOCK, END, NEW = "lock", ".kv", ".new"  # LOCK: lpu.afd.modes.pd knows it too
MOST_BYTES = 1 << 20  # of the index
KEY_DIGITS = 16
STATED = "stated"  # in the line of JSON of a block with states
STATES = np.dtype(np.float32)


class KeptCache(PrefixCache):
    """The cache of a folder, which one process holds at a time; new blocks are written as they are stored.

    After a restart the order of use is that in which blocks were stored. A file that is no whole block is
    removed. Raises FileError for a folder of another run, of another process, or of something else.
    """

    def __init__(
        self,
        folder: str | Path,
        binding: Binding,
        block_tokens: int,
        capacity_bytes: int | None = None,
    ) -> None:
        super().__init__(binding, block_tokens, capacity_bytes)
        self._folder = Path(folder)
        self._files: dict[bytes, Path] = {}
        self._next = 0
        self.damaged = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._held()
            try:
                self._bind()
                self._read()
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise FileError(f"kv-cache: {folder}: {error.strerror or error}. Name another folder.") from error

    def close(self) -> None:
        """Let another process have the folder."""
        os.close(self._lock)

    def _held(self) -> int:
        """The lock of the folder, which the system frees when the process ends."""
        names = sorted(path.name for path in self._folder.iterdir())
        if INDEX not in names and (others := [one for one in names if one not in (LOCK, INDEX + NEW)]):
            raise FileError(f"kv-cache: {self._folder}: holds {others[0]}, no {INDEX}. Name another folder.")
        lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise FileError(
                f"kv-cache: {self._folder}: another process has it. Wait for it, or name another folder."
            ) from None
        return lock

    def _bind(self) -> None:
        """The index: made if there is none, else of this run."""
        path, wanted = self._folder / INDEX, bound_to(self.binding, self.block_tokens)
        if not path.exists():
            self._written(path, sealed_json({"schema": SCHEMA, "bound_to": wanted}))
            return
        index: Any = read_json(path, MOST_BYTES)
        schema = index.get("schema") if isinstance(index, dict) else None
        if schema != SCHEMA:
            raise FileError(
                f"kv-cache: {self._folder}: schema is {schema!r}, a server reads {SCHEMA!r}. {REMEDY}"
            )
        if not is_sealed(path):
            raise FileError(f"kv-cache: {path}: its sha256 differs: the file was altered. {REMEDY}")
        check_bound(self._folder, index["bound_to"], wanted)

    def _read(self) -> None:
        for path in sorted(self._folder.glob(f"*{END}")):
            block = self._block(path.read_bytes())
            if block is None or not path.name.endswith(f"-{block.key.hex()[:KEY_DIGITS]}{END}"):
                path.unlink()
                self.damaged += 1
                continue
            self._next = int(path.name.split("-")[0]) + 1
            before = self._blocks.get(block.key)
            super()._put(block.key, block, 0 if before is None else before.nbytes)
            self._keep(block.key, path)
        for path in self._folder.glob(f"*{NEW}"):
            path.unlink()
        self._evict()

    def _block(self, data: bytes) -> KVBlock | None:
        """The block of a file; None if it is not whole, or another one's."""
        head, _, rest = data.partition(b"\n")
        try:
            said = json.loads(head)
            before, tokens = bytes.fromhex(said["before"]), np.array(said["tokens"], "<i4")
            seal = said["sha256"]
        except (ValueError, KeyError, TypeError, OverflowError):
            return None
        layout, dtype = self.binding.layout, DTYPES[self.binding.kv]
        shape = (2, layout.layers, self.block_tokens, layout.kv_heads, layout.head_dim)
        size, states = int(np.prod(shape)) * dtype.itemsize, layout.states if said.get(STATED) else 0
        if len(rest) != size + states * STATES.itemsize or tokens.shape != (self.block_tokens,):
            return None
        if _seal(before, tokens, rest) != seal:
            return None
        k, v = np.frombuffer(rest[:size], dtype).reshape(shape)
        return KVBlock(before, tokens, k, v, np.frombuffer(rest[size:], STATES) if states else None)

    def _put(self, key: bytes, block: KVBlock, old: int = 0) -> None:
        super()._put(key, block, old)
        path = self._folder / f"{self._next:012d}-{key.hex()[:KEY_DIGITS]}{END}"
        self._next += 1
        body = block.k.tobytes() + block.v.tobytes()
        head: dict[str, Any] = {"before": block.before.hex(), "tokens": block.tokens.tolist()}
        if block.state is not None:
            body += block.state.tobytes()
            head[STATED] = True
        head |= {"sha256": _seal(block.before, block.tokens, body)}
        self._written(path, json.dumps(head).encode() + b"\n" + body)
        self._keep(key, path)

    def _keep(self, key: bytes, path: Path) -> None:
        """The file of a block, in the place of an earlier one without states."""
        if key in self._files:
            self._files[key].unlink(missing_ok=True)
        self._files[key] = path

    def _evict(self) -> None:
        super()._evict()
        for key in [key for key in self._files if key not in self._blocks]:
            self._files.pop(key).unlink(missing_ok=True)

    def _written(self, path: Path, data: bytes) -> None:
        """A file, on the disk when this returns, and never half of it under its name."""
        part = path.with_name(path.name + NEW)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _seal(before: bytes, tokens: np.ndarray, body: bytes) -> str:
    sha = hashlib.sha256(before + np.asarray(tokens, "<i4").tobytes())
    sha.update(body)
    return sha.hexdigest()
