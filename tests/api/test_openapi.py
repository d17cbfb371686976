"""The API's description is complete and well formed. That it is true, test_generated_requests.py tries."""

from __future__ import annotations

import json
import re

import jsonschema_rs
import pytest
import pytest_asyncio

from handlers.operations import METHODS
from server.rooms import ROOMS, routes_of
from tests.district import good

ROUTES = routes_of(ROOMS)


@pytest_asyncio.fixture(scope="module")
async def document(district):
    return good(await district.http.get("/openapi.json"))


def test_the_description_is_openapi_3_1(document):
    """Against the specification's own schema, which schemathesis carries."""
    definitions = pytest.importorskip("schemathesis.specs.openapi.definitions")
    errors = [f"{e.instance_path}: {e.message}" for e in definitions.OPENAPI_31_VALIDATOR.iter_errors(document)]
    assert errors == []
    assert document["openapi"].startswith("3.1.")


def test_every_route_and_method_is_described_once(document):
    served = {(route.path, method) for route in ROUTES for method in route.operations}
    described = {(path, method) for path, item in document["paths"].items() for method in item if method in METHODS}
    assert described == served
    ids = [item[method]["operationId"] for item in document["paths"].values() for method in item]
    assert len(ids) == len(set(ids))


def test_every_method_that_a_handler_has_is_declared():
    for route in ROUTES:
        for method in METHODS:
            written = method in vars(route.handler)
            assert written == (method in route.operations), f"{method} {route.path} is served without a declaration"


def test_every_schema_is_one_and_every_reference_leads_somewhere(document):
    for name, schema in document["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid(schema), name
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert references
    for reference in references:
        section, _, name = reference.removeprefix("#/components/").partition("/")
        assert name in document["components"][section], reference


def test_every_operation_says_what_a_caller_needs_to_know(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            named = f"{method} {path}"
            assert operation["summary"], named
            assert operation["description"], named
            assert {t["name"] for t in document["tags"]} >= set(operation["tags"]), named
            in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path)), named
            for code, answer in operation["responses"].items():
                if int(code) >= 400:
                    problem = answer["content"]["application/json"]["schema"]["$ref"]
                    form = "Errors" if path.startswith("/open311/") else "Problem"  # Open311 has a form of its own
                    assert problem == f"#/components/schemas/{form}", named
            if "security" in operation:
                assert "401" in operation["responses"], named
            else:
                assert not path.endswith(("/me", "/reports")), f"{named} asks for nobody to be signed in"


def test_what_is_signed_in_for_is_what_is_asked_for(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            schemes = {name for need in operation.get("security", ()) for name in need}
            if path.startswith("/admin") and not (path.endswith("/session") and method == "post"):
                assert schemes == {"staff"}, path
            elif path.startswith("/api") and not (path.endswith("/session") and method == "post"):
                assert schemes == {"citizen"}, path
            elif path.startswith(("/intake", "/ingest")):
                assert schemes == {"partner"}, path
            else:
                assert schemes == set(), path
