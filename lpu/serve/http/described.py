"""The API described as OpenAPI, from the bodies that it reads."""

from importlib.metadata import version
from typing import Any

from pydantic import BaseModel

from lpu.serve.http.protocol import ChatBody, CompletionBody, DetokenizeBody, TokenizeBody

POSTS: dict[str, type[BaseModel]] = {
    "/v1/completions": CompletionBody,
    "/v1/chat/completions": ChatBody,
    "/tokenize": TokenizeBody,
    "/detokenize": DetokenizeBody,
}
GETS = ("/health", "/ping", "/version", "/metrics", "/v1/models", "/lpu/schedule")
REFUSALS = ("400", "401", "404", "408", "413", "429")


def described() -> dict[str, Any]:
    """The document."""
    shared: dict[str, Any] = {}
    paths: dict[str, Any] = {path: {"get": {"responses": _responses()}} for path in GETS}
    for path, body in POSTS.items():
        found = body.model_json_schema(ref_template="#/components/schemas/{model}")
        shared |= found.pop("$defs", {})
        content = {"application/json": {"schema": found}}
        paths[path] = {
            "post": {"requestBody": {"required": True, "content": content}, "responses": _responses()}
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "lpu serve", "version": version("lpu-emulator")},
        "paths": paths,
        "components": {"schemas": shared},
    }


def _responses() -> dict[str, Any]:
    return {code: {"description": "refused"} for code in REFUSALS} | {"200": {"description": "done"}}
