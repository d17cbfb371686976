"""What may befall a case: extended, suspended, appealed against, urged, opened again, shared, passed on, forgotten."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from accounts.models import StaffSession
from core.clock import EPOCH, now, shanghai
from core.ids import new_id
from reports.catalogue.categories import Catalogue
from reports.followers import ReportPeople
from reports.queries import Filters, staff_query
from reports.service import ReportService
from tests.api.support import collector, problem
from tests.clock import later
from tests.district import Client, District, open_district
from worktime.calendar import CalendarService
from worktime.limits import Limit, due_at

_SESSION = StaffSession("", "", ("unit",), frozenset({"report.view"}), (), None)


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district without a worker, whose sessions outlast some weeks."""
    folder = tmp_path_factory.mktemp("long")
    lasting = {"citizen_days": 1000, "staff_hours": 10**5, "staff_idle_minutes": 10**7}
    async with open_district(
        mongodb_url, redis_url, folder, database=f"test_{new_id()}", worker=False, sessions=lasting
    ) as opened:
        yield opened


async def paid(place: District, number: str) -> dict[str, Any]:
    """The case when nothing is due any more."""
    reports = collector(place, "reports")
    while await reports.settle_due():
        pass
    return await place.services[ReportService].get(number)


async def accepted(place: District, citizen: Client | None = None, **dispatch: Any) -> str:
    number = await place.submit(citizen or await place.citizen())
    await paid(place, number)
    await place.action("dispatcher", number, "dispatch", unit="sanitation", **dispatch)
    await place.action("unit-sanitation", number, "accept")
    await paid(place, number)
    return number


async def closed(place: District, number: str) -> None:
    unit = await place.staff("unit-sanitation")
    await place.action("unit-sanitation", number, "handle", note="已清理", photo_ids=[await unit.photo()])
    await place.action("verifier", number, "close")
    await paid(place, number)


async def refused(place: District, who: str, number: str, action: str, code: str, **fields: Any) -> dict[str, Any]:
    answer = await (await place.staff(who)).call("POST", f"/reports/{number}/actions/{action}", json=fields)
    return problem(answer, 409, code)


async def test_each_extension_adds_the_original_limit_and_there_are_two(place):
    number = await accepted(place)
    calendar = await place.services[CalendarService].current()
    first = await place.services[ReportService].get(number)
    limit = Limit(**first["limit"])
    for times in (2, 3):
        await place.action("unit-sanitation", number, "request_extension", reason="需等雨停")
        await refused(place, "unit-sanitation", number, "request_extension", "REQUEST_PENDING", reason="再等")
        await place.action("duty_chief", number, "approve_extension")
        case = await place.services[ReportService].get(number)
        whole = limit.model_copy(update={"value": limit.value * times})
        assert case["due_at"] == due_at(first["clock"]["started_at"], whole, calendar)
        assert case["milestones"]["extensions"] == times - 1
    await refused(place, "unit-sanitation", number, "request_extension", "NO_EXTENSION_LEFT", reason="还要等")


async def test_what_is_overdue_is_neither_extended_nor_suspended(place):
    number = await accepted(place)
    await place.action("unit-sanitation", number, "request_extension", reason="需等雨停")
    with later(days=40):
        await refused(place, "duty_chief", number, "approve_extension", "OVERDUE")
        await place.action("duty_chief", number, "reject_extension", reason="已经超时")
        until = shanghai(now()).date().isoformat()
        await refused(place, "unit-sanitation", number, "request_extension", "OVERDUE", reason="需等雨停")
        await refused(place, "unit-sanitation", number, "request_suspension", "OVERDUE", reason="等材料", until=until)


async def test_a_suspended_case_is_due_later_by_as_much_and_not_late_meanwhile(place):
    number = await accepted(place)
    before = await place.services[ReportService].get(number)
    until = shanghai(now()).date() + timedelta(days=30)
    await place.action("unit-sanitation", number, "request_suspension", reason="等材料", until=until.isoformat())
    standing = (await place.action("duty_chief", number, "approve_suspension"))["standing"]
    assert standing["request"] is None
    assert standing["milestones"]["suspensions"] == 1
    case = await place.services[ReportService].get(number)
    assert case["due_at"] > before["due_at"] + timedelta(days=25)
    with later(days=29):
        await place.services[ReportService].mark_late()
        case = await paid(place, number)
        assert (case["state"], case["late"]) == ("suspended", False)
    with later(days=32):
        assert (await paid(place, number))["state"] == "accepted"


