"""Open311 GeoReport v2: what anybody reads, and the protocol's own rules about it."""

from __future__ import annotations

import itertools
import json
import random
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import pytest_asyncio

from accounts.api_keys import ApiKeyService
from core.clock import shanghai
from core.ids import new_id
from reports.catalogue.categories import Catalogue, starting_categories
from reports.service import ReportService
from tests.api.open311_support import HERE, ask, form, hand_in, plain, public_report, refused, spark
from tests.api.support import problem
from tests.clock import later
from tests.district import INSIDE, District, open_district

W3C = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")
REQUEST_FIELDS = {
    "service_request_id", "status", "status_notes", "service_name", "service_code", "description", "agency_responsible",
    "service_notice", "requested_datetime", "updated_datetime", "expected_datetime", "address", "address_id", "zipcode",
    "lat", "long", "media_url",
}  # fmt: skip


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


# --- the two forms


async def test_the_xml_is_the_json_by_the_spark_convention_at_every_address(here, api_key):
    number = await public_report(here, category="exposed_garbage", description='袋子 <b>&</b> "纸箱"\n第二行')
    await hand_in(here, form(api_key, **{"attribute[what]": "动物尸体"}))
    for path, root in {
        "discovery": "discovery",
        "services": "services",
        "services/exposed_garbage": "service_definition",
        "services/none": "errors",
        "requests": "service_requests",
        f"requests/{number}": "service_requests",
        f"tokens/{number}": "service_requests",
        "requests/0": "errors",
    }.items():
        xml, as_json = [await here.http.get(f"{HERE}/{path}.{suffix}") for suffix in ("xml", "json")]
        assert xml.status_code == as_json.status_code
        assert xml.headers["Content-Type"] == "text/xml; charset=utf-8"
        assert as_json.headers["Content-Type"] == "application/json; charset=utf-8"
        assert xml.content.startswith(b'<?xml version="1.0" encoding="utf-8"?>')
        element = ET.fromstring(xml.content)
        assert element.tag == root
        assert spark(element) == plain(as_json.json()), path


async def test_what_xml_cannot_hold_does_not_break_it(here):
    number = await public_report(here, description="坏字符\uffff和\ufffe还有😀都在这里")
    xml = await here.http.get(f"{HERE}/requests/{number}.xml")
    [request] = spark(ET.fromstring(xml.content))
    assert request["description"] == "坏字符\ufffd和\ufffd还有😀都在这里"


@pytest.mark.parametrize("path", ["services.html", "services", "nothing.xml", "requests/1.yaml", ""])
async def test_an_address_that_is_none_is_told_in_the_protocols_form(here, path):
    refused(await here.http.get(f"{HERE}/{path}"), 404)


async def test_a_method_that_is_none_is_told_in_the_protocols_form(here):
    for suffix in ("xml", "json"):
        answer = await here.http.post(f"{HERE}/services.{suffix}")
        assert "405" in answer.text
        refused(answer, 405)


# --- discovery and services


async def test_discovery_names_the_endpoint_and_moves_on_when_a_category_changes(here):
    before = await ask(here, "discovery")
    assert before.keys() == {"changeset", "contact", "key_service", "endpoints"}
    [endpoint] = before["endpoints"]
    assert endpoint == {
        "specification": "http://wiki.open311.org/GeoReport_v2",
        "url": here.url + HERE,
        "changeset": before["changeset"],
        "type": "test",
        "formats": ["text/xml", "application/json"],
    }
    assert all((before["contact"], before["key_service"], W3C.fullmatch(before["changeset"])))
    with later(hours=1):
        await here.services[Catalogue].put_category(starting_categories()[0])
    assert (await ask(here, "discovery"))["changeset"] > before["changeset"]


async def test_services_are_the_citizens_categories_with_their_questions(here):
    categories = starting_categories()
    services = await ask(here, "services")
    assert [s["service_code"] for s in services] == [c.key for c in categories]
    for service, category in zip(services, categories, strict=True):
        assert service["service_name"] == category.name
        assert service["metadata"] is bool(category.questions)
        assert service["type"] == "realtime"
        assert service["group"] in {"部件", "事项"}
        assert set(service["keywords"].split(", ")) == {code.name for code in category.codes}
        definition = await ask(here, f"services/{category.key}")
        assert definition["service_code"] == category.key
        assert [a["code"] for a in definition["attributes"]] == [q.key for q in category.questions]
        assert [a["order"] for a in definition["attributes"]] == [*range(1, len(category.questions) + 1)]
        for attribute, question in zip(definition["attributes"], category.questions, strict=True):
            assert attribute["variable"] is True
            assert attribute["required"] is question.required
            assert attribute["datatype"] == ("text" if question.kind == "text" else "singlevaluelist")
            if question.kind == "choice":
                assert [v["key"] for v in attribute["values"]] == list(question.options)
            if question.kind == "yes_no":
                assert [v["key"] for v in attribute["values"]] == ["yes", "no"]


