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
OPEN = ("/health", "/ping")  # answered without a key
REFUSALS = ("400", "401", "404", "405", "408", "413", "429")
JSON, TEXT, EVENTS = "application/json", "text/plain", "text/event-stream"
NEEDED: dict[str, dict[str, Any]] = {
    "/v1/completions": {"id": "string", "object": "string", "choices": "array", "usage": "object"},
    "/v1/chat/completions": {"id": "string", "object": "string", "choices": "array", "usage": "object"},
    "/tokenize": {"tokens": "array", "count": "integer", "max_model_len": "integer"},
    "/detokenize": {"prompt": "string"},
    "/version": {"version": "string"},
    "/v1/models": {"object": "string", "data": "array"},
    "/v1/models/{model}": {"id": "string", "object": "string"},
    "/lpu/schedule": {"schema": "string", "sequences": "array"},
}
"""What an answer always has, by name and kind."""
ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "integer"},
            },
        }
    },
}


def described(model: str) -> dict[str, Any]:
    """The document of a server of one model."""
    shared: dict[str, Any] = {"Error": ERROR}
    paths: dict[str, Any] = {path: {"get": {"responses": _responses(path), **_open(path)}} for path in GETS}
    for path, body in POSTS.items():
        found = body.model_json_schema(ref_template="#/components/schemas/{model}")
        shared |= found.pop("$defs", {})
        _name(found["properties"]["model"], model)
        content = {JSON: {"schema": found}}
        paths[path] = {
            "post": {"requestBody": {"required": True, "content": content}, "responses": _responses(path)}
        }
    named = "/v1/models/{model}"
    word = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    paths[named] = {"get": {"parameters": [word], "responses": _responses(named)}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "lpu serve", "version": version("lpu-emulator")},
        "paths": paths,
        "security": [{}, {"key": []}],
        "components": {
            "schemas": shared,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _name(field: dict[str, Any], model: str) -> None:
    """The one model there is, where a field names it."""
    for kind in field.get("anyOf", [field]):
        if kind["type"] == "string":
            kind["enum"] = [model]


def _open(path: str) -> dict[str, Any]:
    return {"security": [{}]} if path in OPEN else {}


def _responses(path: str) -> dict[str, Any]:
    refused = {
        "description": "refused",
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    return {"200": {"description": "done"} | _content(path)} | dict.fromkeys(REFUSALS, refused)


def _content(path: str) -> dict[str, Any]:
    """What an answer holds."""
    if path == "/metrics":
        return {"content": {TEXT: {"schema": {"type": "string"}}}}
    if path not in NEEDED:
        return {}
    needed = NEEDED[path]
    kinds = {name: {"type": kind} for name, kind in needed.items()}
    content: dict[str, Any] = {
        JSON: {"schema": {"type": "object", "required": list(needed), "properties": kinds}}
    }
    if path.endswith("completions"):
        data = {"data": {"type": "string"}}
        content[EVENTS] = {"schema": {"type": "object", "required": ["data"], "properties": data}}
    return {"content": content}
