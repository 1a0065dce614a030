"""Faults as a user writes them: names, YAML files of several, and behind the name of a rack."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fabric.faults.broken import break_rack
from fabric.faults.fault import Fault, FaultError, parse_fault
from fabric.rack import Rack
from lpu.inputs.document import FileError, parse, read_document

APART = ";"  # between the name of a rack and its faults
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultFile:
    """Several faults, as a file lists them."""

    faults: tuple[str, ...]


def read_faults(texts: Sequence[str]) -> tuple[Fault, ...]:
    """The faults of names and of files, in their order. Raises FileError."""
    found: list[Fault] = []
    for text in texts:
        if Path(text).suffix in SUFFIXES:
            found += _of_file(Path(text))
        else:
            found.append(_of_name(text))
    return tuple(found)


def with_faults(rack: Rack, texts: Sequence[str]) -> Rack:
    """The rack without what these names and files say is broken. Raises FileError."""
    try:
        return break_rack(rack, read_faults(texts))
    except FaultError as error:
        raise FileError(str(error)) from None


def named_with(rack: str, texts: Sequence[str]) -> str:
    """One text for a rack with faults, which `read_rack` reads: lpx;chip:17;link:3-4. Raises FileError."""
    return APART.join([rack, *(str(one) for one in read_faults(texts))])


def _of_name(text: str) -> Fault:
    try:
        return parse_fault(text)
    except FaultError as error:
        raise FileError(str(error)) from None


def _of_file(path: Path) -> list[Fault]:
    document = read_document(path)
    out: list[Fault] = []
    for i, text in enumerate(parse(FaultFile, document).faults):
        try:
            out.append(parse_fault(text))
        except FaultError as error:
            message = str(error).removeprefix("faults: ")
            raise FileError(document.complaint(("faults", i), message)) from None
    return out
