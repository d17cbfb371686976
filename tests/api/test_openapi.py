"""The API's description is complete, well formed and true; the page over it needs no other host."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys

import jsonschema_rs
import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from core.ids import new_id
from handlers.common import DOCS_ASSETS
from handlers.operations import METHODS
from server.application import ROUTES
from tests.district import good, open_district

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


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


CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
CHECKS += "response_schema_conformance"
# Each ends the session that the rest of the run needs.
ENDING = ("delete_api_v1_session", "delete_api_v1_me", "delete_admin_api_v1_session")
# What changes who may do what: tried on a district of its own, by whoever may do it.
ADMINISTRATION = (
    "^/admin/api/v1/(me|session|staff|roles|units|categories|catalogue|filing-standards|routing|areas|delegations|"
    "camera-sources|cameras)(/|$)"
)


@pytest.mark.parametrize(
    ("side", "paths", "but"),
    [("citizen", "^/api/v1/", None), ("staff", "^/(?!api/)", ADMINISTRATION)],
    ids=["as a citizen", "as staff, and what belongs to nobody"],
)
async def test_no_generated_request_is_answered_with_a_5xx_or_against_the_description(
    district, tmp_path, side, paths, but
):
    citizen = await district.citizen()
    who = citizen if side == "citizen" else await district.staff("duty_chief")
    number = await district.submit(citizen)
    await district.settled(number)
    # A number that exists, so that the answers to what succeeds are looked at as well.
    await generated(district, who, tmp_path, {"number": number}, paths, but)


async def test_no_generated_request_of_an_administrator_is_answered_with_a_5xx(mongodb_url, redis_url, tmp_path):
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"test_{new_id()}", worker=False) as district:
        who = await district.staff("admin")
        colleague = await district.staff("collector")
        present = {"staff_id": colleague.facts["staff"]["staff_id"], "role_key": "assessor", "unit_key": "roads"}
        present |= {"category_key": "other", "rule_key": "rule_road_damage", "area_code": "990101001"}
        await generated(district, who, tmp_path, present, ADMINISTRATION, None)


async def generated(district, who, folder, present, paths, but):
    """Have requests made up to all ``paths`` (``but`` some) and their answers held against the description."""
    named = "".join(f'"path.{name}" = "{value}"\n' for name, value in present.items())
    (folder / "schemathesis.toml").write_text(f"[parameters]\n{named}")
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml")),
        *("run", f"{district.url}/openapi.json", "--header", f"Authorization: Bearer {who.token}"),
        *("--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--include-path-regex", paths),
        *("--max-examples", "15", "--seed", "1", "--suppress-health-check", "all", "--generation-database", "none"),
        *("--request-timeout", "120", "--warnings", "off", "--no-color", "--max-failures", "5"),
        *(("--exclude-path-regex", but) if but else ()),
        *(argument for name in ENDING for argument in ("--exclude-operation-id", name)),
    ]
    # Beside the server's own loop, over a socket; from a folder of its own, where it may leave what it likes.
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "NO_PROXY": "*", "PYTHONUTF8": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said = (await process.communicate())[0].decode("utf-8", "replace")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said[-6000:]
    assert re.search(r"[1-9]\d+ generated, [1-9]\d+ passed", said), said[-2000:]


async def test_the_page_names_no_other_host_and_its_files_are_served(district):
    page = await district.http.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert not re.search(r"https?://|//[a-z]", page.text)
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
    if not DOCS_ASSETS.is_dir():
        pytest.skip("the page's files are not installed (make setup)")
    for name, kind in (
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("start.js", "text/javascript"),
    ):
        assert name in page.text
        answer = await district.http.get(f"/docs/{name}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
    for name in ("package.json", "..%2fpackage.json", "swagger-ui.css.map", "%2e%2e"):
        assert (await district.http.get(f"/docs/{name}")).status_code == 404


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
@pytest.mark.skipif(not DOCS_ASSETS.is_dir(), reason="the page's files are not installed (make setup)")
async def test_a_browser_shows_the_page_and_asks_nobody_else(district):
    """The real page in a real browser, which tells what the page asked for."""
    asked: list[str] = []
    complaints: list[str] = []  # What the page's policy kept it from asking is told here.
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        # Tall: the page draws only the operations that are in sight.
        page = await browser.new_page(viewport={"width": 1280, "height": 16_000})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        await page.goto(f"{district.url}/docs")
        for tag in ("Citizen: reports", "Staff: cases", "System"):
            await page.get_by_text(tag, exact=True).first.wait_for(timeout=60_000)
        await page.get_by_text("A file of the page", exact=True).wait_for(timeout=60_000)
        # Not the load state "networkidle": on a slow machine it once had not come 30 s after the last answer.
        await page.evaluate("new Promise(done => requestIdleCallback(done, {timeout: 60_000}))")
        assert await page.title() == "共治接口文档"
        assert await page.get_by_text("共治 Gongzhi API").count() == 1
        await browser.close()
    assert {a.partition("?")[0].removeprefix(district.url) for a in asked if a.startswith(district.url)} >= {
        "/docs",
        "/docs/swagger-ui.css",
        "/docs/swagger-ui-bundle.js",
        "/docs/start.js",
        "/openapi.json",
    }
    assert [a for a in asked if not a.startswith((district.url, "data:", "blob:"))] == []
    assert complaints == []
