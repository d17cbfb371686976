"""Whichever way a text comes in, it says something, has nothing unseen in it, and one kind of line end."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from accounts.api_keys import ApiKeyService
from core.errors import Invalid
from core.ids import new_id
from places.coordinates import CRS
from places.geojson import read_feature
from places.models import Level
from places.service import PlaceService
from reports.catalogue.categories import Catalogue, check_answers
from reports.models import Category
from reports.service import ReportService
from tests.api.open311_support import form, hand_in
from tests.api.support import fields, problem
from tests.api.test_exports import sheet, table
from tests.api.test_intake import HEADINGS, imported, order, row, sender
from tests.core.sheet_samples import book
from tests.core.sheet_samples import row as sheet_row
from tests.district import Client, location

BLANK = ["\u200b" * 5, "\u3164" * 5, "\u00ad" * 5, "\u200b    \u200b", "？？？。。。", "路灯。。。"]
GIVEN = "路灯坏了\r\n\u202e很黑\u3164\r\n请派人来\u200b"
KEPT = "路灯坏了\n很黑\n请派人来"


@pytest_asyncio.fixture(scope="module")
async def street(district):
    """A street of the district."""
    return (await district.services[PlaceService].areas(Level.STREET))[0]


@pytest_asyncio.fixture(scope="module")
async def ways(district, street):
    """What takes a description over HTTP: who calls, where, and with what else."""
    citizen, finder = await district.citizen(), await district.staff("collector")

    async def seen(who: Client) -> dict[str, Any]:
        about = {"category": "other", "answers": {"danger": "no"}, "photo_ids": [await who.photo()]}
        return {"location": location(), **about}

    async def ordered(_: Client) -> dict[str, Any]:
        return order(street)

    return {
        "citizen": (citizen, "/reports", seen),
        "staff": (finder, "/findings", seen),
        "hotline": (await sender(district, "intake.hotline"), "/reports", ordered),
        "department": (await sender(district, "intake.department"), "/reports", ordered),
    }


async def send(way: Any, description: str) -> Any:
    caller, path, body = way
    return await caller.call("POST", path, json={**await body(caller), "description": description})


@pytest.mark.parametrize("name", ["citizen", "staff", "hotline", "department"])
async def test_a_blank_description_is_refused_and_the_lines_of_a_good_one_are_kept(district, ways, name):
    for text in BLANK:
        details = problem(await send(ways[name], text), 422, "INVALID")
        assert fields(details) == {"description"}, (text, details)
    answer = await send(ways[name], GIVEN)
    assert answer.status_code == 201, answer.text
    report = await district.services[ReportService].get(answer.json()["number"])
    assert report["description"] == KEPT


async def test_an_order_sent_with_other_line_ends_is_the_same_order(district, ways):
    caller, path, body = ways["hotline"]
    first = {**await body(caller), "description": "第一行说垃圾\r\n第二行说地点", "address": "环市东路\r\n23 号"}
    again = {**first, "description": "第一行说垃圾\n第二行说地点", "address": "环市东路\r23 号\u200b"}
    numbers = {(await caller.post(path, each))["number"] for each in (first, again)}
    assert len(numbers) == 1


async def test_open311_keeps_what_is_said_and_takes_a_blank_text_for_none(district):
    _, key = await district.services[ApiKeyService].create("合作方", ["open311.write"], "test")
    category = (await district.services[Catalogue].category("exposed_garbage")).name
    for given, kept in ((GIVEN, KEPT), ("\u3164\u3164\u00ad", category)):
        number = await hand_in(district, form(key, description=given))
        assert (await district.services[ReportService].get(number))["description"] == kept


async def test_a_sheet_of_orders_is_held_to_the_same(district, street):
    good, *blank = (f"S{new_id()}" for _ in range(4))
    rows = [row(good, street, 诉求内容=GIVEN)]
    rows += [
        row(n, street, 诉求内容=t) for n, t in zip(blank, ["\u3164" * 5, "\u00ad" * 6, "？？？？？？"], strict=True)
    ]
    intake = await district.staff("intake")
    written = [[str(v) if v is not None else None for v in values] for values in rows]
    content = book(sheet_row(1, *HEADINGS), *(sheet_row(n, *values) for n, values in enumerate(written, 2)))
    job = await imported(intake, content)
    assert (job["result"]["loaded"], job["result"]["refused"]) == (1, 3)
    lines = table(await sheet(intake, job["job_id"]))
    assert (await district.services[ReportService].get(lines[0]["案件编号"]))["description"] == KEPT
    assert {line["原因"] for line in lines[1:]} == {"「诉求内容」不能为空"}


async def test_what_staff_and_citizens_write_elsewhere_has_to_say_something(district):
    citizen, chief = await district.citizen(), await district.staff("duty_chief")
    number = await district.submit(citizen)
    await district.settled(number)
    for note in ("\u3164", "\u00ad\u200b", "。"):
        details = problem(
            await chief.call("POST", f"/reports/{number}/actions/note", json={"note": note}), 422, "INVALID"
        )
        assert fields(details) == {"note"}
    await chief.post(f"/reports/{number}/actions/note", {"note": "看过\r\n\u2067没人"})
    assert (await district.services[ReportService].get(number))["timeline"][-1]["note"] == "看过\n没人"
    admin = await district.staff("admin")
    unit = {"key": "blank_named", "name": "\u3164\u3164", "short_name": "\u00ad"}
    assert {"name", "short_name"} <= fields(problem(await admin.call("POST", "/units", json=unit), 422, "INVALID"))


async def test_a_partner_has_a_name_that_is_seen(district):
    with pytest.raises(Exception, match="1 到 40 个字"):
        await district.services[ApiKeyService].create("\u3164\u3164", ["intake.hotline"], "test")


@pytest.mark.parametrize("name", ["\u3164", "\u200b\u00ad", "——", "\x00街道", "名" * 101, 7, None])
def test_an_area_needs_a_name_that_is_seen(name):
    feature: dict[str, Any] = {"type": "Feature", "properties": {"code": "990101001", "name": name}, "geometry": None}
    nameless = "属性 name 应为 1 到 100 个字的名称"
    assert nameless in read_feature(1, feature, Level.STREET, CRS.WGS84).reasons
    feature["properties"]["name"] = "东\u200b街"
    assert nameless not in read_feature(1, feature, Level.STREET, CRS.WGS84).reasons


async def test_a_question_that_has_to_be_answered_is_not_by_signs(district):
    known = (await district.services[Catalogue].category("other")).model_dump()
    asked = {"key": "what", "text": "是什么", "kind": "text", "required": True}
    category = Category.model_validate({**known, "questions": [asked]})
    check_answers(category, {"what": "塑料袋"})
    for answers in ({}, {"what": ""}):  # what PlainText makes of signs
        with pytest.raises(Invalid, match="请回答"):
            check_answers(category, answers)
