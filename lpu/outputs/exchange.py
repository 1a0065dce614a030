"""Names in a file system that change hands at once, where the system can do that (Linux)."""

import ctypes
import errno
import os
import sys
from pathlib import Path

_HERE, _NO_REPLACE, _EXCHANGE = -100, 1, 2  # of renameat2(2)


def move_new(path: Path, name: Path) -> None:
    """Give `path` a name that nothing has. Raises FileExistsError."""
    if not _renameat2(path, name, _NO_REPLACE):
        if os.path.lexists(name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(name))
        path.rename(name)


def exchange(one: Path, other: Path, aside: Path) -> None:
    """Each gets the name of the other; where it cannot be done at once, by way of the name `aside`."""
    if not _renameat2(one, other, _EXCHANGE):
        other.rename(aside)
        one.rename(other)
        aside.rename(one)


def _renameat2(old: Path, new: Path, flags: int) -> bool:
    """Whether it was done; False where system or file system cannot. Raises OSError."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if call is None:
        return False
    if call(_HERE, os.fsencode(old), _HERE, os.fsencode(new), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(number, os.strerror(number), str(new))
