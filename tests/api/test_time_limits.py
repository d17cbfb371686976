"""Warnings as a limit runs out, and whom they reach."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from accounts.models import NewStaff
from accounts.staff import StaffService
from core.clock import EPOCH, SHANGHAI, now, shanghai
from core.ids import new_id
from reports.lifecycle.running_limit import Escalation, WarningStep
from reports.limits.warnings import TimeLimits
from server.services import open_services
from tests.api.support import problem
from tests.api.time_limits_support import (
    dispatched,
    move_to_share,
    notices,
    on_a_tuesday,
    open_place,
    reached,
    settle,
    signed_in,
    stored,
)
from tests.clock import move_to
from tests.crash.fault_injection import Mortal
from tests.seeding import PASSWORD
from tests.timing import until


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    async with open_place(mongodb_url, redis_url, tmp_path_factory.mktemp("limits")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def tuesday():
    with on_a_tuesday():
        yield


async def test_the_first_warning_waits_from_the_update_that_starts_the_limit(place):
    number = await dispatched(place)
    report = await stored(place, number)
    assert report["warn_percent"] == 50
    assert report["warn_at"] == await reached(place, number, 50)
    assert report["clock"]["started_at"] == report["milestones"]["filed_at"]
    assert report["due_at"] == await reached(place, number, 100)


async def test_each_share_is_warned_of_when_it_is_reached_and_reaches_those_it_is_meant_for(place):
    number = await dispatched(place)
    assert await place.services[TimeLimits].warn() == 0
    street = (await stored(place, number))["place"]["street"]["code"]
    person = NewStaff(username="this-street", name="本街派遣员", roles=["dispatcher"], areas=[street])
    await place.services[StaffService].create(person, PASSWORD)
    everybody = ("unit-sanitation", "unit-roads", "dispatcher", "this-street", "street-dispatcher", "duty_chief")
    told = {}
    for percent in (50, 80, 100):
        await move_to_share(place, number, percent)
        told[percent] = {who: len(await notices(place, who, number)) for who in everybody}
        report = await stored(place, number)
        assert report["late"] == (percent == 100)
    nobody = dict.fromkeys(everybody, 0)
    assert told[50] == {**nobody, "unit-sanitation": 1}
    # The other dispatcher's street is another one.
    assert told[80] == {**nobody, "unit-sanitation": 2, "dispatcher": 1, "this-street": 1}
    assert told[100] == {**nobody, "unit-sanitation": 3, "dispatcher": 2, "this-street": 2, "duty_chief": 1}
    assert (report["warn_at"], report["warn_percent"]) == (None, None)
    texts = await notices(place, "unit-sanitation", number)
    assert [p for p in ("50%", "80%", "的处置时限已于") if p in "".join(texts)] == ["50%", "80%", "的处置时限已于"]
    assert all(number in text for text in texts)


async def test_the_entry_of_a_warning_is_for_staff_and_the_version_stays(place):
    citizen = await place.citizen()
    number = await place.submit(citizen, category="exposed_garbage")
    await settle(place)
    before = await stored(place, number)
    await move_to_share(place, number, 50)
    after = await stored(place, number)
    assert after["version"] == before["version"], "a screen that is open must not be refused for a warning"
    staff = await signed_in(place, "dispatcher")
    steps = (await staff.get(f"/reports/{number}"))["timeline"]
    assert (steps[-1]["action"], steps[-1]["says"], steps[-1]["shown"]) == ("warn", "处置时限已用 50%", False)
    shown = (await citizen.get(f"/reports/{number}"))["timeline"]
    assert "warn" not in [step["action"] for step in shown]


async def test_staff_see_how_much_of_the_limit_is_used_and_whether_its_clock_stands_still(place):
    citizen = await place.citizen()
    number = await place.submit(citizen, category="exposed_garbage")
    path = f"/reports/{number}"
    assert (await (await signed_in(place, "dispatcher")).get(path))["due"]["elapsed_percent"] is None
    await settle(place)

    async def shown(percent: int) -> Any:
        move_to(await reached(place, number, percent))
        staff = await signed_in(place, "dispatcher")
        (line,) = (await staff.get("/reports", number=number))["reports"]
        detail = await staff.get(path)
        assert line["due"] == detail["due"]
        return detail["due"]

    for percent in (1, 29, 57, 100, 150):
        assert (await shown(percent))["elapsed_percent"] == percent
    assert (await citizen.get(path))["due"].keys() == {"due_at", "late"}
    pauses = [{"from": now(), "until": now() + timedelta(days=30)}]
    await place.services.database["reports"].update_one({"_id": number}, {"$set": {"pauses": pauses}})
    move_to(now() + timedelta(days=20))
    due = (await (await signed_in(place, "dispatcher")).get(path))["due"]
    assert (due["elapsed_percent"], due["paused"]) == (150, True)


async def test_while_no_unit_has_the_case_the_dispatchers_are_told_in_its_place(place):
    number = await place.submit(await place.citizen())
    await settle(place)
    assert (await stored(place, number))["state"] == "filed"
    await move_to_share(place, number, 50)
    assert len(await notices(place, "dispatcher", number)) == 1
    assert await notices(place, "unit-sanitation", number) == []


async def test_the_centre_has_two_hours_to_dispatch_and_a_day_to_close(place):
    number = await dispatched(place)
    past = (await stored(place, number))["milestones"]
    assert past["dispatch_due_at"] == past["filed_at"] + timedelta(hours=2)  # 9 to 11, within the morning
    assert past["close_due_at"] is None
    unit = await signed_in(place, "unit-sanitation")
    await unit.post(f"/reports/{number}/actions/accept")
    photo = await unit.photo()
    move_to(datetime.fromisoformat("2026-11-24 16:30").replace(tzinfo=SHANGHAI))
    unit = await signed_in(place, "unit-sanitation")
    await unit.post(f"/reports/{number}/actions/handle", {"note": "已清理", "photo_ids": [photo]})
    past = (await stored(place, number))["milestones"]
    assert past["close_due_at"] == past["handled_at"] + timedelta(days=1)  # Wednesday, at the same time
    assert past["dispatch_due_at"] == past["filed_at"] + timedelta(hours=2)


async def test_a_case_that_is_handled_is_warned_of_no_more_and_a_rework_anew(place):
    number = await dispatched(place)
    await move_to_share(place, number, 50)
    unit = await signed_in(place, "unit-sanitation")
    await unit.post(f"/reports/{number}/actions/accept")
    photo = await unit.photo()
    await unit.post(f"/reports/{number}/actions/handle", {"note": "已清理", "photo_ids": [photo]})
    await settle(place)
    assert (await stored(place, number))["warn_at"] is None
    move_to(now() + timedelta(days=3))
    assert await place.services[TimeLimits].warn() == 0
    verifier = await signed_in(place, "verifier")
    await verifier.post(f"/reports/{number}/actions/rework", {"reason": "还有残留"})
    assert (await stored(place, number))["warn_percent"] == 50
    await move_to_share(place, number, 50)
    assert [e["says"] for e in (await stored(place, number))["timeline"] if e["action"] == "warn"] == [
        "处置时限已用 50%",
        "处置时限已用 50%",
    ]


async def test_an_extension_is_warned_of_anew_at_the_shares_of_the_longer_limit(place):
    number = await dispatched(place)
    unit = await signed_in(place, "unit-sanitation")
    await unit.post(f"/reports/{number}/actions/accept")
    await move_to_share(place, number, 80)
    assert (await stored(place, number))["warn_percent"] == 100
    unit, chief = await signed_in(place, "unit-sanitation"), await signed_in(place, "duty_chief")
    await unit.post(f"/reports/{number}/actions/request_extension", {"reason": "需要吊车"})
    await chief.post(f"/reports/{number}/actions/approve_extension")
    extended = await stored(place, number)
    assert (extended["warn_percent"], extended["clock"]["extensions"]) == (50, 1)
    assert extended["warn_at"] == await reached(place, number, 50) > now()
    assert (await (await signed_in(place, "dispatcher")).get(f"/reports/{number}"))["due"]["elapsed_percent"] == 40
    for percent in (50, 80, 100):
        await move_to_share(place, number, percent)
    report = await stored(place, number)
    warned = [e["given"]["percent"] for e in report["timeline"] if e["action"] == "warn"]
    assert warned == ["50", "80", "50", "80", "100"]
    assert report["late"]


async def test_a_suspended_case_is_warned_of_when_it_is_taken_up_again(place):
    number = await dispatched(place)
    unit = await signed_in(place, "unit-sanitation")
    await unit.post(f"/reports/{number}/actions/accept")
    await move_to_share(place, number, 50)
    before = await stored(place, number)
    until_day = (shanghai(now()) + timedelta(days=20)).date().isoformat()
    unit, chief = await signed_in(place, "unit-sanitation"), await signed_in(place, "duty_chief")
    await unit.post(f"/reports/{number}/actions/request_suspension", {"reason": "等材料", "until": until_day})
    await chief.post(f"/reports/{number}/actions/approve_suspension")
    move_to(before["due_at"] + timedelta(days=3))
    assert await place.services[TimeLimits].warn() == 0
    due = (await (await signed_in(place, "dispatcher")).get(f"/reports/{number}"))["due"]
    assert (due["elapsed_percent"], due["paused"], due["late"]) == (50, True, False)
    unit = await signed_in(place, "unit-sanitation")
    await unit.post(f"/reports/{number}/actions/resume")
    resumed = await stored(place, number)
    assert resumed["warn_percent"] == 80
    assert now() < resumed["warn_at"] == await reached(place, number, 80)
    await move_to_share(place, number, 80)
    warned = [e["given"]["percent"] for e in (await stored(place, number))["timeline"] if e["action"] == "warn"]
    assert warned == ["50", "80"]


async def test_what_was_missed_is_made_up_for_once_each_and_in_order(place):
    number = await dispatched(place)
    move_to(await reached(place, number, 100) + timedelta(days=1))
    await asyncio.gather(*(place.services[TimeLimits].warn() for _ in range(3)))
    await settle(place)
    report = await stored(place, number)
    assert [e["given"]["percent"] for e in report["timeline"] if e["action"] == "warn"] == ["50", "80", "100"]
    assert report["late"]
    assert len(await notices(place, "unit-sanitation", number)) == 3


async def test_many_workers_at_once_give_each_warning_once(place):
    numbers = [await dispatched(place) for _ in range(6)]
    move_to(max([await reached(place, n, 50) for n in numbers]) + timedelta(seconds=1))
    async with open_services(place.settings) as other:
        rounds = await asyncio.gather(*(s[TimeLimits].warn() for s in (place.services, other) * 4))
    reports = [await stored(place, n) for n in numbers]
    assert [[e["action"] for e in r["timeline"]].count("warn") for r in reports] == [1] * 6
    assert sum(rounds) >= 6
    await settle(place)
    for number in numbers:
        assert len(await notices(place, "unit-sanitation", number)) == 1


async def test_a_warning_whose_turn_is_later_after_all_is_put_off(place):
    number = await dispatched(place)
    reports = place.services.database["reports"]
    # As a suspension leaves it that was planned while a warning was given: the moment is too early for the share.
    await reports.update_one({"_id": number}, {"$set": {"warn_percent": 80}})
    move_to((await stored(place, number))["warn_at"])
    assert await place.services[TimeLimits].warn() == 0
    report = await stored(place, number)
    assert report["warn_at"] == await reached(place, number, 80)
    assert "warn" not in [e["action"] for e in report["timeline"]]


async def test_a_case_that_cannot_be_counted_keeps_no_other_from_being_warned_of(place):
    broken, sound = await dispatched(place), await dispatched(place)
    reports = place.services.database["reports"]
    at = await reached(place, sound, 50)
    await reports.update_one(
        {"_id": broken}, {"$set": {"limit": {"value": 1, "unit": "fortnight"}, "warn_at": at - timedelta(hours=1)}}
    )
    move_to(at + timedelta(seconds=1))
    assert await place.services[TimeLimits].warn() >= 1
    assert (await stored(place, sound))["warn_percent"] == 80
    assert (await stored(place, broken))["warn_at"] > now()


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_worker_that_dies_anywhere_leaves_each_warning_given_once(place, moment):
    async def one_life(at: int) -> int:
        number = await dispatched(place)
        move_to(await reached(place, number, 50) + timedelta(seconds=1))
        mortal = Mortal(at, moment)
        with mortal.lifetime():
            await place.services[TimeLimits].warn()
            await settle(place)
        move_to(now() + timedelta(minutes=1))  # the dead one's lease runs out
        await place.services[TimeLimits].warn()
        await settle(place)
        report = await stored(place, number)
        assert [e["action"] for e in report["timeline"]].count("warn") == 1, (at, moment, mortal.calls)
        assert report["owed"] == []
        found = [n async for n in place.services.database["staff_notices"].find({"report": number})]
        assert len(found) == 1, (at, moment, mortal.calls)
        return len(mortal.calls)

    calls = await one_life(0)
    assert calls >= 4
    for at in range(1, calls + 1):
        await one_life(at)


async def test_the_inbox_pages_counts_and_marks_for_each_reader_alone(place):
    numbers = [await dispatched(place) for _ in range(3)]
    for number in numbers:
        await move_to_share(place, number, 100)
    unit = await signed_in(place, "unit-sanitation")
    await unit.post("/notices/read")
    number = await dispatched(place)
    await move_to_share(place, number, 100)
    unit = await signed_in(place, "unit-sanitation")
    first = await unit.get("/notices", unread=True, size=2)
    assert (len(first["notices"]), first["unread"]) == (2, 3)
    second = await unit.get("/notices", unread=True, size=2, page=first["next_page"])
    assert (len(second["notices"]), second["next_page"]) == (1, None)
    listed = [*first["notices"], *second["notices"]]
    assert [n["report"] for n in listed] == [number] * 3
    assert [n["at"] for n in listed] == sorted((n["at"] for n in listed), reverse=True)
    notice_id = listed[0]["notice_id"]
    for _ in range(2):
        assert (await unit.call("POST", f"/notices/{notice_id}/read")).status_code == 204
    again = await unit.get("/notices", size=1)
    assert (again["unread"], again["notices"][0]["read"]) == (2, True)
    dispatcher = await signed_in(place, "dispatcher")
    (theirs,) = [n for n in (await dispatcher.get("/notices", size=100))["notices"] if n["notice_id"] == notice_id]
    assert not theirs["read"]
    roads = await signed_in(place, "unit-roads")
    problem(await roads.call("POST", f"/notices/{notice_id}/read"), 404, "NO_SUCH_NOTICE")
    problem(await roads.call("POST", f"/notices/{new_id()}/read"), 404, "NO_SUCH_NOTICE")
    assert (await unit.post("/notices/read"))["marked"] == 2
    assert (await unit.get("/notices"))["unread"] == 0


async def test_looking_for_warnings_and_reading_the_inbox_go_by_their_indexes(place):
    database = place.services.database
    warned = database["reports"].find({"warn_at": {"$gt": EPOCH, "$lte": now()}}).sort("warn_at", 1)
    assert "IXSCAN" in str(plan := (await warned.limit(100).explain())["queryPlanner"]["winningPlan"])
    assert "'SORT'" not in str(plan)
    to = {"to": {"$in": ["role:unit@990101#roads", "role:unit@990102#roads", f"staff:{new_id()}"]}}
    read = database["staff_notices"].find(to).sort([("at", -1), ("_id", -1)]).limit(21)
    plan = (await read.explain())["queryPlanner"]["winningPlan"]
    assert "SORT_MERGE" in str(plan)
    assert "COLLSCAN" not in str(plan)


def test_warnings_that_do_not_rise_are_refused():
    with pytest.raises(ValueError, match="rise"):
        Escalation((WarningStep(80, ("unit",)), WarningStep(50, ("unit",))))


async def test_a_warning_taken_by_the_sweep_of_a_worker_is_seen_without_a_hand(place):
    number = await dispatched(place)
    move_to(await reached(place, number, 50) + timedelta(seconds=1))
    sweep = asyncio.create_task(place.services[TimeLimits].run(0.05))

    async def given() -> bool:
        return bool((await stored(place, number))["warn_percent"] == 80)

    await until(given)
    sweep.cancel()
    await asyncio.gather(sweep, return_exceptions=True)
