"""The verb in a process of its own, and the client that most people have."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from refusals import refused

from lpu.inputs.document import FileError
from lpu.serve.options import ServeGpus

WORDS = ["serve", "llama-tiny", "--rack", "quad", "--batch", "4", "--context", "64", "--port", "0", "--json"]
NAME = "llama-tiny"


@pytest.fixture
def server() -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`lpu serve` and its address."""
    command = [sys.executable, "-m", "lpu", *WORDS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())["address"]
        finally:
            process.kill()


@pytest.mark.slow
def test_the_client_of_openai_is_answered_and_sigterm_drains(
    server: tuple["subprocess.Popen[str]", str],
) -> None:
    process, address = server
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    assert [one.id for one in client.models.list()] == [NAME]
    whole = client.completions.create(model=NAME, prompt="Hello", max_tokens=8)
    parts = client.completions.create(
        model=NAME, prompt="Hello", max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    *news, last = list(parts)
    assert "".join(one.choices[0].text for one in news) == whole.choices[0].text
    assert last.usage == whole.usage
    said = client.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "hi"}], max_completion_tokens=4, n=2, temperature=1
    )
    assert len(said.choices) == 2
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="Hello")
    with pytest.raises(openai.BadRequestError, match="64 tokens: the prompt has 101"):
        client.completions.create(model=NAME, prompt="x" * 100)
    stream = client.completions.create(
        model=NAME, prompt="Hello", max_tokens=55, stream=True, extra_body={"ignore_eos": True}
    )
    got = [next(stream)]
    process.send_signal(signal.SIGTERM)
    got += list(stream)
    assert len(got) == 55
    assert got[-1].choices[0].finish_reason == "length"
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_wrong_use_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LPU_API_KEY", raising=False)
    quad = ["serve", NAME, "--rack", "quad", "--port", "0"]
    assert "no key" in refused(capsys, 2, *quad, "--host", "0.0.0.0")
    assert "must be 0 to 65535" in refused(capsys, 2, "serve", NAME, "--port", "65536")
    assert "2 buckets" in refused(capsys, 2, *quad, "--context", "32,64")
    assert "--objective throughput" in refused(capsys, 2, *quad, "--objective", "throughput")
    assert "198.51.100.1" in refused(capsys, 2, *quad, "--host", "198.51.100.1", "--api-key", "k")


@pytest.mark.parametrize("mode", ["afd", "draft"])
def test_modes_that_are_not_served_are_refused_by_name(mode: str) -> None:
    with pytest.raises(FileError, match=f"--mode {mode} is not served, only pd"):
        ServeGpus(mode=mode)
