"""The district's working days: read and changed over HTTP, on record, and in force in every process within seconds."""

from __future__ import annotations

import asyncio
from datetime import date, datetime, timedelta

import pytest
import pytest_asyncio

from accounts.models import StaffSession
from core.clock import SHANGHAI, now, shanghai
from core.ids import new_id
from server.services import open_services
from tests.api.support import problem
from tests.clock import move_to, unmoved_clock
from tests.district import open_district
from tests.timing import until
from worktime.calendar import LAST_PUBLISHED, PUBLISHED, CalendarService
from worktime.limits import Limit, due_at
from worktime.room import working_hours

SOMEBODY = StaffSession("0" * 26, "管理员", ("admin",), frozenset({"calendar.manage"}), ("990101",), None)


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district of its own: its days change."""
    folder = tmp_path_factory.mktemp("calendar")
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}") as opened:
        yield opened


@pytest.fixture
def at():
    """Move the product's clock to a moment in Shanghai."""

    def move(text: str) -> datetime:
        moment = datetime.fromisoformat(text).replace(tzinfo=SHANGHAI)
        move_to(moment)
        return moment

    with unmoved_clock():
        yield move


def test_the_published_days_are_those_of_the_state_councils_notices():
    assert PUBLISHED[date(2026, 10, 1)].name == "国庆节"
    assert PUBLISHED[date(2026, 2, 14)].kind == "workday"
    assert PUBLISHED[date(2026, 2, 14)].name == "春节调休"
    assert {day.year for day in PUBLISHED} == set(range(2004, LAST_PUBLISHED + 1))


async def test_the_calendar_counts_published_days_and_beyond_them_plain_weekdays(place):
    calendar = await place.services[CalendarService].current()
    one_day = Limit(value=1, unit="work_day")

    def due(text: str) -> str:
        return shanghai(due_at(datetime.fromisoformat(text).replace(tzinfo=SHANGHAI), one_day, calendar)).isoformat()

    assert due("2026-02-13 10:00").startswith("2026-02-14T10:00")
    assert due("2026-02-14 10:00").startswith("2026-02-24T10:00")
    beyond = f"{LAST_PUBLISHED + 1}-10-01"
    assert due(f"{beyond} 10:00").startswith(f"{LAST_PUBLISHED + 1}-10-0")


async def test_a_year_without_published_days_is_warned_of_in_time_and_answers_all_the_same(place, at):
    at(f"{LAST_PUBLISHED}-06-01 10:00")
    assert (await place.nobody("").get("/readyz"))["warnings"] == []
    at(f"{LAST_PUBLISHED}-12-20 10:00")
    (warning,) = (await place.nobody("").get("/readyz"))["warnings"]
    assert str(LAST_PUBLISHED + 1) in warning
    at(f"{LAST_PUBLISHED + 5}-05-01 10:00")
    citizen = await place.citizen()
    number = await place.submit(citizen)
    report = await place.settled(number)
    assert report["due_at"] > now()
    assert (await place.nobody("").get("/readyz"))["status"] == "ready"
    year = LAST_PUBLISHED + 5
    assert await place.services[CalendarService].year(year) == []
    # Over HTTP nobody could: years later every password has run out.
    await place.services[CalendarService].put(date(year, 5, 1), "holiday", "劳动节", SOMEBODY)
    assert (await place.nobody("").get("/readyz"))["warnings"] == []


async def test_a_day_is_put_listed_and_taken_back_and_each_is_on_record(place):
    admin = await place.staff("admin")
    put = await admin.call("PUT", "/calendar/2026-09-30", json={"kind": "holiday", "name": "区庆日"})
    assert put.json() == {"day": "2026-09-30", "kind": "holiday", "name": "区庆日", "own": True}
    # The same again is no change.
    assert (await admin.call("PUT", "/calendar/2026-09-30", json={"kind": "holiday", "name": "区庆日"})).json() == (
        put.json()
    )
    await admin.call("PUT", "/calendar/2026-10-01", json={"kind": "workday", "name": "防汛值守"})
    days = {d["day"]: d for d in (await admin.get("/calendar", year=2026))["days"]}
    assert days["2026-09-30"]["own"]
    assert days["2026-10-01"] == {"day": "2026-10-01", "kind": "workday", "name": "防汛值守", "own": True}
    assert days["2026-10-02"] == {"day": "2026-10-02", "kind": "holiday", "name": "国庆节", "own": False}
    assert list(days) == sorted(days)
    for day in ("2026-09-30", "2026-10-01"):
        assert (await admin.call("DELETE", f"/calendar/{day}")).status_code == 204
    days = {d["day"]: d for d in (await admin.get("/calendar", year=2026))["days"]}
    assert "2026-09-30" not in days
    assert days["2026-10-01"]["kind"] == "holiday"
    problem(await admin.call("DELETE", "/calendar/2026-09-30"), 404, "NO_SUCH_DAY")

    async def told():
        auditor = await place.staff("audit_admin")
        entries = (await auditor.get("/audit", object_kind="calendar_day", object_id="2026-09-30"))["entries"]
        return entries if len(entries) >= 2 else None

    entries = await until(told)
    assert [e["action"] for e in entries] == ["calendar.delete", "calendar.put"]
    assert entries[1]["changes"]["kind"] == {"before": None, "after": "holiday"}
    assert entries[0]["changes"]["name"] == {"before": "区庆日", "after": None}
    assert entries[1]["subject"]["name"] == "系统管理员"


