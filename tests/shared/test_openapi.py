"""The document and the routes come out of one table."""

from __future__ import annotations

from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from k3s_daas import openapi
from k3s_daas.openapi import Answer, Operation


class Inner(BaseModel):
    size: int = Field(ge=0)


class Question(BaseModel):
    name: str
    inner: Inner


class Reply(BaseModel):
    inner: Inner


async def handler(request: Request) -> JSONResponse:
    return JSONResponse({"method": request.method})


TABLE = (
    Operation("GET", "/things", handler, "List", {200: Answer("All", Reply), 204: Answer("None")}),
    Operation(
        "POST",
        "/things",
        handler,
        "Make",
        {200: Answer("Made", Reply), 400: Answer("No", "text/plain")},
        body=Question,
        parameters=({"name": "dry", "in": "query", "schema": {"type": "boolean"}},),
        security="key",
        tags=("write",),
    ),
)


def described() -> dict:
    return openapi.document("T", "1", "D", TABLE, {"key": openapi.header_key("X-Key", "the key")})


def test_each_method_of_a_path_stands_under_it():
    path = described()["paths"]["/things"]
    assert set(path) == {"get", "post"}
    assert path["get"]["responses"]["204"] == {"description": "None"}
    assert "requestBody" not in path["get"]
    assert "security" not in path["get"]
    post = path["post"]
    assert post["requestBody"] == {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Question"}}},
    }
    assert post["responses"]["400"]["content"] == {"text/plain": {"schema": {"type": "string"}}}
    assert post["parameters"] == [{"name": "dry", "in": "query", "schema": {"type": "boolean"}}]
    assert (post["security"], post["tags"]) == ([{"key": []}], ["write"])


def test_schemas_are_the_models_own():
    components = described()["components"]
    assert set(components["schemas"]) == {"Inner", "Question", "Reply"}
    assert components["schemas"]["Inner"]["properties"]["size"]["minimum"] == 0
    assert components["schemas"]["Reply"]["required"] == ["inner"]
    assert components["securitySchemes"]["key"]["name"] == "X-Key"


def test_the_document_is_valid():
    import jsonschema_rs

    # Every reference of the document resolves, and the schemas are schemas.
    document = described()
    schema = {"$ref": "#/components/schemas/Question", "components": document["components"]}
    assert jsonschema_rs.is_valid(schema, {"name": "a", "inner": {"size": 1}})
    assert not jsonschema_rs.is_valid(schema, {"name": "a", "inner": {"size": -1}})


def test_the_routes_are_those_of_the_table():
    client = TestClient(Starlette(routes=openapi.routes(TABLE)))
    assert client.get("/things").json() == {"method": "GET"}
    assert client.post("/things").json() == {"method": "POST"}
    assert client.delete("/things").status_code == 405
