"""Open311 GeoReport v2 with clients that other people wrote, and with what nobody would write."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
import pytest_asyncio

from accounts.api_keys import ApiKeyService
from core.ids import new_id
from reports.catalogue.categories import starting_categories
from tests.api.open311_support import HERE, form, public_report, refused
from tests.district import INSIDE, open_district, picture


@pytest_asyncio.fixture(scope="module")
async def here(mongodb_url, redis_url, tmp_path_factory):
    """A district of this module's own, so that whole lists can be looked at."""
    folder = tmp_path_factory.mktemp("open311")
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}") as opened:
        yield opened


@pytest_asyncio.fixture
async def api_key(here):
    _, key = await here.services[ApiKeyService].create("邻区热线", ["open311.write"], "test")
    return key


async def test_the_client_three_reports_with_a_photo_and_reads_it_back(here, api_key, monkeypatch):
    pytest.importorskip("relaxml", reason="the client `three` is not installed")
    monkeypatch.setattr(itertools, "ifilter", filter, raising=False)  # it was written for Python 2
    monkeypatch.setenv("NO_PROXY", "*")
    three = pytest.importorskip("three", reason="the client `three` is not installed")
    city = three.Three(here.url + HERE, api_key=api_key, jurisdiction=here.settings.reports.division)
    assert (await asyncio.to_thread(city.discovery))["endpoints"][0]["url"] == here.url + HERE
    services = await asyncio.to_thread(city.services)
    assert "exposed_garbage" in {s["service_code"] for s in services}
    definition = await asyncio.to_thread(city.services, "exposed_garbage")
    assert definition["attributes"][0]["code"] == "what"
    [taken] = await asyncio.to_thread(
        city.post,
        "exposed_garbage",
        lat=INSIDE[1],
        long=INSIDE[0],
        address="菜市场旁",
        name="Zach Williams",
        phone="555-5555",
        description="用 three 报来的",
        media=picture(),
        **{"attribute[what]": "生活垃圾"},
    )
    number = taken["service_request_id"]
    await here.action("intake", number, "file", category="exposed_garbage", condition="household")
    report = await here.settled(number)
    assert len(report["photos"]) == 1
    [case] = await asyncio.to_thread(city.request, number)
    assert (case["description"], case["address"]) == ("用 three 报来的", "菜市场旁")
    assert await asyncio.to_thread(city.token, number) == [{"service_request_id": number, "token": number}]
    day = datetime.now(UTC)
    between = [(day - timedelta(days=1)).date(), (day + timedelta(days=1)).date()]
    found = await asyncio.to_thread(city.requests, "exposed_garbage", between=between, status="open", count=5)
    assert number in {c["service_request_id"] for c in found}
    errors = await asyncio.to_thread(city.post, "exposed_garbage", lat=0, long=0, description="在海里")
    assert errors[0]["code"] == 400


@pytest.mark.parametrize("output", ["json", "xml"])
async def test_the_client_georeport_reads_both_forms(here, monkeypatch, output):
    georeport = pytest.importorskip("georeport", reason="the client `georeport` is not installed")
    monkeypatch.setenv("NO_PROXY", "*")
    numbers = [await public_report(here, category="overflow_bin") for _ in range(2)]
    city = georeport.GeoReport(here.url + HERE, jurisdiction=here.settings.reports.division, output_format=output)
    services = await asyncio.to_thread(city.get_service_list)
    assert [s["service_code"] for s in services] == [c.key for c in starting_categories()]
    assert (await asyncio.to_thread(city.get_service_definition, "overflow_bin"))["service_code"] == "overflow_bin"
    case = await asyncio.to_thread(city.get_service_request, numbers[0])
    assert (case["service_request_id"], case["status"]) == (numbers[0], "open")
    found = await asyncio.to_thread(city.get_service_requests, service_code="overflow_bin", status="open")
    assert set(numbers) <= {c["service_request_id"] for c in found}
    chosen = await asyncio.to_thread(city.get_service_requests, service_request_id=",".join(numbers))
    assert {c["service_request_id"] for c in chosen} == set(numbers)


async def test_nothing_that_can_be_sent_makes_the_server_fail(here, api_key):
    rng = random.Random(311)
    words = [
        "", "0", "-1", "1e999", "nan", "open", "closed", "a,b,,", "2026-01-01T00:00:00Z", "\x00", b"\xff\xfe", "%",
        "[]", b"\xed\xa0\xbd", "attribute[a]", "x" * 5000, "$where", "{}", "../..", api_key,
    ]  # fmt: skip
    names = [
        "api_key", "service_code", "service_request_id", "status", "start_date", "end_date", "jurisdiction_id", "lat",
        "long", "attribute[what]", "attribute[what][]", "attribute", "attribute[", "description", "media_url", "email",
        "",
    ]  # fmt: skip
    paths = ["discovery", "services", "services/{}", "requests", "requests/{}", "tokens/{}"]
    statuses = set()
    for _ in range(300):
        pairs = [(rng.choice(names), rng.choice(words)) for _ in range(rng.randrange(5))]
        piece = urlencode([("", rng.choice(words))])[1:][:300] or "0"
        address = f"{HERE}/{rng.choice(paths).format(piece)}.{rng.choice(('xml', 'json'))}"
        if rng.random() < 0.4:
            known = form(api_key) if rng.random() < 0.5 else {}
            body = urlencode([*known.items(), *pairs])
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = await here.http.post(address, content=body, headers=kind)
        else:
            answer = await here.http.get(f"{address}?{urlencode(pairs)}")
        assert answer.status_code < 500, (address, pairs, answer.text)
        statuses.add(answer.status_code)
        if answer.status_code >= 400:
            refused(answer, answer.status_code)
    assert statuses >= {200, 201, 400, 403, 404, 405}
