"""Errors in OpenAI's form."""

from typing import Any

from starlette.responses import JSONResponse

TYPES = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError"}


class RefusalError(Exception):
    """A request that is refused. param: the field that is wrong."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param = status, param

    def body(self) -> dict[str, Any]:
        """As clients of OpenAI read it."""
        kind = TYPES.get(self.status, "BadRequestError" if self.status < 500 else "InternalServerError")
        return {
            "error": {"message": str(self), "type": kind, "param": self.param, "code": self.status},
        }

    def response(self) -> JSONResponse:
        """The answer."""
        retry = {"Retry-After": "1"} if self.status in (429, 503) else None
        return JSONResponse(self.body(), self.status, headers=retry)