async def test_suspension_ends_within_a_year(place):
    number = await accepted(place)
    unit = await place.staff("unit-sanitation")
    for days in (-1, 366):
        until = (shanghai(now()).date() + timedelta(days=days)).isoformat()
        body = {"reason": "等材料", "until": until}
        answer = await unit.call("POST", f"/reports/{number}/actions/request_suspension", json=body)
        problem(answer, 422, "UNTIL_OUT_OF_RANGE")


async def test_being_late_is_appealed_against_once_and_stays_a_fact(place):
    number = await accepted(place)
    with later(days=20):
        await closed(place, number)
    await place.action("unit-sanitation", number, "appeal", reason="连日暴雨，现场无法作业")
    await refused(place, "unit-sanitation", number, "appeal", "APPEALED_BEFORE", reason="再申诉")
    await place.action("assessor", number, "approve_appeal")
    case = await place.services[ReportService].get(number)
    assert (case["milestones"]["exempt"], case["late"]) == (True, True)
    await refused(place, "unit-sanitation", number, "appeal", "APPEALED_BEFORE", reason="再申诉")


async def test_citizens_urge_once_a_day_each_and_the_unit_is_told(place):
    citizen, neighbour = await place.citizen(), await place.citizen()
    number = await accepted(place, citizen)
    await place.services.database["reports"].update_one({"_id": number}, {"$set": {"public": True}})
    path = f"/reports/{number}/urge"
    problem(await neighbour.call("POST", path, json={}), 404, "NO_SUCH_REPORT")
    await neighbour.post(f"/reports/{number}/follow")
    assert "urge" in [a["action"] for a in (await neighbour.get(f"/reports/{number}"))["actions"]]
    for who in (citizen, neighbour):
        await who.post(path, {"note": "已经三天了"})
        problem(await who.call("POST", path, json={}), 409, "URGED_LATELY")
    case = await (await place.staff("unit-sanitation")).get(f"/reports/{number}")
    assert case["standing"]["milestones"]["urges"] == 2
    assert [e["says"] for e in case["timeline"]][-2:] == ["上报人催办，请尽快处置", "关注人催办，请尽快处置"]
    with later(hours=25):
        await citizen.post(path, {})


async def test_what_a_follower_wrote_is_shown_to_others_after_the_check_only(place):
    citizen, neighbour = await place.citizen(), await place.citizen()
    number = await accepted(place, citizen)
    await place.services.database["reports"].update_one({"_id": number}, {"$set": {"public": True}})
    await neighbour.post(f"/reports/{number}/follow")
    await neighbour.post(f"/reports/{number}/urge", {"note": "请看一下三号楼"})

    async def notes(who: Client) -> list[str | None]:
        return [s["note"] for s in (await who.get(f"/reports/{number}"))["timeline"] if s["action"] == "urge"]

    assert (await notes(citizen), await notes(neighbour)) == ([None], ["请看一下三号楼"])
    await paid(place, number)
    assert await notes(citizen) == ["请看一下三号楼"]


async def test_who_deletes_their_account_is_forgotten_where_they_urged_too(place):
    number = await accepted(place)
    await place.services.database["reports"].update_one({"_id": number}, {"$set": {"public": True}})
    neighbour = await place.citizen()
    await neighbour.post(f"/reports/{number}/follow")
    await neighbour.post(f"/reports/{number}/urge", {})
    assert (await neighbour.call("DELETE", f"/reports/{number}/follow")).is_success
    await place.services[ReportPeople].forget(neighbour.facts["citizen_id"])
    stored = await place.services[ReportService].get(number)
    assert neighbour.facts["citizen_id"] not in str(stored)


async def test_a_case_is_opened_again_within_fifteen_days_and_verified_anew(place):
    citizen = await place.citizen()
    number = await accepted(place, citizen)
    evidence = await place.services[ReportService].get(number)
    await closed(place, number)
    await citizen.post(f"/reports/{number}/rating", {"resolved": "no", "score": 1})
    with later(days=15, minutes=1):
        answer = await citizen.call("POST", f"/reports/{number}/reopening", json={"resolved": "no", "reason": "还在"})
        problem(answer, 409, "CLOSED_TOO_LONG")
    done = await citizen.post(f"/reports/{number}/reopening", {"resolved": "partly", "reason": "只清了一半"})
    assert done["state"] == "handled"
    await place.action("verifier", number, "rework", reason="现场确有残留")
    case = await place.services[ReportService].get(number)
    assert (case["rating"], case["unit_id"], case["milestones"]["reopenings"]) == (None, "sanitation", 1)
    assert next(e["photos"] for e in case["timeline"] if e["action"] == "handle"), "earlier evidence stays"
    assert case["timeline"][: len(evidence["timeline"])] == evidence["timeline"]


