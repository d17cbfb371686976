"""A machine whose clock is wrong is noticed, goes by the database's clock, and does nothing by the clock alone."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

from core.audit import __main__ as audit_log
from core.clock import Clock, clock, now
from core.ids import new_id
from core.queue.debts import Postponed
from core.room import payers
from core.storage.files import working_folder
from photos.room import clear_unused_photos
from reports.limits.warnings import TimeLimits
from reports.room import mark_late_reports
from reports.service import ReportService
from server.timetable import by_right_clock, forget_far_ahead
from tests.api.support import problem

AHEAD = timedelta(minutes=90)
THROUGH_A_PROXY = {"X-Forwarded-For": "203.0.113.7"}


@pytest.fixture
def machine(monkeypatch, district):
    """The clock of this machine, for tests to put it wrong; afterwards it and ours are what they were."""

    @contextmanager
    def wrong(by: timedelta = AHEAD, *, noticed: bool = False):
        was = clock._ahead_ns
        with monkeypatch.context() as patch:
            patch.setattr(
                Clock, "machine_ns", staticmethod(lambda: was_machine() + by // timedelta(microseconds=1) * 1000)
            )
            if not noticed:
                clock.put_forward(by // timedelta(milliseconds=1))
            try:
                yield
            finally:
                clock._ahead_ns = was

    was_machine = Clock.machine_ns
    yield wrong
    assert was_machine is Clock.machine_ns
    district.services.timekeeper.agrees = True


async def running_case(district, due: timedelta, **fields) -> str:
    """A case that is to be handled by then."""
    number: str = await district.submit(await district.citizen())
    await district.drive(number, "filed")
    await district.services.database["reports"].update_one({"_id": number}, {"$set": {"due_at": now() + due, **fields}})
    return number


async def found(district, number: str):
    return await district.services.database["reports"].find_one({"_id": number})


@pytest.mark.parametrize("by", [AHEAD, -AHEAD])
async def test_a_process_goes_by_the_clock_of_the_database(district, machine, by):
    right = now()
    with machine(by):
        assert abs(now() - right) > timedelta(hours=1)
        assert not await district.services.timekeeper.compare()
        assert abs(now() - right) < timedelta(minutes=10)
    assert await district.services.timekeeper.compare()


async def test_a_clock_that_is_put_forward_meanwhile_changes_nothing(machine):
    right = now()
    with machine(noticed=True):
        assert now() - right < timedelta(minutes=10)


async def test_such_a_machine_is_not_ready(district, machine):
    with machine():
        await district.services.timekeeper.compare()
        said = problem(await district.http.get("/readyz"), 503, "NOT_READY")
        assert said == {"mongodb": True, "redis": True, "clock": False}
        assert not problem(await district.http.get("/readyz", headers=THROUGH_A_PROXY), 503, "NOT_READY")
    await district.services.timekeeper.compare()
    assert (await district.http.get("/readyz")).status_code == 200


async def test_a_case_is_late_when_the_database_says_so(district, machine):
    number, late = await running_case(district, timedelta(hours=1)), await running_case(district, -timedelta(hours=1))
    with machine():  # before anybody has noticed
        await district.services[ReportService].mark_late()
    assert not (await found(district, number))["late"]
    assert (await found(district, late))["late"]


async def test_a_warning_marks_no_case_whose_limit_is_not_over(district, machine):
    number = await running_case(district, timedelta(hours=1))
    report = await found(district, number)
    reached = now() + timedelta(minutes=80)
    fields = {
        "limit": {"value": 1, "unit": "urgent_hour"},
        "clock": {"started_at": reached - timedelta(hours=1), "extensions": 0},
        "due_at": reached, "warn_at": reached, "warn_percent": 100,
    }  # fmt: skip
    await district.services.database["reports"].update_one({"_id": report["_id"]}, {"$set": fields})
    with machine():
        await district.services[TimeLimits].warn()
    assert (await found(district, number))["warn_percent"] != 100
    assert not (await found(district, number))["late"]


async def test_a_mark_is_taken_back_where_the_limit_is_not_over(district):
    wrong = await running_case(district, timedelta(days=300), late=True, warn_at=None, warn_percent=None)
    late = await running_case(district, -timedelta(hours=1), late=True)
    reports = district.services.database["reports"]
    fields = {"limit": {"value": 300, "unit": "natural_day"}, "clock": {"started_at": now(), "extensions": 0}}
    await reports.update_one({"_id": wrong}, {"$set": fields})
    await mark_late_reports(district.services)
    after = await found(district, wrong)
    assert not after["late"]
    assert after["warn_at"] > now()
    assert (after["timeline"][-1]["says"], after["timeline"][-1]["shown"]) == ("处置时限未到，取消超时标记", False)
    assert (await found(district, late))["late"]
    assert await district.services[TimeLimits].take_back() == 0


async def test_nothing_is_deleted_by_a_clock_that_may_be_wrong(district, machine):
    photos, services = district.services.database["photos"], district.services
    photo = await (await district.citizen()).photo()
    await photos.update_one({"_id": photo}, {"$set": {"created_at": now() - timedelta(days=2)}})
    clear = by_right_clock(clear_unused_photos)
    with machine():
        await clear({"services": services})
        with pytest.raises(Postponed):
            await payers(services)["jobs"]["expire"]({"_id": "none"}, {})
    assert await photos.find_one({"_id": photo})
    await clear({"services": services})
    assert await photos.find_one({"_id": photo}) is None


async def test_the_audit_log_is_not_shortened_by_such_a_clock(district, machine, monkeypatch, capsys):
    monkeypatch.setenv("GONGZHI_MONGODB__URL", district.settings.mongodb.url)
    monkeypatch.setenv("GONGZHI_MONGODB__DATABASE", f"test_{new_id()}")
    expire = audit_log._parser().parse_args(["expire"])
    with machine():
        assert await audit_log._run(expire) == 1
    assert "NOT DELETED" in capsys.readouterr().out
    assert await audit_log._run(expire) == 0


def test_files_that_are_being_made_are_kept_when_the_clock_is_put_forward(machine, tmp_path):
    being_made = tmp_path / "made-elsewhere"
    being_made.mkdir()
    with machine(timedelta(days=2), noticed=True), working_folder(tmp_path, new_id()):
        assert being_made.exists()
    left = (now() - timedelta(days=2)).timestamp()
    os.utime(being_made, (left, left))
    with working_folder(tmp_path, new_id()):
        assert not being_made.exists()


async def test_turns_that_a_clock_ahead_has_put_on_the_queue_are_forgotten(district):
    queue = RedisQueue(Redis.from_url(district.settings.redis.url), name=new_id())
    key, entry = "cron:mark_late_reports", "mark_late_reports"
    try:
        soon, ahead = (int((now() + timedelta(minutes=minutes)).timestamp()) for minutes in (30, 24 * 60))
        assert await queue.enqueue(entry, key=key, scheduled=soon)
        await forget_far_ahead(queue, [entry])
        assert await queue.enqueue(entry, key=key, scheduled=soon) is None, "it is still there"
        await queue.redis.delete(queue._incomplete)
        assert await queue.enqueue(entry, key=key, scheduled=ahead)
        await forget_far_ahead(queue, [entry])
        assert await queue.redis.zcard(queue._incomplete) == 0
    finally:
        await queue.disconnect()
