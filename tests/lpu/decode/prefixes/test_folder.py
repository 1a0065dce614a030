"""Blocks in files of their own: whole or not at all, one process at a time, of one run alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prefixes import BLOCK, binding, filled
from small_sides import ids

from lpu.decode.prefixes.cache import Binding
from lpu.decode.prefixes.folder import KeptCache
from lpu.decode.prefixes.store import save
from lpu.inputs.document import FileError

BOUND = binding()
HELD = filled(BOUND).blocks()
WRITER = """
import sys
import numpy as np
from prefixes import BLOCK, binding
from small_sides import ids
from lpu.decode.prefixes.folder import KeptCache
cache = KeptCache(sys.argv[1], binding(), BLOCK)
for i in range(10_000):
    tokens = ids(BLOCK, i)
    k = np.full((2, BLOCK, 1, 4), i % 256, np.uint8)
    cache.store(tokens, k, k)
    print(i, flush=True)
"""


def kept(folder: Path, bound: Binding = BOUND, capacity: int | None = None) -> KeptCache:
    return KeptCache(folder, bound, BLOCK, capacity)


def stored(folder: Path) -> list[bytes]:
    """A folder with the blocks of the example; their keys."""
    cache = kept(folder)
    cache.restore(HELD)
    cache.close()
    return [block.key for block in HELD]


def test_blocks_come_back_to_the_byte(tmp_path: Path) -> None:
    keys = stored(tmp_path)
    again = kept(tmp_path)
    for ours, theirs in zip(again.blocks(), HELD, strict=True):
        assert ours.before == theirs.before
        assert [one.tobytes() for one in ours[1:4]] == [one.tobytes() for one in theirs[1:4]]
    assert [block.key for block in again.blocks()] == keys
    assert again.damaged == 0


def test_what_is_evicted_leaves_the_folder(tmp_path: Path) -> None:
    stored(tmp_path)
    kept(tmp_path, capacity=2 * HELD[0].nbytes).close()
    assert [block.key for block in kept(tmp_path).blocks()] == [block.key for block in HELD[-2:]]


def test_a_block_that_is_not_whole_is_never_read(tmp_path: Path) -> None:
    keys = stored(tmp_path)
    first, second, *_ = sorted(tmp_path.glob("*.kv"))
    first.write_bytes(first.read_bytes()[:-1])
    data = bytearray(second.read_bytes())
    data[-1] ^= 1
    second.write_bytes(data)
    (tmp_path / "000000000009-ab.kv.new").write_bytes(b"half")
    again = kept(tmp_path)
    assert [block.key for block in again.blocks()] == keys[2:]
    assert again.damaged == 2
    assert not list(tmp_path.glob("*.new"))


def test_a_folder_is_of_one_run_one_process_and_nothing_else(tmp_path: Path) -> None:
    stored(tmp_path / "kv")
    with pytest.raises(FileError, match="kv format is fp8, this run has fp16"):
        kept(tmp_path / "kv", binding(kv="fp16"))
    cache = kept(tmp_path / "kv")
    with pytest.raises(FileError, match="another process has it"):
        kept(tmp_path / "kv")
    cache.close()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "final.tex").write_text("years of work")
    with pytest.raises(FileError, match=r"holds final\.tex, no prefix\.json"):
        kept(tmp_path / "thesis")
    save(tmp_path / "afd", filled(BOUND))
    with pytest.raises(FileError, match="schema is 'lpu-prefix-2, contract 2', a server reads"):
        kept(tmp_path / "afd")


def test_a_process_that_is_killed_loses_no_block_that_it_wrote(tmp_path: Path) -> None:
    path = os.pathsep.join(sys.path)
    words = [sys.executable, "-c", WRITER, str(tmp_path / "kv")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(40)][-1]
        process.send_signal(signal.SIGKILL)
    cache = kept(tmp_path / "kv")
    assert cache.damaged == 0
    assert len(cache) >= told + 1
    assert cache.known([*ids(BLOCK, told), 0]) == BLOCK
