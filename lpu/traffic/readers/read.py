"""Opens a trace by what is in it: a Mooncake, Azure or BurstGPT file, or distributions in YAML."""

from pathlib import Path

from lpu.inputs.document import FileError
from lpu.traffic.readers.azure import is_azure, read_azure
from lpu.traffic.readers.burstgpt import is_burstgpt, read_burstgpt
from lpu.traffic.readers.drawn import DrawnTraffic, drawing_of
from lpu.traffic.readers.lines import At, lines_of
from lpu.traffic.readers.mooncake import read_mooncake
from lpu.traffic.trace import Trace

KNOWN = (
    "a Mooncake trace (JSON lines), an Azure table (TIMESTAMP,ContextTokens,GeneratedTokens), "
    "a BurstGPT table (Timestamp,Request tokens,Response tokens), or distributions in YAML (docs/serving.md)"
)


def read_trace(path: str | Path) -> Trace | DrawnTraffic:
    """The requests of a file, or what they are to be drawn from. Raises FileError, at file and line."""
    at = At(Path(path))
    if at.path.suffix in (".yaml", ".yml"):
        return drawing_of(at.path)
    lines = lines_of(at)
    first = next(lines, None)
    lines.close()
    if first is None:
        raise FileError(f"{path}:1: is empty. Give {KNOWN}.")
    fresh = At(at.path)
    if first.lstrip().startswith("{") or at.path.suffix in (".jsonl", ".json"):
        found = read_mooncake(fresh)
    elif is_azure(first):
        found = read_azure(fresh)
    elif is_burstgpt(first):
        found = read_burstgpt(fresh)
    else:
        raise FileError(f"{path}:{at.line}: no trace that is known. Give {KNOWN}.")
    if not len(found):
        raise FileError(f"{path}:{fresh.line}: holds no request with an answer ({found.left_out} without).")
    return found