async def test_the_jurisdiction_may_be_left_out_or_empty_and_another_is_not_found(here, api_key):
    division = here.settings.reports.division
    for path, jurisdiction in itertools.product(("services", "requests"), (division, "", None)):
        params = {} if jurisdiction is None else {"jurisdiction_id": jurisdiction}
        assert await ask(here, path, **params) == await ask(here, path)
    for path in ("discovery.xml", "services.json", "services/other.xml", "requests.json", "tokens/1.xml"):
        refused(await here.http.get(f"{HERE}/{path}?jurisdiction_id=elsewhere.gov"), 404)
    fields = form(api_key)
    refused(await here.http.post(f"{HERE}/requests.xml", data={**fields, "jurisdiction_id": "elsewhere.gov"}), 404)
    refused(await here.http.post(f"{HERE}/requests.xml?jurisdiction_id=elsewhere.gov", data=fields), 404)
    await hand_in(here, {**fields, "jurisdiction_id": division})


# --- reading reports


async def test_a_case_is_shown_as_every_citizen_may_see_it_through_its_life(here):
    phone = "13912340000"
    number = await public_report(
        here, category="exposed_garbage", description="垃圾堆了三天", address="菜市场旁", contact_phone=phone
    )
    [case] = await ask(here, f"requests/{number}")
    assert case.keys() == REQUEST_FIELDS
    assert (case["status"], case["service_code"], case["service_name"]) == ("open", "exposed_garbage", "暴露垃圾")
    assert (case["description"], case["address"]) == ("垃圾堆了三天", "菜市场旁")
    assert case["agency_responsible"] == "sanitation所"
    assert "sanitation所" in case["status_notes"]
    assert "结案条件" in case["service_notice"]
    assert (case["long"], case["lat"]) == pytest.approx(INSIDE, abs=1e-6)
    assert case["address_id"] is case["zipcode"] is None
    for name in ("requested_datetime", "updated_datetime", "expected_datetime"):
        assert W3C.fullmatch(case[name]), case[name]
    report = await here.services[ReportService].get(number)
    assert datetime.fromisoformat(case["expected_datetime"]) == report["due_at"].replace(microsecond=0)
    image = await here.http.get(case["media_url"])
    assert (image.status_code, image.headers["Content-Type"]) == (200, "image/jpeg")
    assert phone not in json.dumps(case)
    await here.action("unit-sanitation", number, "accept")
    photo = await (await here.staff("unit-sanitation")).photo()
    await here.action("unit-sanitation", number, "handle", note="已清运", photo_ids=[photo])
    await here.action("verifier", number, "close")
    closed = (await here.services[ReportService].get(number))["timeline"][-1]["at"]
    with later(minutes=5):
        await here.action("verifier", number, "note", note="内部的话不外传")
    [case] = await ask(here, f"requests/{number}")
    assert case["status"] == "closed"
    assert datetime.fromisoformat(case["updated_datetime"]) == closed.replace(microsecond=0)
    assert "内部的话不外传" not in json.dumps(case, ensure_ascii=False)
    assert case in await ask(here, "requests", status="closed")
    assert case not in await ask(here, "requests", status="open")


async def test_a_photo_link_lasts_a_week_and_not_for_ever(here):
    number = await public_report(here)
    [case] = await ask(here, f"requests/{number}")
    with later(days=7):
        assert (await here.http.get(case["media_url"])).status_code == 200
    with later(days=9):
        problem(await here.http.get(case["media_url"]), 403, "PHOTO_LINK")


async def test_what_citizens_do_not_see_is_not_there(here):
    reports = here.services.database["reports"]
    unchecked, withdrawn, void, blurred = [await public_report(here) for _ in range(4)]
    await reports.update_one({"_id": unchecked}, {"$set": {"public": False}})
    await reports.update_one({"_id": withdrawn}, {"$set": {"state": "withdrawn"}})
    await here.action("intake", void, "void", reason="不属于受理范围")
    photo = (await here.services[ReportService].get(blurred))["photos"][0]
    await reports.update_one({"_id": blurred}, {"$set": {f"photo_verdicts.{photo}": "risky"}})
    listed = {case["service_request_id"]: case for case in await ask(here, "requests")}
    for number in (unchecked, withdrawn, void):
        assert number not in listed
        assert await ask(here, "requests", service_request_id=number) == []
        refused(await here.http.get(f"{HERE}/requests/{number}.xml"), 404)
        refused(await here.http.get(f"{HERE}/tokens/{number}.json"), 404)
    assert listed[blurred]["media_url"] is None


