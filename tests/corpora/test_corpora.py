"""A seeded sample of every corpus; `make acceptance` takes them whole (tests/corpora/acceptance.py)."""

from pathlib import Path

import acceptance
import pytest
from corpora import CORPORA
from corpus import SHARE, Corpus

STEPS, CHUNKS = CORPORA["steps of drawn models"], CORPORA["chunks of drawn models"]
# Cases of the samples that do not compile, each with a reason that a user would be told.
REFUSED: dict[str, set[int]] = {STEPS.name: set(), CHUNKS.name: set()}


def came_to(corpus: Corpus, cases: list[int]) -> list[str]:
    words = [corpus.hold(case) for case in cases]
    assert sum(word in corpus.good for word in words) >= corpus.least * len(words), words
    return words


def test_a_drawn_model_on_a_drawn_rack_has_the_bits_of_one_device() -> None:
    """One that `make test` takes; the samples below are of `make test-all`."""
    assert STEPS.hold(2) == "held"


@pytest.mark.slow
@pytest.mark.parametrize("case", STEPS.sample())
def test_many_drawn_models_have_the_bits_of_one_device(case: int) -> None:
    assert STEPS.hold(case) == ("refused" if case in REFUSED[STEPS.name] else "held")


@pytest.mark.slow
@pytest.mark.parametrize("case", CHUNKS.sample())
def test_chunks_of_many_drawn_models_have_the_bits_of_single_steps(case: int) -> None:
    assert CHUNKS.hold(case) == ("refused" if case in REFUSED[CHUNKS.name] else "held")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "optima of drawn placements",
        "malformed inputs",
        "killed writers",
        "programs of the catalog",
        "racks numbered anew",
    ],
)
def test_a_sample_of_a_corpus_holds(name: str) -> None:
    came_to(CORPORA[name], CORPORA[name].sample())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("mutated programs", 0.002),
        ("reworded programs", 0.01),
        ("hostile folders", 0.001),
        ("enlarged machines", 0.01),
        ("steps of drawn kinds", 0.02),
    ],
)
def test_a_small_sample_of_a_corpus_holds(name: str, share: float) -> None:
    came_to(CORPORA[name], CORPORA[name].sample(share))


def test_a_sample_is_two_percent_and_the_same_every_time() -> None:
    for corpus in CORPORA.values():
        cases = corpus.sample()
        assert cases == corpus.sample() == sorted(set(cases))
        assert len(cases) >= SHARE * corpus.size
        assert set(cases) <= set(range(corpus.size))


@pytest.mark.slow
def test_acceptance_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    corpus, path = CORPORA["optima of drawn placements"], tmp_path / "lines.jsonl"
    first = acceptance.work(corpus, [0, 1], path, jobs=1)
    path.write_text(path.read_text()[:-9])  # stopped while the last line was written
    kept = acceptance.done(path)
    assert len(kept) == 1
    again = acceptance.work(corpus, [0, 1], path, jobs=1)
    assert {n: line["came_to"] for n, line in again.items()} == {0: "held", 1: "held"}
    assert kept.items() <= again.items()
    assert acceptance.row(corpus, first)[1]


def test_a_case_that_fails_and_a_corpus_that_only_refuses_do_not_pass() -> None:
    corpus = Corpus(name="made up", size=10, hold=lambda case: "held")
    held, refused = {"came_to": "held", "user_seconds": 1.0}, {"came_to": "refused", "user_seconds": 0.0}
    assert acceptance.row(corpus, dict.fromkeys(range(9), held) | {9: refused})[1]
    assert not acceptance.row(corpus, dict.fromkeys(range(8), held) | {8: refused, 9: refused})[1]
    assert not acceptance.row(corpus, dict.fromkeys(range(9), held) | {9: held | {"came_to": "FAILED"}})[1]
