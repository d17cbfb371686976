"""The OpenAPI 3.1 document, made from the declarations that also check the requests."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from core.storage.files import XLSX
from handlers.operations import ABOUT, Operation, PathParameters, Route

# What a method writes that writes its answer itself, by the kind of media.
_WRITTEN = {
    "application": {"type": "object"},
    "text": {"type": "string"},
    "image": {"type": "string", "format": "binary"},
    XLSX: {"type": "string", "format": "binary"},
}
_REF = "#/components/schemas/{model}"


def document(routes: Iterable[Route], parameters: PathParameters, *, title: str, version: str) -> dict[str, Any]:
    """The whole API of ``routes`` as an OpenAPI 3.1 document; ``parameters`` are those in their addresses."""
    routes = list(routes)
    schemas, definitions = _schemas(routes)
    paths: dict[str, Any] = {}
    for route in routes:
        for method, declared in route.operations.items():
            paths.setdefault(route.path, {})[method] = _operation(route, method, declared, schemas, parameters)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "tags": [{"name": tag} for tag in dict.fromkeys(r.tag for r in routes)],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "citizen": {"type": "http", "scheme": "bearer", "description": "From POST /api/v1/session."},
                "staff": {"type": "http", "scheme": "bearer", "description": "From POST /admin/api/v1/session."},
                "partner": {"type": "http", "scheme": "bearer", "description": "A partner's API key."},
            },
        },
    }


def _schemas(routes: list[Route]) -> tuple[dict[tuple[type[BaseModel], str], Any], dict[str, Any]]:
    wanted: dict[tuple[type[BaseModel], Any], None] = {}
    for route in routes:
        wanted[route.handler.problem, "serialization"] = None
        for declared in route.operations.values():
            if declared.body is not None:
                wanted[declared.body, "validation"] = None
            if declared.answer is not None:
                wanted[declared.answer, "serialization"] = None
    schemas, top = models_json_schema(list(wanted), ref_template=_REF)
    return {(cast(type[BaseModel], model), mode): s for (model, mode), s in schemas.items()}, top.get("$defs", {})


def _operation(
    route: Route,
    method: str,
    declared: Operation,
    schemas: dict[tuple[type[BaseModel], str], Any],
    parameters: PathParameters,
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "operationId": f"{method}_{route.path.strip('/').replace('/', '_').replace('{', '').replace('}', '')}",
        "tags": [route.tag],
        "summary": declared.summary,
        "description": declared.description,
        "parameters": [*_path_parameters(route, parameters), *_query_parameters(declared), *_headers(declared)],
        "responses": _responses(route, declared, schemas),
    }
    if declared.audience != "anyone":
        shown["security"] = [{declared.audience: []}]
    if declared.permission is not None:
        shown["x-permission"] = declared.permission
    if declared.reach is not None:
        shown["x-reach"] = declared.reach
    if declared.form_file is not None:
        form: dict[str, Any] = {
            "type": "object",
            "properties": {declared.form_file: {"type": "string", "format": "binary"}},
            "required": [declared.form_file],
            "additionalProperties": False,
        }
        content: dict[str, Any] = {"schema": form}
        if declared.body is not None:
            form["properties"][ABOUT] = schemas[declared.body, "validation"]
            form["required"].append(ABOUT)
            content["encoding"] = {ABOUT: {"contentType": "application/json"}}
        shown["requestBody"] = {"required": True, "content": {"multipart/form-data": content}}
    elif declared.body is not None:
        shown["requestBody"] = {
            "required": True,
            "content": {declared.consumes or "application/json": {"schema": schemas[declared.body, "validation"]}},
        }
    elif declared.consumes is not None:
        shown["requestBody"] = {"required": True, "content": {declared.consumes: {"schema": {"type": "string"}}}}
    return shown


def _path_parameters(route: Route, known: PathParameters) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": known[name].description,
            "schema": {"type": "string", "pattern": f"^({known[name].pattern})$"},
        }
        for name in route.parameters
    ]


def _query_parameters(declared: Operation) -> list[dict[str, Any]]:
    if declared.query is None:
        return []
    schema = declared.query.model_json_schema(ref_template=_REF)
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", []),
            "description": of_field.pop("description", ""),
            "schema": of_field,
        }
        for name, of_field in schema["properties"].items()
    ]


def _headers(declared: Operation) -> list[dict[str, Any]]:
    if not declared.idempotent:
        return []
    return [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "The same key with the same body is answered the same and done once; kept for 7 days.",
            "schema": {"type": "string", "pattern": "^[!-~]{8,128}$"},
        }
    ]


def _responses(route: Route, declared: Operation, schemas: dict[tuple[type[BaseModel], str], Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": HTTPStatus(declared.status).phrase}
    if declared.answer is not None:
        good["content"] = _content(route, schemas[declared.answer, "serialization"])
    elif declared.status != 204:
        written = _WRITTEN.get(declared.produces) or _WRITTEN[declared.produces.partition("/")[0]]
        good["content"] = {declared.produces: {"schema": written}}
    codes = {400, 413, 503, *declared.errors}
    if declared.limits:
        codes.add(429)
    if declared.audience != "anyone":
        codes.add(401)
    if declared.permission is not None or declared.scopes or declared.reach == "district":
        codes.add(403)
    if route.parameters:
        codes.add(404)
    if declared.body is not None or declared.query is not None or declared.form_file is not None:
        codes |= {415, 422}
    problem = _content(route, schemas[route.handler.problem, "serialization"])
    answers = {str(declared.status): good}
    for code in sorted({route.handler.shown_status(code) for code in codes}):
        answers[str(code)] = {"description": HTTPStatus(code).phrase, "content": problem}
        if code == 429:
            answers["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return answers


def _content(route: Route, schema: Any) -> dict[str, Any]:
    """``schema`` in each form that the route answers in. Of XML, OpenAPI cannot say more than that it is text."""
    return {m: {"schema": schema if m == "application/json" else _WRITTEN["text"]} for m in route.handler.media}
