"""What lpu wrote and nobody changed: a folder by its sealed list of files, a file by the seal at its end.

`lpu-files.json` in a folder lists every other file with its sha256; JSON files end with a key `sha256` over
all bytes before it, pages with a comment, traces of Perfetto with a packet, compressed ones have it in the
comment of their header, over all bytes after that. A table is known by its first line.
"""

import gzip
import hashlib
import json
import os
import stat
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, BinaryIO

LIST, SCHEMA = "lpu-files.json", "lpu-files/1"
TABLE = b"model,rack,strategy,seed,"
_LIST_BYTES = 1 << 24  # longer ones are not ours
_HEX = 64
_ENDS = ((b',\n "sha256": "', b'"\n}\n'), (b"<!-- sha256 ", b" -->\n"), (b"lpu-sha256 ", b""))
_GZIP = b"\x1f\x8b\x08\x10\x00\x00\x00\x00\x02\xff" + b"lpu-sha256 "  # a header with a comment
_MOVE = "Move it away, or choose another"


def sealed_json(value: dict[str, Any]) -> bytes:
    """The object as a JSON file that `foreign` knows again."""
    body = json.dumps(value, indent=1).encode().removesuffix(b"\n}")
    return body + f',\n "sha256": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def sealed_page(body: bytes) -> bytes:
    """HTML with the seal as its last line."""
    return body + b"<!-- sha256 " + hashlib.sha256(body).hexdigest().encode() + b" -->\n"


def sealed_trace(body: bytes) -> bytes:
    """A trace of Perfetto with the seal in a last packet of its own, which viewers pass over."""
    text = b"lpu-sha256 " + b"0" * _HEX
    event = b"\x0a" + bytes([len(text)]) + text  # TestEvent.str
    packet = b"\xa2\x38" + bytes([len(event)]) + event  # TracePacket.for_testing, field 900
    whole = body + b"\x0a" + bytes([len(packet)]) + packet
    whole = whole[: -len(text)]
    return whole + b"lpu-sha256 " + hashlib.sha256(whole).hexdigest().encode()


def sealed_gzip(body: bytes) -> bytes:
    """The bytes compressed, the seal in the header; the same for the same bytes."""
    packed = gzip.compress(body, 9, mtime=0)[10:]  # after the header that has no comment
    return _GZIP + hashlib.sha256(packed).hexdigest().encode() + b"\x00" + packed


def write_list(folder: Path) -> None:
    """Seal a folder: what it holds now is what lpu wrote."""
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
    files = {str(path.relative_to(folder)): _sha256(path) for path in paths}
    body = {"schema": SCHEMA, "files": files}
    (folder / LIST).write_bytes(sealed_json(body))


def foreign(path: Path, option: str = "-o") -> str:
    """Why a path must not be replaced, in one sentence that names what is not ours; "" if it may be.

    What is missing or empty may always be. Raises OSError if it cannot be looked into.
    """
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return ""
    if stat.S_ISDIR(kind):
        return _foreign_entry(path, option)
    if not stat.S_ISREG(kind):
        return f"{path}: is neither a file nor a folder. Choose another {option}."
    return "" if _is_ours(path) else f"{path}: is a file that lpu did not write. {_MOVE} {option}."


def _foreign_entry(folder: Path, option: str) -> str:
    """The same of a folder: the first of its entries that is not ours, by name."""
    listed = _listed(folder)
    parents = {str(parent) for name in listed for parent in Path(name).parents}
    for entry in _entries(folder, parents):
        name = str(Path(entry.path).relative_to(folder))
        if entry.is_dir(follow_symlinks=False):
            return f"{folder}: holds {name}/, which lpu did not write. {_MOVE} {option}."
        if name not in listed:
            return f"{folder}: holds {name}, which lpu did not write. {_MOVE} {option}."
        if entry.is_symlink() or (name != LIST and _sha256(folder / name) != listed[name]):
            return f"{folder}: holds {name}, which was changed after lpu wrote it. {_MOVE} {option}."
    return ""


def _listed(folder: Path) -> dict[str, str]:
    """The files that a folder's list names with their sha256, itself too; empty if there is no such list."""
    path = folder / LIST
    try:
        known = path.is_file() and not path.is_symlink() and path.stat().st_size <= _LIST_BYTES
        if not known or not is_sealed(path):
            return {}
        body = json.loads(path.read_bytes())
        files = {str(name): str(digest) for name, digest in body["files"].items()}
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return {}
    return files | {LIST: ""} if body.get("schema") == SCHEMA else {}


def _entries(folder: Path, parents: Container[str], inside: str = "") -> Iterator[os.DirEntry[str]]:
    """What a folder holds, in order: the entries of inner folders that are in `parents`, all others whole."""
    with os.scandir(folder / inside) as found:
        for entry in sorted(found, key=lambda entry: entry.name):
            name = os.path.join(inside, entry.name)
            if entry.is_dir(follow_symlinks=False) and name in parents:
                yield from _entries(folder, parents, name)
            else:
                yield entry


def _is_ours(path: Path) -> bool:
    """Whether a file is empty, sealed, or a table of a comparison."""
    if path.stat().st_size == 0:
        return True
    with path.open("rb") as file:
        if file.read(len(TABLE)) == TABLE:
            return True
    return is_sealed(path)


def is_sealed(path: Path) -> bool:
    """Whether the seal at the end of a file, or in its header, is that of the other bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(len(_GZIP) + _HEX + 1)
        if head.startswith(_GZIP):
            return _hex(file, size) == head[len(_GZIP) : -1]
        for before, after in _ENDS:
            length = len(before) + _HEX + len(after)
            if size < length:
                continue
            file.seek(size - length)
            end = file.read()
            if end.startswith(before) and end.endswith(after):
                file.seek(0)
                return _hex(file, size - length) == end[len(before) :][:_HEX]
    return False


def _hex(file: BinaryIO, left: int) -> bytes:
    """The sha256 of at most the next `left` bytes."""
    sha = hashlib.sha256()
    while left and (part := file.read(min(left, 1 << 20))):
        sha.update(part)
        left -= len(part)
    return sha.hexdigest().encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
