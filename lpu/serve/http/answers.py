"""Answers in OpenAI's form: choices, usage, `metrics` with exact cycles. Source: facts/serving.md 5.2."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lpu.inputs.text import Tokenizer
from lpu.serve.http.texts import GrowingText, stop_reason
from lpu.serve.job import Job, Likely, NewToken
from lpu.serve.modelled import SlotTimes
from lpu.serve.service import ServedModel

REASONS = {"end": "stop", "stop": "stop", "length": "length"}


@dataclass(slots=True)
class Answer:
    """One choice as it grows. chat: a message, not a text. lead: text echoed before the first token."""

    index: int
    job: Job
    text: GrowingText
    chat: bool
    lead: str = ""
    offset: int = 0
    reason: str | None = None
    stopped: str | None = None
    news: list[NewToken] = field(default_factory=list[NewToken])

    def take(self, new: NewToken) -> str:
        """What a token adds to the text."""
        first = not self.news
        if new.token >= 0:
            self.news.append(new)
        tokens = [one.token for one in self.news]
        grown = self.text.grow(tokens, new.finish is not None)
        if new.finish is not None:
            self.reason = REASONS[new.finish]
            self.stopped = self._stopped(tokens) if new.finish == "stop" else None
        return self.lead + grown if first else grown

    def _stopped(self, tokens: Sequence[int]) -> str | None:
        tokenizer = self.job.tokenizer
        return stop_reason(tokenizer.decode(tokens), self.job.how.stop) if tokenizer else None

    def logprobs(self, news: Sequence[NewToken], echoed: bool) -> dict[str, Any] | None:
        """Of some tokens, and of the prompt's before them if it is echoed."""
        if self.job.logprobs is None:
            return None
        known: list[tuple[int, Likely | None]] = []
        if echoed and self.job.echo:
            prompt = self.job.prompt
            known += zip(prompt, [None, *self.job.echoed], strict=False)
        known += [(one.token, one.likely) for one in news]
        if self.chat:
            return {"content": [self._chat_logprob(token, likely) for token, likely in known if likely]}
        return self._completion_logprobs(known)

    def _completion_logprobs(self, known: Sequence[tuple[int, Likely | None]]) -> dict[str, Any]:
        words = [word(self.job.tokenizer, token) for token, _ in known]
        offsets: list[int] = []
        for text in words:
            offsets.append(self.offset)
            self.offset += len(text)
        return {
            "text_offset": offsets,
            "token_logprobs": [likely.logprob if likely else None for _, likely in known],
            "tokens": words,
            "top_logprobs": [
                None
                if likely is None
                else {word(self.job.tokenizer, one): value for one, value in likely.top}
                | {word(self.job.tokenizer, token): likely.logprob}
                for token, likely in known
            ],
        }

    def _chat_logprob(self, token: int, likely: Likely) -> dict[str, Any]:
        def entry(one: int, value: float) -> dict[str, Any]:
            text = word(self.job.tokenizer, one)
            return {"token": text, "logprob": value, "bytes": list(text.encode())}

        top = [entry(one, value) for one, value in likely.top]
        return entry(token, likely.logprob) | {"top_logprobs": top}

    def body(self, text: str, news: Sequence[NewToken], *, whole: bool, first: bool) -> dict[str, Any]:
        """The choice in an answer, or in a chunk of a stream."""
        made: dict[str, Any] = {"index": self.index}
        if not self.chat:
            made["text"] = text
        elif whole:
            made["message"] = {"role": "assistant", "content": text}
        else:
            made["delta"] = ({"role": "assistant"} if first else {}) | {"content": text}
        return made | {
            "logprobs": self.logprobs(news, whole or first),
            "finish_reason": self.reason,
            "stop_reason": self.stopped,
            "token_ids": [one.token for one in news],
        }


def word(tokenizer: Tokenizer | None, token: int) -> str:
    """One token as text; its id where it has none."""
    return (tokenizer.decode([token]) if tokenizer else "") or f"token_id:{token}"


def usage_of(jobs: Sequence[Job], prompts: int, n: int = 1, *, stated: bool = False) -> dict[str, Any]:
    """Tokens in and out; a prompt counts once for all of its n choices.

    stated: the request states its arrival: then its time has no cached tokens, nor has its answer.
    """
    new = sum(len(job.tokens) for job in jobs)
    return {
        "prompt_tokens": prompts,
        "completion_tokens": new,
        "total_tokens": prompts + new,
        "prompt_tokens_details": {"cached_tokens": 0 if stated else sum(job.cached for job in jobs[::n])},
    }


def metrics_of(jobs: Sequence[Job], times: Sequence[SlotTimes], served: ServedModel) -> dict[str, Any]:
    """Modelled times: of the sequence that ends last, and cycles of each. Keys of vLLM, and ours."""
    clock_hz = served.machine.clock_hz
    ends = [one.at(job.steps) for job, one in zip(jobs, times, strict=True)]
    last = max(range(len(jobs)), key=lambda i: (ends[i], i))
    job, one, end = jobs[last], times[last], ends[last]
    spent, later = end - one.first, max(len(job.tokens) - 1, 0)
    return {
        "queue_time_ms": (one.begin - one.arrival) * 1000 / clock_hz,
        "time_to_first_token_ms": (one.first - one.arrival) * 1000 / clock_hz,
        "generation_time_ms": spent * 1000 / clock_hz,
        "mean_itl_ms": spent / later * 1000 / clock_hz if later else None,
        "tokens_per_second": later * clock_hz / spent if spent else None,
        "lpu_cycles": end - one.begin,
        "lpu_clock_hz": clock_hz,
        "arrival_cycle": one.arrival,
        "first_token_cycles": [each.first for each in times],
        "last_token_cycles": ends,
        "cycles_per_token": None if served.rounds else one.turn,
        "rounds": _rounds(jobs, one) if served.rounds else None,
        "mode": served.mode,
        "kind": served.kinds[0],
        "later_tokens_kind": served.kinds[1],
        "label": served.label,
        "tokens": served.tokens,
    }


def _rounds(jobs: Sequence[Job], one: SlotTimes) -> dict[str, int]:
    """Of all sequences: what was drafted, and became tokens; cycles of a round of the one that ends last."""
    return {
        "rounds": sum(job.steps for job in jobs),
        "drafted": sum(job.drafted for job in jobs),
        "accepted": sum(max(len(job.tokens) - 1, 0) - job.steps for job in jobs),
        "cycles_per_round": one.turn,
    }