async def test_two_units_have_a_case_and_the_lead_waits_for_the_other(place):
    number = await accepted(place, co_units=["roads"])
    lead, beside = await place.staff("unit-sanitation"), await place.staff("unit-roads")
    photo = await lead.photo()
    await refused(place, "unit-sanitation", number, "handle", "PARTS_OPEN", note="好了", photo_ids=[photo])
    await refused(place, "unit-roads", number, "handle", "NOT_THE_LEAD", note="好了", photo_ids=[await beside.photo()])
    assert number in [c["number"] for c in (await beside.get("/reports", size=100))["reports"]]
    await place.action("unit-roads", number, "handle_part", note="路面已修", photo_ids=[await beside.photo()])
    await place.action("unit-sanitation", number, "handle", note="好了", photo_ids=[photo])
    people = (await lead.get(f"/reports/{number}/assignees"))["people"]
    assert [p["staff_id"] for p in people] == [lead.facts["staff"]["staff_id"]]


async def test_a_units_list_is_read_from_its_indexes(place):
    await accepted(place, co_units=["roads"])
    staff = replace(_SESSION, areas=(place.settings.reports.division,), unit_id="roads")
    query = staff_query(staff, Filters())
    found = place.services.database["reports"].find(query).sort([("created_at", -1), ("_id", -1)]).limit(20)
    plan = str((await found.explain())["queryPlanner"]["winningPlan"])
    assert "COLLSCAN" not in plan
    assert "'indexName': 'units'" in plan


async def test_on_two_levels_a_case_goes_by_its_street_and_back_there(place):
    service = place.services[ReportService]
    service._policy = replace(service._policy, two_level=True)
    try:
        number = await place.submit(await place.citizen())
        assert (await paid(place, number))["state"] == "at_street"
        await place.action("street_dispatcher", number, "pass_on", unit="roads")
        await place.action("unit-roads", number, "refuse", reason="不归我们管")
        case = await place.services[ReportService].get(number)
        assert (case["state"], case["milestones"]["refusals"]) == ("at_street", 1)
        await place.action("street_dispatcher", number, "return_to_district", reason="不在本街道")
        done = await place.action("dispatcher", number, "dispatch", unit="sanitation", reason="改派环卫所")
        assert done["standing"]["milestones"]["redispatches"] == 1
    finally:
        service._policy = replace(service._policy, two_level=False)


@pytest.mark.parametrize("weeks", [1, 2])
async def test_staff_are_reminded_of_what_nobody_touches_once_a_period(place, weeks):
    number = await accepted(place)
    service = place.services[ReportService]
    reminders = []
    for days in (6, *(7 * week for week in range(1, weeks + 1))):
        with later(days=days, minutes=5):
            for _ in range(2):
                await service.remind_dormant()
        reminders.append([e["action"] for e in (await service.get(number))["timeline"]].count("remind"))
    assert reminders == list(range(weeks + 1))
    found = place.services.database["reports"].find({"remind_at": {"$gt": EPOCH, "$lte": now()}})
    assert "'indexName': 'dormant'" in str((await found.explain())["queryPlanner"]["winningPlan"])


async def test_staff_choose_the_filing_condition_and_rework_keeps_it(place):
    number = await place.submit(await place.citizen(), category=None, answers={})
    await paid(place, number)
    category = await place.services[Catalogue].category("manhole")
    chosen = category.conditions[-1]
    await place.action("intake", number, "file", category="manhole", condition=chosen.key)
    case = await place.services[ReportService].get(number)
    assert (case["condition"], case["limit"]) == (chosen.key, chosen.limit.model_dump())
    await place.action("dispatcher", number, "dispatch", unit="sanitation")
    await place.action("unit-sanitation", number, "accept")
    await closed(place, number)
    await place.action("verifier", number, "rework", reason="没修好")
    assert (await place.services[ReportService].get(number))["condition"] == chosen.key
