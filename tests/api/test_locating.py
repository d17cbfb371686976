"""A case of which only a street was known gets its point: what goes by the place goes by the new one from then on."""

from __future__ import annotations

from typing import Any

import pytest_asyncio

from accounts.api_keys import ApiKeyService
from core.ids import new_id
from places.coordinates import CRS, convert
from places.models import Level
from places.service import PlaceService
from reports.catalogue.categories import Catalogue
from reports.models import RoutingRule
from reports.service import ReportService
from reports.worker import ReportWorker
from tests.api.support import collector, problem
from tests.api.test_indicators import counted
from tests.api.test_side_tasks import new_collector
from tests.district import INSIDE, Client, District, location, open_district
from tests.timing import until

ELSEWHERE = (113.2400, 23.1450)
"""A place in the first street; INSIDE lies in another one."""


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district with a rule for one grid alone: the one that INSIDE lies in."""
    folder = tmp_path_factory.mktemp("locating")
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}") as opened:
        grid = (await opened.services[PlaceService].locate(*INSIDE)).areas[-1]
        rule = RoutingRule(key="one_grid", order=9, name="网格归口", categories=("other",), areas=(grid,), unit="roads")
        await opened.services[Catalogue].put_rule(rule)
        yield opened


@pytest_asyncio.fixture(scope="module")
async def hotline(place):
    _, key = await place.services[ApiKeyService].create("12345 热线", ["intake.hotline"], "test")
    return Client(place.http, "/intake/v1", key)


async def by_street(district: District, hotline: Client, at: tuple[float, float] = ELSEWHERE) -> str:
    """A case of the hotline's in the middle of the street that ``at`` lies in."""
    street = (await district.services[PlaceService].locate(*at)).areas[1]
    order = {"external_number": new_id(), "description": "路口有一堆垃圾没有人清理", "area": street}
    return str((await hotline.post("/reports", {**order, "address": "某路口"}))["number"])


async def stored(district: District, number: str) -> dict[str, Any]:
    return dict(await district.services[ReportService].get(number))


async def test_a_case_known_by_its_street_gets_its_point_and_goes_by_it(place, hotline):
    number = await by_street(place, hotline)
    await place.action("intake", number, "file", category="other", condition="ordinary")
    before = await place.settled(number)
    assert (before["state"], before["place_precision"], len(before["areas"])) == ("filed", "street", 2)
    near = await place.staff("street-dispatcher")
    assert (await near.get(f"/reports/{number}"))["number"] == number
    wanted = await place.services[PlaceService].locate(*INSIDE)
    sent = convert(INSIDE, CRS.WGS84, CRS.GCJ02)  # what a phone's map gives
    body = {"location": location(*sent, crs="gcj02"), "address": "云溪路 8 号北门"}
    answer = await (await place.staff("dispatcher")).post(f"/reports/{number}/actions/locate", body)
    assert (answer["place_precision"], answer["address"]) == ("exact", "云溪路 8 号北门")
    assert abs(answer["location"]["longitude"] - INSIDE[0]) < 1e-5
    after = await place.settled(number)
    assert after["areas"] == wanted.areas
    assert after["place"]["grid"]["code"] == wanted.areas[-1]
    assert (after["given_location"]["crs"], after["given_location"]["coordinates"]) == ("gcj02", list(sent))
    # The rule of the new grid has sent it on, which the street alone could not.
    assert (after["state"], after["unit_id"]) == ("dispatched", "roads")
    # Lists, words and reach go by the new place, and the old street has lost it.
    dispatcher = await place.staff("dispatcher")
    for query in ({"grid": wanted.areas[-1]}, {"street": wanted.street.code}, {"text": "云溪路 8 号北门"}):
        found = await dispatcher.get("/reports", **query)
        assert number in [r["number"] for r in found["reports"]], query
    problem(await near.call("GET", f"/reports/{number}"), 404, "NO_SUCH_REPORT")
    entry = next(e for e in after["timeline"] if e["action"] == "locate")
    assert wanted.street.name in entry["says"]
    assert entry["given"]["area_before"] == before["areas"][-1]
    assert entry["given"]["location_before"] == before["location"]["coordinates"]


async def test_who_set_the_point_and_what_was_before_is_on_record(place, hotline):
    number = await by_street(place, hotline)
    before = await stored(place, number)
    await place.action("intake", number, "locate", location=location(*INSIDE), reason="来电人补充")
    after = await place.settled(number)
    auditor = await place.staff("audit_admin")
    found = await auditor.get("/audit", object_kind="report", object_id=number)
    (entry,) = [e for e in found["entries"] if e["action"] == "report.locate"]
    assert (entry["subject"]["id"], entry["reason"]) == (
        (await place.staff("intake")).facts["staff"]["staff_id"],
        "来电人补充",
    )
    changes = entry["changes"]
    assert changes["areas"] == {"before": before["areas"], "after": after["areas"]}
    assert changes["location"]["after"] == after["location"]
    assert changes["place_precision"] == {"before": "street", "after": "exact"}


