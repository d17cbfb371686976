"""A new count of due times when the calendar changes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from core.clock import SHANGHAI, now, shanghai
from reports.lifecycle.running_limit import RunningLimit
from tests.api.time_limits_support import (
    act_as,
    dispatched,
    on_a_tuesday,
    open_place,
    settle,
    signed_in,
    stored,
)
from tests.clock import move_to
from tests.district import District
from worktime.calendar import RECOUNT_AFTER, CalendarService


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    async with open_place(mongodb_url, redis_url, tmp_path_factory.mktemp("limits")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def tuesday():
    with on_a_tuesday():
        yield


async def test_a_day_that_is_declared_off_moves_the_due_times_of_running_cases_and_back(place):
    moved, handled, late = [await dispatched(place) for _ in range(3)]
    reports = place.services.database["reports"]
    # Thursday 10:00, by four hours of working time that begin on Wednesday.
    begun = datetime.fromisoformat("2026-11-25 16:30").replace(tzinfo=SHANGHAI)
    calendar = await place.services[CalendarService].current()
    for number in (moved, handled, late):
        report = {**await stored(place, number), "limit": {"value": 4, "unit": "work_hour"}}
        report["clock"] = {"started_at": begun, "extensions": 0}
        running = RunningLimit.of(report)
        assert running is not None
        fields = {name: report[name] for name in ("limit", "clock")}
        fields |= {"due_at": running.due_at(calendar), **running.next_warning((50, 80, 100), calendar, after=50)}
        await reports.update_one({"_id": number}, {"$set": fields})
    await reports.update_one({"_id": handled}, {"$set": {"handled_at": now()}})
    await reports.update_one({"_id": late}, {"$set": {"late": True}})
    before = {n: await stored(place, n) for n in (moved, handled, late)}
    assert shanghai(before[moved]["due_at"]).isoformat().startswith("2026-11-26T11:30")

    admin = await signed_in(place, "admin")
    declared = now()
    await admin.call("PUT", "/calendar/2026-11-26", json={"kind": "holiday", "name": "停电"})
    move_to(declared)  # however long that took
    await settle(place, "calendar_days")
    assert (await stored(place, moved))["due_at"] == before[moved]["due_at"], "other processes may not know of it yet"
    move_to(now() + RECOUNT_AFTER + timedelta(seconds=1))
    await settle(place, "calendar_days")
    after = await stored(place, moved)
    assert shanghai(after["due_at"]).isoformat().startswith("2026-11-27T11:30")
    assert shanghai(after["warn_at"]).isoformat().startswith("2026-11-27T10:42")
    assert (after["warn_percent"], after["version"]) == (80, before[moved]["version"])
    assert after["timeline"][-1]["says"] == "工作日历有调整，处置时限由11月26日11:30改为11月27日11:30"
    for number in (handled, late):
        assert (await stored(place, number))["due_at"] == before[number]["due_at"]
    day = await place.services.database["calendar_days"].find_one({"_id": "2026-11-26"})
    assert day["recount"]["changed"] >= 1
    assert day["owed"] == []

    await admin.call("DELETE", "/calendar/2026-11-26")
    move_to(now() + RECOUNT_AFTER + timedelta(seconds=1))
    await settle(place, "calendar_days")
    assert (await stored(place, moved))["due_at"] == before[moved]["due_at"]


async def test_a_day_that_is_declared_off_moves_what_the_centre_has_to_dispatch_and_to_close(place):
    """From Tuesday 16:30, with two working hours to dispatch and one working day to close."""
    move_to(datetime.fromisoformat("2026-11-24 16:30").replace(tzinfo=SHANGHAI))
    waiting = [await place.submit(await place.citizen()) for _ in range(3)]
    handled = await dispatched(place)
    closed = await dispatched(place)
    for number in (handled, closed):
        await act_as(place, "unit-sanitation", number, "accept")
        photo = await (await signed_in(place, "unit-sanitation")).photo()
        await act_as(place, "unit-sanitation", number, "handle", note="已清理", photo_ids=[photo])
    await act_as(place, "verifier", closed, "close")
    passed = waiting.pop()
    await act_as(place, "dispatcher", passed, "dispatch", unit="roads")
    before = {n: (await stored(place, n))["milestones"] for n in (*waiting, passed, handled, closed)}
    dispatch_due = {shanghai(before[n]["dispatch_due_at"]).strftime("%m-%d %H:%M") for n in waiting}
    assert dispatch_due == {"11-25 09:30"}
    assert shanghai(before[handled]["close_due_at"]).strftime("%m-%d %H:%M") == "11-25 16:30"

    admin = await signed_in(place, "admin")
    await admin.call("PUT", "/calendar/2026-11-25", json={"kind": "holiday", "name": "停电"})
    move_to(now() + RECOUNT_AFTER + timedelta(seconds=1))
    await settle(place, "calendar_days")
    after = {n: await stored(place, n) for n in before}
    for number in waiting:
        moved = after[number]["milestones"]["dispatch_due_at"]
        assert shanghai(moved).strftime("%m-%d %H:%M") == "11-26 09:30"
        says = [e["says"] for e in after[number]["timeline"] if e["action"] == "recount"]
        assert "工作日历有调整，派遣时限由11月25日09:30改为11月26日09:30" in says
        assert after[number]["timeline"][-1]["shown"] is False
    assert shanghai(after[handled]["milestones"]["close_due_at"]).strftime("%m-%d %H:%M") == "11-26 16:30"
    # What is done was done by the days as they were.
    assert after[passed]["milestones"]["dispatch_due_at"] == before[passed]["dispatch_due_at"]
    assert after[closed]["milestones"]["close_due_at"] == before[closed]["close_due_at"]
    day = await place.services.database["calendar_days"].find_one({"_id": "2026-11-25"})
    assert (day["owed"], bool(day["recount"]["done_at"])) == ([], True)

    # Late is late: the day is given back when the dispatching is over its limit.
    move_to(datetime.fromisoformat("2026-11-26 11:00").replace(tzinfo=SHANGHAI))
    admin = await signed_in(place, "admin")
    await admin.call("DELETE", "/calendar/2026-11-25")
    move_to(now() + RECOUNT_AFTER + timedelta(seconds=1))
    await settle(place, "calendar_days")
    assert shanghai((await stored(place, waiting[0]))["milestones"]["dispatch_due_at"]).day == 26


async def test_a_new_count_of_many_cases_goes_on_in_pieces_and_passes_none_over(place, monkeypatch):
    monkeypatch.setattr("reports.limits.recalculation._PIECE", 2)
    numbers = [await dispatched(place) for _ in range(5)]
    reports = place.services.database["reports"]
    calendar = await place.services[CalendarService].current()
    begun = datetime.fromisoformat("2026-12-02 16:30").replace(tzinfo=SHANGHAI)
    running = RunningLimit(begun, (await limit_of(place, numbers[0]))[0], ())
    fields = {"limit": running.limit.model_dump(), "clock": {"started_at": begun, "extensions": 0}}
    # All due at the same moment: the pieces are told apart by the number.
    await reports.update_many(
        {"_id": {"$in": numbers}}, {"$set": {**fields, "due_at": running.due_at(calendar), "warn_at": None}}
    )
    admin = await signed_in(place, "admin")
    await admin.call("PUT", "/calendar/2026-12-03", json={"kind": "holiday", "name": "停电"})
    move_to(now() + RECOUNT_AFTER + timedelta(seconds=1))
    await settle(place, "calendar_days")
    after = {(await stored(place, n))["due_at"] for n in numbers}
    assert after == {running.due_at(await place.services[CalendarService].current())}
    assert after != {running.due_at(calendar)}


async def limit_of(place: District, number: str) -> list[Any]:
    report = {**await stored(place, number), "limit": {"value": 4, "unit": "work_hour"}}
    running = RunningLimit.of(report)
    assert running is not None
    return [running.limit]
