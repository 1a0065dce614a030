"""From what a client sent to the jobs that it asks for; what cannot be done is refused with both numbers."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lpu.decode.choose import RunOptions
from lpu.inputs.chat import conversation_prompt
from lpu.inputs.document import FileError
from lpu.serve.http.protocol import Asked, ChatBody, CompletionBody
from lpu.serve.job import Job
from lpu.serve.refusal import RefusalError
from lpu.serve.runs import MOST_REQUESTS
from lpu.serve.service import ServedModel, StatedTime
from models.contract.sampling import Sampling

COMPLETION_TOKENS = 16  # OpenAI's default
SEEDS = 1 << 64
MOST_ARRIVAL_US = 10**15
Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a request asks for: prompts, and n sequences for each. leads: texts that are echoed.

    priority: the lower, the sooner it has a slot.
    """

    prompts: tuple[tuple[int, ...], ...]
    n: int
    make: Callable[[int], Job]
    leads: tuple[str, ...] = ()
    chat: bool = False
    stops: tuple[str, ...] = field(default=())
    priority: int = 0

    @property
    def count(self) -> int:
        """Sequences."""
        return len(self.prompts) * self.n


def completion_wish(body: CompletionBody, served: ServedModel) -> Wish:
    """Of POST /v1/completions. Raises RefusalError."""
    prompts = _prompts(body.prompt, served)
    leads = tuple(_text(served, prompt) if body.echo else "" for prompt in prompts)
    most = COMPLETION_TOKENS if body.most is None else body.most
    if most == 0 and not body.echo:
        raise RefusalError(400, "max_tokens is 0, must be at least 1 (0 only with echo).", "max_tokens")
    return _wish(body, served, prompts, most, body.logprobs, echo=body.echo, leads=leads)


def chat_wish(body: ChatBody, served: ServedModel) -> Wish:
    """Of POST /v1/chat/completions. Raises RefusalError."""
    if body.most == 0:
        raise RefusalError(400, "max_tokens is 0, must be at least 1.", "max_tokens")
    if body.top_logprobs is not None and not body.logprobs:
        raise RefusalError(400, "top_logprobs needs logprobs: true.", "top_logprobs")
    prompts = (chat_ids(body, served),)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    room = served.machine.longest - len(prompts[0]) + 1
    return _wish(body, served, prompts, max(room, 1) if body.most is None else body.most, logprobs, chat=True)


def chat_ids(body: ChatBody, served: ServedModel) -> tuple[int, ...]:
    """The prompt of a conversation."""
    tokenizer = served.tokenizer
    if tokenizer is None:
        raise RefusalError(
            400, f"{served.name} has no tokenizer, and so no chat. Use completions with token ids."
        )
    messages = [_message(one, i) for i, one in enumerate(body.messages)]
    if content := messages[0]["content"]:
        messages[0]["content"] = served.stripped(content)
    try:
        if served.model.folder is None:
            return tuple(tokenizer.encode(plain_chat(messages)))
        about: dict[str, Any] = {"tools": body.tools} if body.tools else {}
        about |= body.chat_template_kwargs or {}
        for name in ("messages", "raise_exception", "answer", "folder"):
            about.pop(name, None)
        text = conversation_prompt(served.model.folder, messages, answer=body.add_generation_prompt, **about)
        return tuple(tokenizer.encode_bare(text))
    except (FileError, UnicodeEncodeError) as error:
        raise RefusalError(400, str(error), "messages") from None


def plain_chat(messages: list[dict[str, Any]]) -> str:
    """The prompt where a model has no chat template: each message under its role, then the assistant's."""
    said = [f"<|{one['role']}|>\n{one.get('content') or ''}\n" for one in messages]
    return "".join([*said, "<|assistant|>\n"])


def _message(one: dict[str, Any], place: int) -> dict[str, Any]:
    """A message whose content is one text."""
    role, content = one.get("role"), one.get("content")
    if not isinstance(role, str) or not role:
        raise RefusalError(400, f"messages.{place}.role is {role!r}, needs a text.", "messages")
    if isinstance(content, list):
        texts: list[str] = []
        for part in content:
            if (
                not isinstance(part, dict)
                or part.get("type") != "text"
                or not isinstance(part.get("text"), str)
            ):
                raise RefusalError(400, f"messages.{place}.content holds a part that is no text.", "messages")
            texts.append(part["text"])
        content = "".join(texts)
    if content is not None and not isinstance(content, str):
        raise RefusalError(400, f"messages.{place}.content is no text.", "messages")
    return one | {"content": content}


