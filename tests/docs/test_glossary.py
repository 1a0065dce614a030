"""The glossary against the code: sorted, each term once, used somewhere, defined where it says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs/glossary.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in GLOSSARY.read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| term ")
]
TERMS = [row[0] for row in ROWS]
ROOMS = ("lpu", "compiler", "fabric", "models")
SOURCES = [
    *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))),
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if path != GLOSSARY),
    ROOT / "README.md",
]
TEXT = " ".join(" ".join(path.read_text() for path in SOURCES).lower().split())


def test_terms_are_sorted_and_none_is_there_twice() -> None:
    assert len(TERMS) > 50
    assert [term.lower() for term in TERMS] == sorted({term.lower() for term in TERMS})


@pytest.mark.parametrize("term", TERMS)
def test_every_term_is_used_in_code_or_docs(term: str) -> None:
    assert re.search(rf"\b{re.escape(term.lower())}(e?s)?\b", TEXT), term


def test_every_term_is_defined_in_a_file_that_uses_one_of_its_words() -> None:
    for term, _, where in ROWS:
        path = ROOT / where.strip("`| ")
        texts = [one.read_text() for one in (path.rglob("*.py") if path.is_dir() else [path])]
        words = re.split(r"[ -]", term.lower())
        assert any(word in text.lower() for text in texts for word in words), (term, where)


def test_every_qualified_term_that_an_entry_names_has_an_entry() -> None:
    outside = {"gpu kernel", "vector lane", "weight slot"}  # explained in the entry that names them
    for term, meaning, _ in ROWS:
        named = {word.lower() for word in re.findall(r"[Aa]n? \*([^*]+)\*", meaning)}
        assert named <= {one.lower() for one in TERMS} | outside, term
