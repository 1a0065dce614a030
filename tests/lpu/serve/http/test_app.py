"""The server in one process: what clients send and read, and everything that they may do wrong."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from lpu import api
from lpu.serve.http.app import application
from lpu.serve.http.protocol import ChatBody, CompletionBody
from lpu.serve.options import ServeGpus, ServeOptions
from lpu.serve.service import Service
from lpu.serve.start import service_of

NAME, CONTEXT, SLOTS = "llama-tiny", 64, 4


def made(**how: Any) -> Service:
    about: Any = {"batch": SLOTS, "context": CONTEXT}
    return service_of(NAME, ServeOptions(**how), ServeGpus(), "quad", keywords=about)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """A server with real tokens."""
    with TestClient(application(made())) as found:
        yield found


@pytest.fixture(scope="module")
def fast() -> Iterator[TestClient]:
    """A server with synthetic tokens, which compute nothing."""
    with TestClient(application(made(tokens="synthetic"))) as found:
        yield found


def post(client: TestClient, path: str = "/v1/completions", /, **body: Any) -> dict[str, Any]:
    found = client.post(path, json={"model": NAME, "max_tokens": 6} | body)
    assert found.status_code == 200, found.text
    return found.json()


def events(client: TestClient, path: str = "/v1/completions", /, **body: Any) -> list[dict[str, Any]]:
    found = client.post(path, json={"model": NAME, "max_tokens": 6, "stream": True} | body)
    assert found.headers["content-type"].startswith("text/event-stream")
    *lines, last, end = found.text.split("\n\n")
    assert (last, end) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.mark.slow
def test_tokens_are_those_of_lpu_run(client: TestClient) -> None:
    sampling = api.Sampling(seed=7, temperature=0.9, top_k=40, top_p=0.95)
    compiled = api.compile(NAME, rack="quad", context=CONTEXT, batch=SLOTS)
    runs = [
        api.run(
            compiled,
            ["Hello"],
            tokens=6,
            how=api.RunOptions(sampling=one),
        )
        for one in (api.Sampling(), sampling)
    ]
    greedy = post(client, prompt="Hello")
    drawn = post(client, prompt="Hello", temperature=0.9, top_k=40, top_p=0.95, seed=7)
    assert greedy["choices"][0]["token_ids"] == list(runs[0].generation.tokens[0])
    assert drawn["choices"][0]["token_ids"] == list(runs[1].generation.tokens[0])
    assert runs[0].texts == (greedy["choices"][0]["text"],)


@pytest.mark.slow
def test_a_stream_is_the_answer_in_pieces(client: TestClient) -> None:
    whole = post(client, prompt=["Hello", "you"], n=2, temperature=1, logprobs=1, echo=True)
    parts = events(
        client,
        prompt=["Hello", "you"],
        n=2,
        temperature=1,
        logprobs=1,
        echo=True,
        stream_options={"include_usage": True},
    )
    assert parts[-1]["choices"] == []
    assert (
        parts[-1]["usage"]
        == whole["usage"]
        == {
            "prompt_tokens": 10,
            "completion_tokens": 24,
            "total_tokens": 34,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
    )
    for choice in whole["choices"]:
        mine = [part["choices"][0] for part in parts[:-1] if part["choices"][0]["index"] == choice["index"]]
        assert "".join(one["text"] for one in mine) == choice["text"]
        for key in ("tokens", "token_logprobs", "text_offset"):
            assert [value for one in mine for value in one["logprobs"][key]] == choice["logprobs"][key]
        assert [one["finish_reason"] for one in mine] == [None] * 5 + ["length"]
        prompt = "Hello" if choice["index"] < 2 else "you"
        assert choice["text"].startswith(prompt)
        assert choice["logprobs"]["token_logprobs"][0] is None
        assert len(choice["logprobs"]["tokens"]) == len(prompt) + 1 + 6
    assert "metrics" in parts[-2]


@pytest.mark.slow
def test_a_chat_is_a_prompt_with_roles(client: TestClient) -> None:
    said = [
        {"role": "system", "content": "be"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    found = post(
        client, "/v1/chat/completions", messages=said, max_completion_tokens=3, logprobs=True, top_logprobs=2
    )
    ids = client.post("/tokenize", json={"messages": said}).json()
    text = client.post("/detokenize", json={"tokens": ids["tokens"]}).json()["prompt"]
    assert text == "<|system|>\nbe\n<|user|>\nhi\n<|assistant|>\n"
    plain = post(client, prompt=ids["tokens"], max_tokens=3)
    assert found["choices"][0]["token_ids"] == plain["choices"][0]["token_ids"]
    assert found["choices"][0]["message"] == {"role": "assistant", "content": plain["choices"][0]["text"]}
    assert [len(one["top_logprobs"]) for one in found["choices"][0]["logprobs"]["content"]] == [2, 2, 2]
    first = events(client, "/v1/chat/completions", messages=said, max_tokens=2)[0]
    assert first["choices"][0]["delta"]["role"] == "assistant"


@pytest.mark.slow
def test_an_answer_ends_before_a_stop_text(client: TestClient) -> None:
    text = post(client, prompt="Hello")["choices"][0]["text"]
    stop = text[2]
    found = post(client, prompt="Hello", stop=[stop, "never"])["choices"][0]
    assert (found["text"], found["finish_reason"], found["stop_reason"]) == (text[:2], "stop", stop)
    pieces = events(client, prompt="Hello", stop=stop)
    assert "".join(one["choices"][0]["text"] for one in pieces) == text[:2]
    assert post(client, prompt="Hello", stop=stop, min_tokens=5)["usage"]["completion_tokens"] >= 5


def test_a_prompt_can_be_scored_without_new_tokens(client: TestClient) -> None:
    found = post(client, prompt="Hello", max_tokens=0, echo=True, logprobs=0)
    assert found["choices"][0]["text"] == "Hello"
    assert len(found["choices"][0]["logprobs"]["token_logprobs"]) == 6
    assert found["usage"]["completion_tokens"] == 0


def test_times_are_cycles_of_the_program(client: TestClient) -> None:
    program = api.compile(NAME, rack="quad", context=CONTEXT, batch=SLOTS).program
    step = program.manifest.cycles[CONTEXT]
    found = client.post(
        "/v1/completions",
        json={"model": NAME, "prompt": [1, 2, 3], "max_tokens": 4},
        headers={"x-lpu-arrival-us": "1000000"},
    ).json()["metrics"]
    assert found["arrival_cycle"] == program.manifest.clock_hz
    assert found["first_token_cycles"] == [program.manifest.clock_hz + 3 * step]
    assert found["last_token_cycles"] == [program.manifest.clock_hz + 6 * step]
    assert (found["lpu_cycles"], found["cycles_per_token"], found["label"]) == (6 * step, step, "projection")


def test_the_metrics_are_read_by_prometheus(fast: TestClient) -> None:
    post(fast, prompt="Hello", max_tokens=9, ignore_eos=True)
    found = {one.name: one for one in text_string_to_metric_families(fast.get("/metrics").text)}
    assert {"vllm:time_to_first_token_seconds", "vllm:request_success", "vllm:generation_tokens"} <= set(
        found
    )
    assert all(sample.labels["model_name"] == NAME for one in found.values() for sample in one.samples)
    edges = {sample.labels.get("le") for sample in found["vllm:inter_token_latency_seconds"].samples}
    assert {"1e-05", "0.01", "80.0"} <= edges


def test_synthetic_tokens_say_so_and_follow_their_rule(fast: TestClient) -> None:
    found, again = (post(fast, prompt="Hello", ignore_eos=True) for _ in range(2))
    other = post(fast, prompt="hello", ignore_eos=True)
    assert found["choices"] == again["choices"]
    assert found["choices"][0]["token_ids"] != other["choices"][0]["token_ids"]
    assert found["metrics"]["tokens"] == "synthetic"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, {"model": "other"}, "'other' does not exist"),
        (400, {"prompt": "x" * 100}, "64 tokens: the prompt has 101, and max_tokens is 16"),
        (400, {"max_tokens": 64}, "64 tokens: the prompt has 2, and max_tokens is 64"),
        (400, {"n": 5}, "5 sequences are asked for at once, there are 4 slots"),
        (400, {"prompt": ["a", "b", "c"], "n": 2}, "6 sequences"),
        (400, {"n": 0}, "greater than or equal to 1, got 0"),
        (400, {"max_tokens": 0}, "max_tokens is 0"),
        (400, {"max_tokens": -1}, "got -1"),
        (400, {"prompt": None}, "prompt"),
        (400, {"prompt": []}, "prompt is an empty list"),
        (400, {"prompt": [[]]}, "0 tokens"),
        (400, {"prompt": [300]}, "token 300, the vocabulary has 259"),
        (400, {"prompt": [1, "a"]}, "prompt"),
        (400, {"temperature": -1}, "temperature: is -1"),
        (400, {"top_p": 0}, "top-p: is 0"),
        (400, {"top_k": -5}, "top_k is -5"),
        (400, {"presence_penalty": 1}, "presence_penalty is 1"),
        (400, {"suffix": "x"}, "suffix"),
        (400, {"best_of": 3}, "best_of is 3, n is 1"),
        (400, {"logprobs": 21}, "less than or equal to 20"),
        (400, {"stream_options": {}}, "needs stream"),
        (400, {"min_tokens": 20}, "min_tokens is 20, max_tokens is 16"),
        (400, {"stream": "perhaps"}, "stream"),
        (400, {"stream": "true"}, "stream"),
        (400, {"max_tokens": "16"}, "max_tokens"),
        (400, {"stop": ""}, "stop holds an empty text"),
        (400, {"stop": ["x", ""]}, "stop holds an empty text"),
        (400, {"stop": ["x"] * 17}, "at most 16 items after validation, not 17"),
        (400, {"prompt": [[1], [-1]]}, "prompt.1.0: Input should be greater than or equal to 0, got -1"),
    ],
)
def test_what_cannot_be_done_is_refused_in_openais_form(
    fast: TestClient, status: int, body: dict[str, Any], words: str
) -> None:
    found = fast.post("/v1/completions", json={"model": NAME, "prompt": "a"} | body)
    assert found.status_code == status
    error = found.json()["error"]
    assert words in error["message"]
    assert error["code"] == status
    assert {"type", "param"} <= set(error)


@pytest.mark.parametrize(
    ("status", "path", "data", "words"),
    [
        (413, "/v1/completions", b"x" * (10 << 20), "10,485,760 bytes, at most 4,194,304"),
        (400, "/v1/completions", b'{"model": "\xff"}', "not UTF-8"),
        (400, "/v1/completions", b"{", "JSON"),
        (400, "/v1/completions", b"[]", "object"),
        (400, "/v1/chat/completions", b'{"model": "llama-tiny", "messages": []}', "messages"),
        (400, "/v1/chat/completions", b'{"model": "llama-tiny", "messages": [{"role": 3}]}', "role is 3"),
        (400, "/tokenize", b"{}", "prompt or messages"),
        (400, "/detokenize", b'{"tokens": [259]}', "token 259"),
        (400, "/detokenize", b'{"tokens": ["0"]}', "tokens.0"),
        (404, "/v1/embeddings", b"{}", "Not Found"),
        (405, "/v1/models", b"{}", "Method Not Allowed"),
    ],
)
def test_bodies_that_are_none_are_refused(
    fast: TestClient, status: int, path: str, data: bytes, words: str
) -> None:
    found = fast.post(path, content=data)
    assert (found.status_code, found.json()["error"]["code"]) == (status, status)
    assert words in found.json()["error"]["message"]


@pytest.mark.parametrize(
    ("parts", "read", "words"), [(10, 10, "has 10,485,760"), (99, 65, "has over 68,157,440")]
)
def test_too_large_a_body_is_read_before_it_is_refused_but_not_for_ever(
    parts: int, read: int, words: str
) -> None:
    taken, told = list[int](), list[Any]()

    async def receive() -> dict[str, Any]:
        taken.append(len(taken))
        return {"type": "http.request", "body": b"x" * (1 << 20), "more_body": len(taken) < parts}

    async def send(message: Any) -> None:
        told.append(message)

    path = "/v1/completions"
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}
    asyncio.run(application(made(tokens="synthetic"))(scope, receive, send))
    assert told[0]["status"] == 413
    assert words in json.loads(told[1]["body"])["error"]["message"]
    assert len(taken) == read


def test_a_header_that_changes_is_left_out() -> None:
    with TestClient(application(made(tokens="synthetic", strip_header=r"x-bill: \w+;\s*"))) as one:
        plain = one.post("/tokenize", json={"prompt": "Hello x-bill: 1;"}).json()
        assert one.post("/tokenize", json={"prompt": "x-bill: 7f;\nHello x-bill: 1;"}).json() == plain
        chats = [
            [{"role": "system", "content": f"{header}be"}, {"role": "user", "content": "x-bill: 1; hi"}]
            for header in ("", "x-bill: 1; ", "x-bill: 2; ")
        ]
        found = [one.post("/tokenize", json={"messages": chat}).json() for chat in chats]
        assert found[0] == found[1] == found[2]
        assert "x-bill" in one.post("/detokenize", json={"tokens": found[0]["tokens"]}).json()["prompt"]
    with pytest.raises(api.FileError, match="--strip-header"):
        ServeOptions(strip_header="(")


def test_a_wrong_header_is_refused(fast: TestClient) -> None:
    body = {"model": NAME, "prompt": "a"}
    for name, value in (("x-lpu-arrival-us", "-1"), ("x-lpu-arrival-us", "soon"), ("x-lpu-requests", "3")):
        found = fast.post("/v1/completions", json=body, headers={name: value})
        assert (found.status_code, name in found.json()["error"]["message"]) == (400, True)


def test_without_the_key_nothing_is_answered_but_health() -> None:
    with TestClient(application(made(tokens="synthetic"), "secret")) as one:
        assert one.get("/health").status_code == 200
        assert one.get("/v1/models").status_code == 401
        assert one.get("/v1/models", headers={"Authorization": "Bearer secre"}).status_code == 401
        assert (
            one.get("/v1/models", headers={"Authorization": "Bearer secret"}).json()["data"][0]["id"] == NAME
        )


def test_other_addresses_than_loopback_need_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LPU_API_KEY", raising=False)
    with pytest.raises(api.FileError, match=r"0\.0\.0\.0 is no loopback address"):
        ServeOptions(host="0.0.0.0")
    assert ServeOptions(host="0.0.0.0", api_key="k").key == "k"
    assert ServeOptions(host="::1").key is None


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-1, 300), max_size=3),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=1),
)
FIELDS = st.sampled_from(["model", *CompletionBody.model_fields, *ChatBody.model_fields, "other"])


@pytest.mark.slow
@given(
    st.sampled_from(["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"]),
    st.dictionaries(FIELDS, VALUES, max_size=3),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_makes_a_fault_of_ours(fast: TestClient, path: str, fields: dict[str, Any]) -> None:
    said = [{"role": "user", "content": "hi"}]
    body = {"model": NAME, "prompt": "a", "messages": said, "max_tokens": 2, "tokens": [1]} | fields
    found = fast.post(path, content=json.dumps(body).encode())
    assert found.status_code in (200, 400, 404), found.text
    if found.status_code != 200:
        assert found.json()["error"]["code"] == found.status_code