def _prompts(prompt: Any, served: ServedModel) -> tuple[tuple[int, ...], ...]:
    """Token ids of each prompt."""
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        prompt = [prompt]
    if not prompt:
        raise RefusalError(400, "prompt is an empty list.", "prompt")
    return tuple(encoded(one, served) if isinstance(one, str) else tuple(one) for one in prompt)


def encoded(text: str, served: ServedModel) -> tuple[int, ...]:
    """Token ids of a text."""
    if served.tokenizer is None:
        raise RefusalError(
            400, f"{served.name} has no tokenizer. Send the prompt as a list of token ids.", "prompt"
        )
    try:
        return tuple(served.tokenizer.encode(served.stripped(text)))
    except (FileError, UnicodeEncodeError) as error:
        raise RefusalError(400, f"The prompt cannot be tokenized: {error}.", "prompt") from None


def _text(served: ServedModel, prompt: tuple[int, ...]) -> str:
    return served.tokenizer.decode(prompt) if served.tokenizer else ""


def _wish(
    body: Asked,
    served: ServedModel,
    prompts: tuple[tuple[int, ...], ...],
    most: int,
    logprobs: int | None,
    *,
    echo: bool = False,
    chat: bool = False,
    leads: tuple[str, ...] = (),
) -> Wish:
    body.refuse_unknown()
    for prompt in prompts:
        _check_prompt(prompt, most, served)
    if body.min_tokens > most:
        raise RefusalError(400, f"min_tokens is {body.min_tokens}, max_tokens is {most}.", "min_tokens")
    if body.stops and served.tokenizer is None:
        raise RefusalError(400, f"{served.name} has no tokenizer, so no text to stop at.", "stop")
    hows = [_how(body, i) for i in range(body.n)]

    def make(index: int) -> Job:
        return Job(
            prompt=prompts[index // body.n],
            most=most,
            how=hows[index % body.n],
            ends=served.ends,
            tokenizer=served.tokenizer,
            told=lambda new: None,
            logprobs=logprobs,
            echo=echo,
            min_tokens=body.min_tokens,
        )

    return Wish(
        prompts=prompts,
        n=body.n,
        make=make,
        leads=leads,
        chat=chat,
        stops=body.stops,
        priority=body.priority or 0,
    )


def _how(body: Asked, choice: int) -> RunOptions:
    """How a choice is drawn: greedily unless a temperature is given; each of n with a seed of its own."""
    if (body.top_k or 0) < -1:
        raise RefusalError(400, f"top_k is {body.top_k}, must be -1 or 0 (all), or at least 1.", "top_k")
    try:
        sampling = Sampling(
            seed=((body.seed or 0) + choice) % SEEDS,
            temperature=body.temperature or 0.0,
            top_k=max(body.top_k or 0, 0),
            top_p=1.0 if body.top_p is None else body.top_p,
            min_p=body.min_p or 0.0,
        )
    except ValueError as error:
        raise RefusalError(400, f"{error}.", str(error).split(":")[0].replace("-", "_")) from None
    return RunOptions(sampling=sampling, stop=body.stops, ignore_eos=body.ignore_eos)


def _check_prompt(prompt: tuple[int, ...], most: int, served: ServedModel) -> None:
    room = served.machine.longest
    if not prompt:
        raise RefusalError(400, "The prompt has 0 tokens, at least 1 is needed.", "prompt")
    wrong = [token for token in prompt if not 0 <= token < served.vocab]
    if wrong:
        raise RefusalError(
            400, f"The prompt holds token {wrong[0]}, the vocabulary has {served.vocab}.", "prompt"
        )
    if len(prompt) + max(most, 1) - 1 > room:
        raise RefusalError(
            400,
            f"This model's maximum context length is {room} tokens: the prompt has {len(prompt)}, and "
            f"max_tokens is {most}.",
            "prompt" if len(prompt) > room else "max_tokens",
        )


def stated_in(headers: Headers, data: bytes) -> StatedTime:
    """What the headers say of a request's arrival and run. Raises RefusalError."""
    arrival = _whole(headers, "x-lpu-arrival-us", 0, MOST_ARRIVAL_US)
    requests = _whole(headers, "x-lpu-requests", 1, MOST_REQUESTS)
    if requests is not None and arrival is None:
        raise RefusalError(400, "x-lpu-requests needs x-lpu-arrival-us.")
    return StatedTime(
        arrival_ns=None if arrival is None else arrival * 1000,
        run=headers.get("x-lpu-run", ""),
        requests=requests,
        order=(headers.get("x-request-id", ""), hashlib.sha256(data).hexdigest()),
    )


def _whole(headers: Headers, name: str, least: int, most: int) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise RefusalError(
            400, f"{name} is {text[:40]!r}, needs a whole number from {least} to {most}.", name
        )
    return int(text)