async def test_a_point_that_is_known_is_changed_with_a_reason_and_until_it_is_handled(place):
    citizen = await place.citizen()
    number = await place.submit(citizen, location=location(*ELSEWHERE), category=None, answers={})
    dispatcher, here = await place.staff("dispatcher"), location(*INSIDE)
    path = f"/reports/{number}/actions/locate"
    problem(await dispatcher.call("POST", path, json={"location": here}), 422, "INVALID")
    outside = {"location": location(113.9, 23.9), "reason": "选错了"}
    problem(await dispatcher.call("POST", path, json=outside), 422, "OUTSIDE_DISTRICT")
    unknown = {"location": {"longitude": 113.2, "latitude": 23.1}, "reason": "选错了"}
    problem(await dispatcher.call("POST", path, json=unknown), 422, "INVALID")
    await dispatcher.post(path, {"location": here, "reason": "市民选错了位置"})
    photos = (await stored(place, number))["photo_facts"]
    assert len(photos) == 1
    await place.action("intake", number, "file", category="other", condition="ordinary")
    await place.settled(number)
    report = await stored(place, number)
    assert report["unit_id"] == "roads"
    # With the unit it is still moved; the unit keeps it.
    await dispatcher.post(path, {"location": location(*ELSEWHERE), "reason": "现场在另一侧"})
    report = await place.settled(number)
    assert (report["state"], report["unit_id"]) == ("dispatched", "roads")
    assert report["areas"] == (await place.services[PlaceService].locate(*ELSEWHERE)).areas
    unit = await place.staff("unit-roads")
    await unit.post(f"/reports/{number}/actions/accept", {})
    await unit.post(f"/reports/{number}/actions/handle", {"note": "已清理", "photo_ids": [await unit.photo()]})
    late = {"location": here, "reason": "记错了"}
    problem(await dispatcher.call("POST", path, json=late), 409, "STALE_STATE")


async def test_nobody_moves_a_case_out_of_their_own_reach(place, hotline):
    number = await by_street(place, hotline)
    near = await place.staff("street-dispatcher")
    path = f"/reports/{number}/actions/locate"
    problem(await near.call("POST", path, json={"location": location(*INSIDE)}), 422, "PLACE_OUT_OF_REACH")
    assert (await near.post(path, {"location": location(*ELSEWHERE)}))["place_precision"] == "exact"
    unit = await place.staff("unit-roads")
    problem(await unit.call("POST", path, json={"location": location(*INSIDE)}), 403, "NO_PERMISSION")


async def test_a_case_moved_while_the_rules_look_at_it_is_looked_at_again(place, hotline):
    """The payment that was worked out for the old place must not be made for the new one."""
    number = await by_street(place, hotline, at=INSIDE)
    report = await place.settled(number)
    report |= {"state": "filed", "category": "other"}
    payment = await place.services[ReportWorker].pay_route(report, {"kind": "route", "id": "x"})
    filed = {"state": "filed", "category": "other"}
    reports = place.services.database["reports"]
    await reports.update_one({"_id": number}, {"$set": filed})
    assert await reports.count_documents({"_id": number, **payment.condition}) == 1
    await place.action("dispatcher", number, "locate", location=location(*INSIDE))
    settled = await place.settled(number)
    assert settled["unit_id"] == "roads"
    await reports.update_one({"_id": number}, {"$set": {**filed, "unit_id": None}})
    assert await reports.count_documents({"_id": number, **payment.condition}) == 0


async def test_a_check_on_site_goes_with_its_case(place, hotline):
    number = await by_street(place, hotline)
    there = (await place.services[PlaceService].locate(*ELSEWHERE)).areas
    here = (await place.services[PlaceService].locate(*INSIDE)).areas
    await place.services.database["staff"].update_one({"username": "collector"}, {"$set": {"disabled": True}})
    far, near = await new_collector(place, [there[1]]), await new_collector(place, [here[1]], at=INSIDE)
    await place.action("intake", number, "ask_check")
    tasks = place.services.database["side_tasks"]

    async def offered_to(who: Client) -> Any:
        return await tasks.find_one({"number": number, "offered_to": who.facts["staff"]["staff_id"]})

    first = await until(lambda: offered_to(far))
    assert (first["place_precision"], await offered_to(near)) == ("street", None)
    await place.action("intake", number, "locate", location=location(*INSIDE))
    moved = await until(lambda: offered_to(near))
    assert (moved["_id"], moved["areas"], moved["place_precision"]) == (first["_id"], here, "exact")
    # Paid again, as after a crash, the debt changes nothing.
    report = await place.settled(number)
    await collector_of(place).pay_move_checks(report, {})
    assert (await tasks.find_one({"_id": moved["_id"]}))["round"] == moved["round"]


def collector_of(district: District) -> Any:
    """What pays the debts of checks."""
    return collector(district, "reports")._payers["move_checks"].__self__  # type: ignore[attr-defined]


async def test_the_indicators_count_the_case_where_it_lies(place, hotline):
    number = await by_street(place, hotline)
    await place.action("intake", number, "locate", location=location(*INSIDE))
    await place.settled(number)
    await counted(place)
    grid = (await stored(place, number))["areas"][-1]
    state = await place.services.database["statistics_state"].find_one({"_id": "reports"})
    fact = await place.services.database[f"report_facts_{state['generation']}"].find_one({"_id": number})
    assert fact["area"] == grid


async def test_the_street_that_a_case_comes_to_passes_it_on(mongodb_url, redis_url, tmp_path):
    """On two levels: it was sent to one street, and lies in another."""
    two_level = {"two_level": True}
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"test_{new_id()}", reports=two_level) as place:
        streets = await place.services[PlaceService].areas(Level.STREET)
        assert streets[0].code in (await place.services[PlaceService].locate(*ELSEWHERE)).areas
        number = await place.submit(await place.citizen(), location=location(*INSIDE))
        assert (await place.settled(number))["state"] == "at_street"
        centre = await place.staff("street-centre")
        path = f"/reports/{number}/actions/pass_on"
        problem(await centre.call("POST", path, json={"unit": "roads"}), 404, "NO_SUCH_REPORT")
        await place.action("dispatcher", number, "locate", location=location(*ELSEWHERE), reason="位置选错了")
        assert (await centre.post(path, {"unit": "roads"}))["state"] == "dispatched"
        await place.settled(number)
