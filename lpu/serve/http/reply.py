"""The answer to one request, whole or chunk by chunk."""

import json
import logging
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from lpu.serve.http.answers import Answer, metrics_of, usage_of
from lpu.serve.http.asking import Wish
from lpu.serve.http.protocol import StreamOptions
from lpu.serve.http.texts import GrowingText
from lpu.serve.job import NewToken
from lpu.serve.refusal import RefusalError
from lpu.serve.service import Service, Sitting

LOG = logging.getLogger("lpu.serve")


class Reply:
    """The answer to one request, whole or chunk by chunk."""

    def __init__(self, service: Service, wish: Wish, sitting: Sitting) -> None:
        self.service, self.wish, self.sitting = service, wish, sitting
        tokenizer = service.served.tokenizer
        decode = tokenizer.decode if tokenizer else None
        self.answers = [
            Answer(
                index=i,
                job=job,
                text=GrowingText(decode, wish.stops),
                chat=wish.chat,
                lead=wish.leads[i // wish.n] if wish.leads else "",
            )
            for i, job in enumerate(sitting.jobs)
        ]
        self._head = {
            "id": f"{'chatcmpl' if wish.chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": service.served.name,
        }

    def _object(self, *, chunk: bool) -> str:
        if not self.wish.chat:
            return "text_completion"
        return "chat.completion.chunk" if chunk else "chat.completion"

    async def _pieces(self) -> AsyncIterator[tuple[Answer, str, NewToken, bool]]:
        """Each token as it comes: its choice, the text that it adds, itself, whether it is the last."""
        left = len(self.answers)
        while left:
            piece = await self.sitting.pieces.get()
            if isinstance(piece, BaseException):
                raise piece
            answer = self.answers[piece.choice]
            left -= piece.new.finish is not None
            yield answer, answer.take(piece.new), piece.new, not left

    async def _end(self) -> dict[str, Any]:
        """Usage and metrics, once all is decoded."""
        times = await self.service.settled(self.sitting)
        served, jobs = self.service.served, self.sitting.jobs
        for answer, one in zip(self.answers, times, strict=True):
            self.service.note(answer.job, one, answer.reason or "abort")
        metrics = metrics_of(jobs, times, served)
        return {"usage": self._usage(), "metrics": metrics}

    def _usage(self) -> dict[str, Any]:
        prompts, stated = sum(map(len, self.wish.prompts)), self.sitting.stated.arrival_ns is not None
        return usage_of(self.sitting.jobs, prompts, self.wish.n, stated=stated)

    async def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        texts = ["" for _ in self.answers]
        try:
            async for answer, text, _, _ in self._pieces():
                texts[answer.index] += text
            end = await self._end()
        finally:
            self.sitting.cancel()
        choices = [
            answer.body(text, answer.news, whole=True, first=True)
            for answer, text in zip(self.answers, texts, strict=True)
        ]
        return {**self._head, "object": self._object(chunk=False), "choices": choices, **end}

    async def chunks(self, told: StreamOptions) -> AsyncIterator[str]:
        """Server-sent events: one for each token, then usage and metrics, then [DONE]."""
        head = {**self._head, "object": self._object(chunk=True)}
        seen: set[int] = set()
        end: dict[str, Any] = {}
        try:
            async for answer, text, new, last in self._pieces():
                news = [new] if new.token >= 0 else []
                body = answer.body(text, news, whole=False, first=answer.index not in seen)
                seen.add(answer.index)
                usage = {"usage": self._usage()} if told.continuous_usage_stats else {}
                if last:
                    end = await self._end()
                    usage |= {"metrics": end["metrics"]}
                yield _event({**head, "choices": [body], **usage})
            if told.include_usage:
                yield _event({**head, "choices": [], **end})
        except RefusalError as refusal:
            yield _event(refusal.body())
        except Exception as error:
            LOG.exception("a stream failed")
            yield _event(RefusalError(500, f"{type(error).__name__} while answering.").body())
        yield "data: [DONE]\n\n"


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