async def shelf(here: District, **fields: Any) -> str:
    """A copy of a public report with other ``fields``, straight into the collection."""
    reports = here.services.database["reports"]
    model = await here.services[ReportService].get(await public_report(here))
    number = f"{random.randrange(10**20):020d}"
    await reports.insert_one({**model, "_id": number, "owed": [], **fields})
    return number


async def test_a_list_reaches_back_ninety_days_or_where_it_is_told(here):
    moment = datetime.now(UTC).replace(microsecond=0)
    ages = {days: await shelf(here, created_at=moment - timedelta(days=days)) for days in (1, 89, 91, 200)}

    async def found(**params: str) -> set[int]:
        numbers = {case["service_request_id"] for case in await ask(here, "requests", **params)}
        return {days for days, number in ages.items() if number in numbers}

    def ago(days: float) -> str:
        return f"{moment - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"

    assert await found() == {1, 89}
    assert await found(start_date=ago(95)) == {91, 89}, "ninety days from there on"
    assert await found(end_date=ago(100)) == set()
    assert await found(end_date=ago(150)) == {200}
    assert await found(start_date=ago(91), end_date=ago(91)) == {91}, "both ends belong to it"
    east = shanghai(moment - timedelta(days=91)).isoformat()
    assert await found(start_date=east, end_date=east) == {91}
    raw = await here.http.get(f"{HERE}/requests.json?start_date={east}&end_date={east}")  # the plus sign not escaped
    assert ages[91] in raw.text
    assert await found(start_date=ago(92), end_date=ago(2)) == {91, 89}, "ninety days are not too many"
    refused(await here.http.get(f"{HERE}/requests.json", params={"start_date": ago(93), "end_date": ago(2)}), 400)


@pytest.mark.parametrize(
    "query",
    [
        "start_date=2026-01-01", "start_date=2026-01-01T00:00:00", "start_date=yesterday", "end_date=1700000000",
        "end_date=2026-02-30T00:00:00Z", "end_date=0001-01-01T00:00:00%2B08:00", "end_date=9999-12-31T23:59:59-12:00",
        "start_date=2026-02-02T00:00:00Z&end_date=2026-02-01T00:00:00Z", "status=pending", "status=open,broken",
        "status=open&start_date=x", "service_code=%ff", "jurisdiction_id=a&jurisdiction_id=b",
    ],
)  # fmt: skip
async def test_what_cannot_be_asked_is_400(here, query):
    for suffix in ("xml", "json"):
        refused(await here.http.get(f"{HERE}/requests.{suffix}?{query}"), 400)


async def test_lists_are_by_comma_or_by_repeating_and_empty_means_any(here):
    await public_report(here, category="road_damage", answers={"collapse": "no"})
    await public_report(here, category="overflow_bin")
    both = await ask(here, "requests", service_code="road_damage,overflow_bin")
    assert {case["service_code"] for case in both} == {"road_damage", "overflow_bin"}
    assert await ask(here, "requests", service_code=["road_damage", "overflow_bin"]) == both
    assert {c["service_code"] for c in await ask(here, "requests", service_code="overflow_bin")} == {"overflow_bin"}
    assert await ask(here, "requests", service_code="no_such_code") == []
    everything = await ask(here, "requests")
    assert await ask(here, "requests", service_code="", status="", start_date="", page_size="5") == everything
    assert await ask(here, "requests", status="open,closed") == everything
    assert await ask(here, "requests", status=["OPEN", "closed"]) == everything
    times = [case["requested_datetime"] for case in everything]
    assert times == sorted(times, reverse=True)


async def test_ids_override_everything_else(here):
    old = await shelf(here, created_at=datetime(2020, 1, 1, tzinfo=UTC))
    new = await public_report(here)
    asked = {
        "service_request_id": f"{old}, {new},,nonsense",
        "status": "broken",
        "start_date": "x",
        "service_code": "-",
    }
    assert [case["service_request_id"] for case in await ask(here, "requests", **asked)] == [new, old]


async def test_a_list_holds_a_thousand_at_most_the_newest(mongodb_url, redis_url, tmp_path):
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}") as here:
        model = await here.services[ReportService].get(await public_report(here))
        moment = datetime.now(UTC)
        copies = [
            {**model, "_id": f"{n:020d}", "owed": [], "created_at": moment - timedelta(minutes=n)}
            for n in range(1, 1006)
        ]
        await here.services.database["reports"].insert_many(copies)
        for suffix in ("json", "xml"):
            answer = await here.http.get(f"{HERE}/requests.{suffix}")
            cases = answer.json() if suffix == "json" else spark(ET.fromstring(answer.content))
            assert len(cases) == 1000
            assert cases[1]["service_request_id"] == f"{1:020d}"
            assert cases[-1]["service_request_id"] == f"{999:020d}"