@pytest.mark.parametrize(
    ("method", "day", "body", "status", "code"),
    [
        ("PUT", "2026-02-30", {"kind": "holiday", "name": "无"}, 404, "NO_SUCH_DAY"),
        ("PUT", "1999-02-03", {"kind": "holiday", "name": "无"}, 422, "DAY_OUT_OF_RANGE"),
        ("PUT", "2100-02-03", {"kind": "holiday", "name": "无"}, 422, "DAY_OUT_OF_RANGE"),
        ("PUT", "2026-02-03", {"kind": "half_day", "name": "半天"}, 422, "INVALID"),
        ("PUT", "2026-02-03", {"kind": "holiday"}, 422, "INVALID"),
        ("PUT", "2026-02-03", {"kind": "holiday", "name": "无", "hours": 3}, 422, "INVALID"),
        ("DELETE", "2026-02-03", None, 404, "NO_SUCH_DAY"),
        ("DELETE", "2026-02-30", None, 404, "NO_SUCH_DAY"),
    ],
)
async def test_what_is_no_day_is_refused(place, method, day, body, status, code):
    admin = await place.staff("admin")
    problem(await admin.call(method, f"/calendar/{day}", json=body), status, code)


async def test_whoever_does_not_administer_reads_the_days_and_changes_none(place):
    unit = await place.staff("unit-roads")
    assert (await unit.get("/calendar", year=2026))["published"]
    for method, body in (("PUT", {"kind": "holiday", "name": "无"}), ("DELETE", None)):
        problem(await unit.call(method, "/calendar/2026-09-29", json=body), 403, "NO_PERMISSION")


@pytest.mark.long
async def test_a_change_is_in_force_at_once_here_and_within_seconds_in_other_processes(place):
    day = shanghai(now()).date() + timedelta(days=10)
    while day.weekday() >= 5 or day in PUBLISHED:
        day += timedelta(days=1)
    noon = datetime.combine(day, datetime.min.time(), SHANGHAI) + timedelta(hours=10)
    async with open_services(place.settings) as other:
        assert (await other[CalendarService].current()).is_working(noon)
        admin = await place.staff("admin")
        await admin.call("PUT", f"/calendar/{day}", json={"kind": "holiday", "name": "停工"})
        assert not (await place.services[CalendarService].current()).is_working(noon)

        async def heard():
            return not (await other[CalendarService].current()).is_working(noon)

        await until(heard)
        await admin.call("DELETE", f"/calendar/{day}")
        assert (await place.services[CalendarService].current()).is_working(noon)


async def test_changes_at_once_are_each_made_or_refused_and_none_is_lost_unseen(place):
    days = place.services.database["calendar_days"]
    admin = await place.staff("admin")
    names = [f"名称{n}" for n in range(8)]
    answers = await asyncio.gather(
        *(admin.call("PUT", "/calendar/2027-03-03", json={"kind": "holiday", "name": n}) for n in names)
    )
    assert {a.status_code for a in answers} <= {200, 409}
    made = [a.json()["name"] for a in answers if a.status_code == 200]
    stored = await days.find_one({"_id": "2027-03-03"})
    assert stored["name"] in made
    assert stored["version"] == len(made)


async def test_what_was_read_is_kept_for_some_seconds(place, monkeypatch):
    calendar = CalendarService(place.services.database, working_hours(place.settings))
    first = await calendar.current()
    reads = []
    monkeypatch.setattr(calendar, "_own", lambda: reads.append(1))
    assert await calendar.current() is first
    assert not reads
