"""The routes of the server: OpenAI's, vLLM's, and /lpu/schedule."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from hmac import compare_digest
from importlib.metadata import version
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lpu.serve.http.asking import Wish, chat_ids, chat_wish, completion_wish, encoded, stated_in
from lpu.serve.http.described import described
from lpu.serve.http.protocol import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    StreamOptions,
    TokenizeBody,
    parsed,
)
from lpu.serve.http.reply import Reply
from lpu.serve.refusal import RefusalError
from lpu.serve.service import Service

MOST_BYTES = 1 << 22  # of a body
MOST_THROWN_BYTES = 1 << 26  # of one that is too large, which are read before that is said
BODY_SECONDS = 30.0
Handler = Callable[[Request], Awaitable[Response]]


class Desk:
    """The handlers of one service. key: what clients must send, if anything."""

    def __init__(self, service: Service, key: str | None) -> None:
        self.service, self.served, self._key = service, service.served, key

    def routes(self) -> list[Route]:
        """What is answered, and how."""
        get: list[tuple[str, Handler]] = [
            ("/health", self.health),
            ("/ping", self.health),
            ("/version", self.version),
            ("/metrics", self.metrics),
            ("/openapi.json", self.described),
            ("/v1/models", self.models),
            ("/v1/models/{model:path}", self.model),
            ("/lpu/schedule", self.schedule),
        ]
        post: list[tuple[str, Handler]] = [
            ("/v1/completions", self.completions),
            ("/v1/chat/completions", self.chat),
            ("/tokenize", self.tokenize),
            ("/detokenize", self.detokenize),
        ]
        return [
            Route(path, self._guarded(handler), methods=[method])
            for method, some in (("GET", get), ("POST", post))
            for path, handler in some
        ]

    def _may(self, request: Request) -> bool:
        """Whether a request may be answered: it has the key, or needs none."""
        if self._key is None or request.url.path in ("/health", "/ping"):
            return True
        sent = request.headers.get("authorization", "").encode("latin-1")
        return compare_digest(sent, f"Bearer {self._key}".encode())

    def _guarded(self, handler: Handler) -> Handler:
        """Refusals as answers; a key where one is needed."""

        async def guarded(request: Request) -> Response:
            try:
                if not self._may(request):
                    raise RefusalError(401, "The key is missing or wrong: send Authorization: Bearer KEY.")
                return await handler(request)
            except RefusalError as refusal:
                return refusal.response()
            except ClientDisconnect:
                return Response(status_code=499)

        return guarded

    async def health(self, request: Request) -> Response:
        """Whether it is up."""
        return Response()

    async def version(self, request: Request) -> Response:
        """Of the package."""
        return JSONResponse({"version": f"lpu-emulator {version('lpu-emulator')}"})

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return Response(self.service.meters.text(), media_type=CONTENT_TYPE_LATEST)

    async def described(self, request: Request) -> Response:
        """The schema of this API."""
        return JSONResponse(described(self.served.name))

    async def models(self, request: Request) -> Response:
        """The one model, in a list."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """The one model, by its name."""
        self._check_model(request.path_params["model"])
        return JSONResponse(self._model())

    def _model(self) -> dict[str, Any]:
        return {
            "id": self.served.name,
            "object": "model",
            "created": 0,
            "owned_by": "lpu-emulator",
            "root": self.served.name,
            "max_model_len": self.served.machine.longest,
            "program_sha256": self.served.digest,
            "tokens": self.served.tokens,
        }

    async def schedule(self, request: Request) -> Response:
        """Every request that stated its arrival, as if all had shared the machine."""
        return JSONResponse({"schema": "lpu-schedule/1", "sequences": self.service.schedule()})

    async def tokenize(self, request: Request) -> Response:
        """Text, or a chat, to ids."""
        body = parsed(TokenizeBody, await self._data(request))
        self._check_model(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise RefusalError(400, "Send a prompt or messages, one of both.")
        if body.messages is not None:
            ids = chat_ids(ChatBody(model=self.served.name, messages=body.messages), self.served)
        elif body.add_special_tokens or self.served.tokenizer is None:
            ids = encoded(body.prompt or "", self.served)
        else:
            ids = tuple(self.served.tokenizer.encode_bare(body.prompt or ""))
        return JSONResponse({"tokens": ids, "count": len(ids), "max_model_len": self.served.machine.longest})

    async def detokenize(self, request: Request) -> Response:
        """Ids to text."""
        body = parsed(DetokenizeBody, await self._data(request))
        self._check_model(body.model)
        wrong = [token for token in body.tokens if token >= self.served.vocab]
        if wrong:
            raise RefusalError(
                400, f"token {wrong[0]} is outside the vocabulary of {self.served.vocab}.", "tokens"
            )
        if self.served.tokenizer is None:
            raise RefusalError(400, f"{self.served.name} has no tokenizer.")
        return JSONResponse({"prompt": self.served.tokenizer.decode(body.tokens)})

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        data = await self._data(request)
        body = parsed(CompletionBody, data)
        self._check_model(body.model)
        wish = completion_wish(body, self.served)
        return await self._answer(request, data, wish, body.usage if body.stream else None)

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        data = await self._data(request)
        body = parsed(ChatBody, data)
        self._check_model(body.model)
        return await self._answer(
            request, data, chat_wish(body, self.served), body.usage if body.stream else None
        )

    def _check_model(self, name: str | None) -> None:
        if name is not None and name != self.served.name:
            raise RefusalError(404, f"The model {name!r} does not exist; {self.served.name!r} does.", "model")

    async def _data(self, request: Request) -> bytes:
        """The body. Raises RefusalError for one that is too large, or too slow.

        Too large a one is read to its end and thrown away: many clients send all of it before they listen.
        """
        stated = request.headers.get("content-length", "")
        data, size = bytearray(), int(stated) if stated.isdigit() else 0
        read = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for some in request.stream():
                    read += len(some)
                    size = max(size, read)
                    if size > MOST_THROWN_BYTES:
                        break
                    if size <= MOST_BYTES:
                        data += some
        except TimeoutError:
            raise RefusalError(408, f"The body was not there within {BODY_SECONDS:g} s.") from None
        if size > MOST_BYTES:
            over = "over " * (read > MOST_THROWN_BYTES)
            raise RefusalError(413, f"The body has {over}{size:,} bytes, at most {MOST_BYTES:,} are taken.")
        return bytes(data)

    async def _answer(
        self, request: Request, data: bytes, wish: Wish, stream: StreamOptions | None
    ) -> Response:
        stated = stated_in(request.headers, data)
        sitting = self.service.begin(wish.make, wish.count, stated, wish.priority)
        self.service.meters.request(sum(map(len, wish.prompts)), wish.n)
        reply = Reply(self.service, wish, sitting)
        headers = (
            {"x-request-id": request.headers["x-request-id"]} if "x-request-id" in request.headers else None
        )
        if stream is not None:
            return EventStream(reply, stream, headers)
        return JSONResponse(await _unless_gone(request, reply), headers=headers)


class EventStream(StreamingResponse):
    """Server-sent events of an reply; its slots are free when the client has all of them, or is gone."""

    def __init__(self, reply: Reply, told: StreamOptions, headers: dict[str, str] | None) -> None:
        super().__init__(reply.chunks(told), media_type="text/event-stream", headers=headers)
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._reply.sitting.cancel()


async def _unless_gone(request: Request, reply: Reply) -> dict[str, Any]:
    """The whole answer; raises ClientDisconnect, and frees the slots, if the client goes before."""
    work = asyncio.create_task(reply.whole())
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        gone.cancel()
        work.cancel()
        if not work.done():
            reply.sitting.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(request: Request, error: Exception) -> Response:
    """What starlette refuses, such as a path that is none."""
    assert isinstance(error, HTTPException)
    answer = RefusalError(
        error.status_code, f"{request.method} {request.url.path}: {error.detail}."
    ).response()
    answer.headers.update(error.headers or {})  # which methods there are
    return answer


async def _broken(request: Request, error: Exception) -> Response:
    """A fault of ours."""
    return RefusalError(500, f"{type(error).__name__} while answering; see the server's log.").response()


def application(service: Service, key: str | None = None) -> Starlette:
    """The server as an ASGI application."""

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncGenerator[None]:
        yield
        await asyncio.to_thread(service.engine.stop)

    return Starlette(
        routes=Desk(service, key).routes(),
        lifespan=life,
        exception_handlers={HTTPException: _refused, Exception: _broken},
    )
