"""The modes under a server: tokens of `lpu run`, times of `lpu afd`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from lpu import api
from lpu.afd.beside import Joined, TakenStep
from lpu.afd.mode import Mode
from lpu.afd.modes.afd import Afd
from lpu.afd.modes.draft import Draft
from lpu.afd.modes.pd import Pd
from lpu.afd.options import Gpus
from lpu.decode.choose import RunOptions
from lpu.gpu.request import Request
from lpu.inputs.document import FileError
from lpu.serve.engine import BatchEngine
from lpu.serve.http.app import application
from lpu.serve.job import Job, NewToken
from lpu.serve.modelled import ServedTimes, TimedSequence, alone, together
from lpu.serve.options import ServeGpus, ServeOptions
from lpu.serve.service import Service
from lpu.serve.start import service_of
from lpu.traffic.served import Prefiller, Prompt, Served, StepPace

NAME, CONTEXT, PROMPT, NEW = "llama-tiny", 64, list(range(20)), 12
DRAFT = Draft(drafter=NAME, drafts=3)


def made(mode: Mode, batch: int = 1, tokens: str = "synthetic", gpus: int = 1, **more: Any) -> Service:
    about: Any = {"batch": batch, "context": CONTEXT} | more
    return service_of(
        NAME, ServeOptions(tokens=tokens), ServeGpus(gpus=gpus), "quad", keywords=about, mode=mode
    )


def asked(client: TestClient, **body: Any) -> dict[str, Any]:
    headers = {"x-lpu-arrival-us": "0"}
    words = {"model": NAME, "prompt": PROMPT, "max_tokens": NEW, "ignore_eos": True} | body
    found = client.post("/v1/completions", json=words, headers=headers)
    assert found.status_code == 200, found.text
    return found.json()


@pytest.mark.parametrize("mode", [Pd(), Afd(), DRAFT], ids=["pd", "afd", "draft"])
def test_times_are_those_of_lpu_afd(mode: Mode) -> None:
    """To the cycle: seconds there are picoseconds, here whole cycles."""
    turn = api.afd(
        NAME,
        Request(prompt_tokens=len(PROMPT), new_tokens=NEW),
        mode=mode,
        gpus=Gpus(gpus=1),
        rack="quad",
        context=CONTEXT,
    ).turns[0]
    with TestClient(application(made(mode))) as client:
        told = asked(client)["metrics"]
    cycle_ms = 1000 / told["lpu_clock_hz"]
    later = turn.end_to_end - turn.ttft
    assert told["mode"] == mode.name
    assert told["time_to_first_token_ms"] == pytest.approx(turn.ttft / 1e9, abs=3 * cycle_ms)
    assert told["generation_time_ms"] == pytest.approx(later / 1e9, abs=(NEW + 1) * cycle_ms)
    assert told["kind"] == "modelled"
    assert (told["later_tokens_kind"] == "modelled") == (mode.name != "pd")


@pytest.mark.slow
@pytest.mark.parametrize("mode", [Afd(), DRAFT], ids=["afd", "draft"])
def test_tokens_are_those_of_lpu_run(mode: Mode) -> None:
    """In mode afd of the model whose FFN inputs cross as fp16, as decision 0015 says."""
    sampling = api.Sampling(seed=7, temperature=0.9)
    down = "fp16" if mode.name == "afd" else None
    compiled = api.compile(NAME, rack="quad", context=CONTEXT, batch=2, ffn_down=down)
    runs = [
        api.run(compiled, ["Hello", "you and me"], tokens=NEW, how=RunOptions(sampling=one, ignore_eos=True))
        for one in (api.Sampling(), sampling)
    ]
    with TestClient(application(made(mode, 2, "real"))) as client:
        for run, how in zip(runs, ({}, {"temperature": 0.9, "seed": 7}), strict=True):
            for i, text in enumerate(["Hello", "you and me"]):
                found = asked(client, prompt=text, **how)
                assert found["choices"][0]["token_ids"] == list(run.generation.tokens[i])
        greedy = asked(client, prompt=["you and me", "Hello"], logprobs=1, echo=True)
        alone_told = [asked(client, prompt=text, logprobs=1, echo=True) for text in ("you and me", "Hello")]
    assert [one["logprobs"] for one in greedy["choices"]] == [
        one["choices"][0]["logprobs"] for one in alone_told
    ]
    rounds = greedy["metrics"]["rounds"]
    if mode is DRAFT:  # the drafter is the model itself: every draft becomes a token
        assert rounds["rounds"] == 2 * -(-(NEW - 1) // 4)
        assert rounds["accepted"] == rounds["drafted"] == 2 * (NEW - 1) - rounds["rounds"]
    else:
        assert rounds is None


@pytest.mark.slow
def test_a_conversation_goes_on_after_a_restart_from_disk(tmp_path: Path) -> None:
    """The KV of whole blocks comes from the folder, the tokens are those without it."""
    mode, words = Pd(kv_cache=str(tmp_path / "kv")), {"prompt": list(range(40)), "logprobs": 1}
    body = {"model": NAME, "max_tokens": 4, "ignore_eos": True} | words
    found: list[Any] = []
    for one in (mode, mode, Pd()):
        with TestClient(application(made(one, 2, "real"))) as client:
            found.append(client.post("/v1/completions", json=body).json())
            if len(found) == 2:  # a changed header leaves nothing to use again
                other = client.post("/v1/completions", json=body | {"prompt": [99, *range(1, 40)]}).json()
                assert other["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
                scored = client.post("/v1/completions", json=body | {"echo": True}).json()
                assert len(scored["choices"][0]["logprobs"]["tokens"]) == 44
    assert [one["usage"]["prompt_tokens_details"]["cached_tokens"] for one in found] == [0, 32, 0]
    assert found[0]["choices"] == found[1]["choices"] == found[2]["choices"]
    assert found[1]["metrics"]["time_to_first_token_ms"] < found[0]["metrics"]["time_to_first_token_ms"]


class Counting:
    """Rows whose next token is their last one plus one; drafts are right but for multiples of 4."""

    batch = 2

    def join(self, row: int, prompt: Sequence[int], scored: bool) -> Joined:
        return Joined(len(prompt), np.eye(32, dtype=np.float32)[np.array(prompt) + 1])

    def step(self, tokens: np.ndarray, at: np.ndarray, more: Sequence[int]) -> TakenStep:
        useful = [min(2, one) for one in more]
        line = tokens[:, None] + np.arange(3)
        line = np.where(line % 4, line, 0)
        line[:, 0] = tokens
        likely = line + 1
        drafts = tuple(tuple(row[1 : 1 + n].tolist()) for row, n in zip(line, useful, strict=True))
        return TakenStep(np.eye(32, dtype=np.float32)[likely], likely, drafts)

    def known(self, prompt: Sequence[int]) -> int:
        return 0

    def close(self) -> None: ...


def test_a_round_gives_the_tokens_up_to_the_first_wrong_draft() -> None:
    told: list[NewToken | BaseException] = []
    job = Job((1, 2), 9, RunOptions(), frozenset(), None, told.append)
    engine = BatchEngine(Counting())
    engine.submit(job)
    while len(told) < 9:
        pass
    engine.stop()
    assert job.tokens == list(range(3, 12))
    # 3 is the prefill's; round 1 drafts 0 for 4: a token; 2 drafts 5, 6: three; 3 drafts 0 for 8; and so on
    assert job.ticks == [0, 1, 2, 2, 2, 3, 4, 4, 4]


def times(slots: int) -> ServedTimes:
    """A prompt takes 10 cycles on one replica, a step its KV's length in cycles."""
    machine = Served(
        clock_hz=1000,
        groups=1,
        rows=slots,
        paces=(StepPace(64, 64, 64, 64),),
        prefill=Prefiller(
            replicas=1,
            cost=lambda tokens, held: Prompt(compute=10, exposed=0, handover=0, wire=0),
            room=1000,
            cache_blocks=0,
        ),
        gpus_step=True,
    )
    return ServedTimes(machine=machine, turn=lambda kv: kv)


