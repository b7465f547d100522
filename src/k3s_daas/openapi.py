"""A service's OpenAPI 3.1 document, out of the table that makes its routes: what is served is described.

Bodies are pydantic models and their JSON schemas are the document's, so what is checked and what is described
can't differ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_JSON = "application/json"

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Answer:
    """One status. `body` is a model (JSON), a media type such as "text/plain", or None for no body."""

    description: str
    body: type[BaseModel] | str | None = None


@dataclass(frozen=True)
class Operation:
    """One method of one path. `answers` are by status; `security` names one of the document's schemes.

    `parameters` are OpenAPI Parameter Objects of the path and the query, as they stand in the document.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    handler: Handler
    summary: str
    answers: Mapping[int, Answer]
    body: type[BaseModel] | None = None
    parameters: tuple[Mapping[str, Any], ...] = ()
    security: str | None = None
    tags: tuple[str, ...] = ()


def routes(operations: Iterable[Operation]) -> list[Route]:
    """The operations as Starlette's routes."""
    return [Route(one.path, one.handler, methods=[one.method]) for one in operations]


def header_key(name: str, description: str) -> dict[str, str]:
    """A Security Scheme Object: a secret in the header `name`."""
    return {"type": "apiKey", "in": "header", "name": name, "description": description}


def document(
    title: str,
    version: str,
    description: str,
    operations: Iterable[Operation],
    security: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """The OpenAPI document; `security` are its Security Scheme Objects by name."""
    table = list(operations)
    wanted: dict[tuple[type[BaseModel], Literal["validation", "serialization"]], None] = {}
    for one in table:
        if one.body is not None:
            wanted[one.body, "validation"] = None
        for answer in one.answers.values():
            if isinstance(answer.body, type):
                wanted[answer.body, "serialization"] = None
    references, schemas = models_json_schema(list(wanted), ref_template="#/components/schemas/{model}")
    paths: dict[str, dict[str, Any]] = {}
    for one in table:
        described: dict[str, Any] = {
            "summary": one.summary,
            "operationId": f"{one.method.lower()} {one.path}",
            "responses": {
                str(status): _response(answer, references) for status, answer in sorted(one.answers.items())
            },
        }
        if one.tags:
            described["tags"] = list(one.tags)
        if one.parameters:
            described["parameters"] = [dict(parameter) for parameter in one.parameters]
        if one.body is not None:
            content = {_JSON: {"schema": references[one.body, "validation"]}}
            described["requestBody"] = {"required": True, "content": content}
        if one.security is not None:
            described["security"] = [{one.security: []}]
        paths.setdefault(one.path, {})[one.method.lower()] = described
    components: dict[str, Any] = {"schemas": schemas.get("$defs", {})}
    if security:
        components["securitySchemes"] = {name: dict(scheme) for name, scheme in security.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "paths": paths,
        "components": components,
    }


def _response(answer: Answer, references: Mapping[Any, Any]) -> dict[str, Any]:
    if answer.body is None:
        return {"description": answer.description}
    if isinstance(answer.body, str):
        content = {answer.body: {"schema": {"type": "string"}}}
    else:
        content = {_JSON: {"schema": references[answer.body, "serialization"]}}
    return {"description": answer.description, "content": content}
