"""What the verb `study` asks for: models, contexts as "8k..1M" or "8k,128k", a rack."""

from collections.abc import Sequence
from pathlib import Path

from compiler.errors import OptionError
from lpu.folder import Progress, quiet
from lpu.inputs.files import read_rack
from lpu.study.context import ContextStudy, studied

_UNITS = {"k": 1 << 10, "M": 1 << 20}
MOST = 1 << 30


def study_context(
    models: str | Sequence[str],
    *,
    rack: str | Path = "lpx",
    contexts: str | Sequence[int] = "8k..1M",
    programs: bool = True,
    progress: Progress = quiet,
) -> ContextStudy:
    """Models, by name with commas between or as a list, at growing contexts on a rack.

    programs: compile those models that can be compiled. Raises OptionError, FileError, UnknownLayersError.
    """
    names = [name.strip() for name in models.split(",")] if isinstance(models, str) else list(models)
    asked = contexts_of(contexts) if isinstance(contexts, str) else tuple(contexts)
    return studied(names, read_rack(rack), asked, programs=programs, progress=progress)


def contexts_of(text: str) -> tuple[int, ...]:
    """Contexts in tokens: a list with commas, or from one to another, doubled each time.

    Raises OptionError.
    """
    first, dots, last = text.partition("..")
    if not dots:
        return tuple(_tokens(one, text) for one in text.split(","))
    begin, end = _tokens(first, text), _tokens(last, text)
    if begin > end:
        raise OptionError("study", f"--contexts {text}", f"goes from {begin} down to {end}", "Turn it round.")
    out = [begin]
    while 2 * out[-1] <= end:
        out.append(2 * out[-1])
    return tuple(out)


def _tokens(word: str, text: str) -> int:
    """A number of tokens: 8192, 8k or 1M."""
    word = word.strip()
    unit = _UNITS.get(word[-1:], 1)
    digits = word[:-1] if unit > 1 else word
    if not (digits.isascii() and digits.isdigit()) or not 0 < int(digits) * unit <= MOST:
        reason = f"{word!r} is no number of tokens from 1 to {MOST:_}"
        raise OptionError("study", f"--contexts {text}", reason, "Write 8192, 8k, 1M, 8k..1M or 8k,128k.")
    return int(digits) * unit
