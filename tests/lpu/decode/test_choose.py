"""What ends a sequence, and that a draw is the same wherever and beside whatever it is made."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compiler.options import CompileOptions
from lpu import api
from lpu.decode.choose import Choice, RunOptions, choice_of, finish_of, until_stop
from lpu.decode.generate import BatchIds, BatchResult, Prefill, generate, replay
from lpu.inputs.document import FileError
from lpu.inputs.ends import end_tokens
from lpu.inputs.text import EOS, byte_tokenizer
from models.contract.sampling import Sampling

LLAMA = Path(__file__).parents[2] / "models" / "data" / "tiny-llama"


def counting(tokens: BatchIds, at: BatchIds) -> BatchResult:
    """A model of ten tokens whose most likely next one is the token after the last."""
    logits = np.zeros((len(tokens), 10), np.float32)
    logits[np.arange(len(tokens)), (tokens + 1) % 10] = 1
    return logits, ((tokens + 1) % 10).astype(np.int32)


def until(*ends: int) -> Choice:
    return choice_of(RunOptions(), frozenset(ends), None)


def test_each_sequence_ends_at_its_own_end_token() -> None:
    done = generate(counting, [[1], [6, 7]], 6, 3, how=until(4, 9))
    assert done.tokens == ((2, 3, 4), (8, 9))
    assert [len(rows) for rows in done.logits] == [3, 3]
    assert done.steps == 3
    assert generate(counting, [[1], [6, 7]], 6, 3).tokens == ((2, 3, 4, 5, 6, 7), (8, 9, 0, 1, 2, 3))


def test_a_prompt_in_chunks_ends_at_the_same_token() -> None:
    def take(tokens: BatchIds, at: BatchIds, sequence: int) -> BatchResult:
        return counting(tokens, at)

    for end in (4, 5):
        whole = generate(counting, [[1, 2, 3], [7]], 6, 2, how=until(end))
        chunks = generate(counting, [[1, 2, 3], [7]], 6, 2, prefill=Prefill(2, take), how=until(end))
        assert whole.tokens == chunks.tokens
        assert whole.digest == chunks.digest


def test_a_replay_takes_sequences_of_unequal_length() -> None:
    done = generate(counting, [[1], [6, 7]], 6, 2, how=until(4, 9))
    again = replay(lambda tokens, at: (counting(tokens, at)[0], tokens * 0), done, 2)
    assert (again.tokens, again.digest) == (done.tokens, done.digest)


def test_what_is_told_is_every_token_in_turn() -> None:
    told: list[tuple[int, tuple[int, ...]]] = []

    def listen(sequence: int, tokens: Sequence[int]) -> None:
        told.append((sequence, tuple(tokens)))

    generate(counting, [[1]], 3, 1, how=Choice(told=listen))
    assert told == [(0, (2,)), (0, (2, 3)), (0, (2, 3, 4))]


def test_why_a_sequence_is_over() -> None:
    tokenizer, plain = byte_tokenizer(), RunOptions(stop=("lo",))
    assert finish_of(plain, frozenset((EOS,)), tokenizer, [*b"hel", EOS]) == "end"
    assert (
        finish_of(replace(plain, ignore_eos=True), frozenset((EOS,)), tokenizer, [*b"hel", EOS]) == "length"
    )
    assert finish_of(plain, frozenset(), tokenizer, [*b"hello"]) == "stop"
    assert finish_of(plain, frozenset(), None, [*b"hello"]) == "length"
    assert until_stop("hello, hello", ["lo", "l"]) == "he"
    assert until_stop("hello", []) == "hello"


def test_end_tokens_are_those_of_the_generation_config_then_of_the_config(tmp_path: Path) -> None:
    assert end_tokens(None) == end_tokens(tmp_path) == frozenset()
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"eos_token_id": 7}}))
    assert end_tokens(tmp_path) == {7}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 158]}))
    assert end_tokens(tmp_path) == {2, 158}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": "2"}))
    with pytest.raises(FileError, match="eos_token_id is '2': it is a token id"):
        end_tokens(tmp_path)


@pytest.mark.slow
def test_a_run_ends_at_the_end_token_of_its_folder_unless_told_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(LLAMA, folder)
    made = api.compile(str(folder), rack="quad", context=[32])
    on = api.run(made, [[1, 2, 3]], tokens=6, how=RunOptions(ignore_eos=True))
    end = on.generation.tokens[0][2]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end}))
    done = api.run(made, [[1, 2, 3]], tokens=6)
    first = on.generation.tokens[0].index(end)
    assert done.generation.tokens[0] == on.generation.tokens[0][: first + 1]
    assert (done.finished, on.finished) == (("end",), ("length",))
    with pytest.raises(FileError, match="has no tokenizer, so no text to stop at"):
        api.run(made, [[1, 2, 3]], tokens=6, how=RunOptions(stop=("x",)))


@pytest.mark.slow
def test_draws_are_equal_for_every_batch_and_placement() -> None:
    how = RunOptions(sampling=Sampling(seed=5, temperature=1.0, top_k=60, top_p=0.9), ignore_eos=True)
    prompt, found = [5, 6, 7], set[tuple[int, ...]]()
    for batch, options, chunk in (
        (1, CompileOptions(tp=1), None),
        (2, CompileOptions(tp=4, layout="2d", placement="random"), None),
        (2, CompileOptions(tp=2), 2),
    ):
        made = api.compile(str(LLAMA), rack="quad", context=[32], batch=batch, options=options, prefill=chunk)
        done = api.run(made, [[9], prompt][-batch:], tokens=5, how=how)
        found.add(done.generation.tokens[-1])
    assert len(found) == 1
    other = replace(how, sampling=replace(how.sampling, seed=6))
    assert api.run(made, [prompt], tokens=5, how=other).generation.tokens[0] not in found