def test_sequences_share_slots_and_gpus_and_one_alone_has_its_own_time() -> None:
    one = TimedSequence(5, 16, 8)
    assert alone(times(2), one) == together(times(2), [one])[0]
    assert alone(times(2), one)[:4] == (5, 5, 15, 20)
    assert alone(times(2), one).at(7) == 15 + 7 * 20
    both = together(times(1), [TimedSequence(0, 16, 8, ("a",)), TimedSequence(0, 16, 8, ("b",))])
    assert [found.first for found in both] == [10, 160]  # the second prefill waits for the slot
    assert both[0].at(7) == 150
    assert both[1].at(1) == 160 + 20
    two = together(times(2), [TimedSequence(0, 16, 8, ("a",)), TimedSequence(0, 16, 8, ("b",))])
    assert [found.first for found in two] == [10, 20]
    assert [found.at(1) for found in two] == [20 + 20, 20 + 20]  # that prefill stops the steps of the first
    assert together(times(1), []) == []


@pytest.mark.parametrize(
    ("mode", "gpus", "more", "why"),
    [
        (Afd(), 0, {}, "--gpus: is 0"),
        (Draft(), 1, {}, "needs a small model"),
        (Afd(micro_batches=3), 1, {}, "--micro-batches 3"),
        (Pd(kv_cache="kv"), 0, {}, "--kv-cache: is of KV that GPUs compute, there are 0"),
        (Pd(kv_policy="copy-back"), 1, {}, "--kv-policy: is 'copy-back', a server has no turns"),
    ],
)
def test_wrong_use_of_a_mode_is_refused(mode: Mode, gpus: int, more: dict[str, Any], why: str) -> None:
    with pytest.raises((FileError, api.CompileError), match=why):
        made(mode, 2, gpus=gpus, tokens="real" if mode.name == "pd" else "synthetic", **more)
