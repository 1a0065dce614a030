"""What reading a folder raises that is no program, or was cut, damaged or made up, and what is said of it."""

import struct
import zipfile
import zlib
from pathlib import Path

DAMAGE = (
    *(OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError),
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError),
    *(MemoryError, RecursionError, SyntaxError),
)
"""What files of JSON, zip and NPY raise."""


def why(error: Exception) -> str:
    """What went wrong, in one line: of a record that does not fit its type, the first key that does not."""
    from pydantic import ValidationError

    match error:
        case ValidationError():
            first = error.errors(include_url=False)[0]
            return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        case NotADirectoryError():
            return "it is a file"
        case FileNotFoundError() if error.filename:
            missing = Path(error.filename)
            return f"it has no {missing.name}" if missing.parent.is_dir() else "there is no such folder"
        case KeyError():
            return f"manifest.json or columns.npz lacks {error}"
        case _:
            return (str(error) or type(error).__name__).splitlines()[0]
