"""Requests that are in order, made from the API's own description: for a new operation without a word here, or with a
failure that says what word is wanted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import jsonschema_rs
from pydantic import BaseModel, ValidationError

from handlers.operations import ABOUT, Route
from server.application import openapi_of
from server.rooms import ROOMS, routes_of

ROUTES = routes_of(ROOMS)
Schema = dict[str, Any]

DOCUMENT = openapi_of(ROOMS)
WORDS = "现场情况如此，请予办理"
_FORM = "application/x-www-form-urlencoded"
_REFERENCE = re.compile(r'"#/components/schemas/([^"]+)"')


class Unknown(AssertionError):
    """Nothing that is known may stand there."""


@dataclass(frozen=True)
class Request:
    """What goes behind the method and the path: as httpx takes it."""

    params: dict[str, Any] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)


class Requests:
    """Makes requests. ``known`` has for the names of fields and parameters what may stand there, the best first;
    ``files`` by path, or by the name of the field."""

    def __init__(self, known: Mapping[str, list[Any]], files: Mapping[str, tuple[str, bytes]]) -> None:
        self._known = known
        self._files = files

    def of(self, route: Route, method: str, query: Literal["least", "all"] = "least") -> Request:
        """A request that the operation takes, with the parameters that it demands or with all that are known."""
        described = DOCUMENT["paths"][route.path][method]
        params = {
            p["name"]: self.value(p["schema"], p["name"])
            for p in described["parameters"]
            if p["in"] == "query" and (p["required"] or (query == "all" and p["name"] in self._known))
        }
        if "requestBody" not in described:
            return Request(params)
        ((kind, content),) = described["requestBody"]["content"].items()
        model = route.operations[method].body
        if kind == "multipart/form-data":
            file = content["schema"]["required"][0]
            files: dict[str, Any] = {file: self._files.get(route.path) or self._files[file]}
            if model is not None:
                about = self.body(content["schema"]["properties"][ABOUT], model)
                files[ABOUT] = (None, json.dumps(about).encode(), "application/json")
            return Request(params, {"files": files})
        if model is None:
            return Request(params, {"content": WORDS.encode()})
        return Request(params, {"data" if kind == _FORM else "json": self.body(content["schema"], model)})

    def body(self, schema: Schema, model: type[BaseModel]) -> dict[str, Any]:
        """A body as ``schema`` describes it that ``model`` takes, with as much in it as goes together."""
        problems = []
        for body in self._objects(_resolved(schema)):
            try:
                model.model_validate_json(json.dumps(body))
            except ValidationError as error:
                problems.append(str(error))
            else:
                return body
        raise Unknown(f"no body of {model.__name__} was found that is in order: {problems}")

    def _objects(self, schema: Schema) -> Iterator[dict[str, Any]]:
        required = schema.get("required", ())
        made: dict[str, Any] = {}
        for name, of_field in schema.get("properties", {}).items():
            try:
                made[name] = self.value(of_field, name)
            except Unknown:
                if name in required:
                    raise
        least = {name: value for name, value in made.items() if name in required}
        yield made
        yield from ({n: v for n, v in made.items() if n != name} for name in made if name not in least)
        yield from ({**least, name: value} for name, value in made.items() if name not in least)
        yield least

    def value(self, schema: Schema, name: str) -> Any:
        """Something that ``schema`` allows for ``name``. Raises :class:`Unknown`."""
        schema = _resolved(schema)
        judge = jsonschema_rs.Draft202012Validator(_with_references(schema), validate_formats=True)
        for candidate in chain(self._known.get(name, ()), self._made(schema, name)):
            if judge.is_valid(candidate):
                return candidate
        raise Unknown(f"say what may stand for {name!r}: {schema}")

    def _made(self, schema: Schema, name: str) -> Iterator[Any]:
        for one in schema.get("anyOf", ()):
            if one.get("type") != "null":
                yield self.value(one, name)
        yield from schema.get("enum", ())
        if "const" in schema:
            yield schema["const"]
        match schema.get("type"):
            case "object":
                yield next(self._objects(schema))
            case "array":
                yield [self.value(schema["items"], name)]
            case "boolean":
                yield True
            case "integer" | "number":
                yield schema.get("minimum", 1)
            case "string" if "pattern" not in schema:
                yield WORDS
                yield WORDS[: schema.get("maxLength")]


def _resolved(schema: Schema) -> Schema:
    found = _REFERENCE.fullmatch(json.dumps(schema.get("$ref")))
    return _resolved(DOCUMENT["components"]["schemas"][found[1]]) if found else schema


def _with_references(schema: Schema) -> Schema:
    """``schema`` with what it refers to, and nothing else: compiling all of the document takes a tenth of a second."""
    found: dict[str, Schema] = {}
    left = [schema]
    while left:
        for name in _REFERENCE.findall(json.dumps(left.pop())):
            if name not in found:
                found[name] = DOCUMENT["components"]["schemas"][name]
                left.append(found[name])
    return {**schema, "components": {"schemas": found}}
