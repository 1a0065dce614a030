"""What clients send: the fields of OpenAI and vLLM that mean something here. Others are ignored.

Source: facts/serving.md 5.2. What would change tokens and is not done here is refused, not ignored.
"""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lpu.serve.refusal import RefusalError

MOST_CHOICES = 1024
MOST_STOPS = 16
NEUTRAL = {
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": None,
    "suffix": None,
    "use_beam_search": False,
}
Count = Annotated[int, Field(ge=0, lt=1 << 31)]
Body = TypeVar("Body", bound=BaseModel)
Ids = list[Annotated[int, Field(ge=0, lt=1 << 31)]]


class StreamOptions(BaseModel):
    """Of a stream: whether usage is told in the end, or with every chunk."""

    model_config = ConfigDict(strict=True)

    include_usage: bool = False
    continuous_usage_stats: bool = False


class Asked(BaseModel):
    """What completions and chats have in common."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    model: str
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] = 1
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    min_tokens: Count = 0
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: str | Annotated[list[str], Field(max_length=MOST_STOPS)] | None = None
    ignore_eos: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    priority: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)] | None = None
    best_of: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    suffix: str | None = None
    use_beam_search: bool | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts to stop at."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(found)

    @property
    def most(self) -> int | None:
        """New tokens at most; None: not said."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def usage(self) -> StreamOptions:
        """What of usage a stream tells."""
        return self.stream_options or StreamOptions()

    def refuse_unknown(self) -> None:
        """Raise RefusalError for what would change tokens and is not done here."""
        if "" in self.stops:
            raise RefusalError(400, "stop holds an empty text; each needs at least 1 character.", "stop")
        for name, neutral in NEUTRAL.items():
            value = getattr(self, name)
            if value not in (None, neutral, {}):
                raise RefusalError(400, f"{name} is {value!r}; only {neutral!r} is supported.", name)
        if self.best_of not in (None, 1, self.n):
            raise RefusalError(
                400, f"best_of is {self.best_of}, n is {self.n}: only best_of = n is supported.", "best_of"
            )
        if self.stream_options is not None and not self.stream:
            raise RefusalError(400, "stream_options needs stream: true.", "stream_options")


class CompletionBody(Asked):
    """POST /v1/completions."""

    prompt: str | Ids | list[str] | list[Ids]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool = False


class ChatBody(Asked):
    """POST /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool = True


class TokenizeBody(BaseModel):
    """POST /tokenize: a prompt, or the messages of a chat."""

    model_config = ConfigDict(strict=True)

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    add_special_tokens: bool = True


class DetokenizeBody(BaseModel):
    """POST /detokenize."""

    model_config = ConfigDict(strict=True)

    model: str | None = None
    tokens: Ids


def parsed(kind: type[Body], data: bytes) -> Body:
    """The body that bytes of JSON spell. Raises RefusalError that names the first wrong field."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise RefusalError(400, f"The body is not UTF-8 ({error.reason} at byte {error.start}).") from None
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        # of a field of several kinds, what is wrong with the kind that it has
        first = min(error.errors(), key=lambda one: one["type"].endswith("_type"))
        place = ".".join(str(part) for i, part in enumerate(first["loc"]) if not i or isinstance(part, int))
        given = repr(first["input"])[:60] if first["loc"] else ""
        message = f"{place + ': ' if place else ''}{first['msg']}{', got ' + given if given else ''}."
        raise RefusalError(400, message, str(first["loc"][0]) if first["loc"] else None) from None
