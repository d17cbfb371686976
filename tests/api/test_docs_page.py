"""The page over the API's description needs no other host."""

from __future__ import annotations

import re
import shutil

import pytest
from playwright.async_api import async_playwright

from handlers.common import DOCS_ASSETS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


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


@pytest.mark.browser
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
