"""kill -9 to workers in the middle of warnings, and Valkey emptied all the while: each warning is given once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis

from accounts.citizens import CitizenService
from core.clock import now
from reports.lifecycle.running_limit import RunningLimit
from reports.models import NewReport, Reporter
from reports.service import ReportService
from tests.api.support import collector
from tests.crash.process_district import Town, open_town
from tests.district import INSIDE
from tests.sampling import amount, dice
from worktime.calendar import CalendarService

CASES = amount(60, 150)
KILLS = amount(2, 5)
STEPS = ("50", "80", "100")
# Not standing back for the rest of a busy machine: the test waits for these workers.
QUICK: dict[str, Any] = {
    "GONGZHI_WORKER__WARN_SECONDS": "0.2",
}


async def overdue_cases(town: Town) -> list[str]:
    """Cases all of whose warnings are due: copies of one that a rule has sent to a unit. No worker runs yet."""
    code = (await town.control("GET", "/login-code", user="someone"))["code"]
    _, _, citizen = await town.services[CitizenService].sign_in(code)
    report = NewReport(
        description="人行道上有一堆垃圾没人清理",
        category="exposed_garbage",
        photo_ids=(),
        longitude=INSIDE[0],
        latitude=INSIDE[1],
        given={},
        address="",
        contact_phone=None,
        anonymous=False,
    )
    one = await town.services[ReportService].submit(report, Reporter(citizen["_id"], citizen["openid"]))
    while await collector(town, "reports").settle_due():
        pass
    case = await town.report(one["_id"])
    assert (case["state"], case["owed"]) == ("dispatched", [])
    begun = now() - timedelta(hours=3)
    case |= {"limit": {"value": 1, "unit": "urgent_hour"}, "clock": {"started_at": begun, "extensions": 0}}
    calendar = await town.services[CalendarService].current()
    running = RunningLimit.of(case)
    assert running is not None
    case |= {"due_at": running.due_at(calendar), **running.next_warning((50, 80, 100), calendar, after=0)}
    numbers = [f"99010120200101{serial:06d}" for serial in range(CASES)]
    await town.services.database["reports"].insert_many([{**case, "_id": n} for n in numbers])
    return numbers


async def given(town: Town) -> int:
    """How many warnings are in the timelines."""
    pipeline: list[dict[str, Any]] = [
        {"$unwind": "$timeline"},
        {"$match": {"timeline.action": "warn"}},
        {"$count": "n"},
    ]
    found = await town.services.database["reports"].aggregate(pipeline).to_list(1)
    return int(found[0]["n"]) if found else 0


async def open_work(town: Town) -> int:
    """How many cases still wait for a warning, or owe a notice."""
    query = {"$or": [{"warn_percent": {"$ne": None}}, {"owed.kind": "warn"}], "_id": {"$regex": "^9901012020"}}
    return int(await town.services.database["reports"].count_documents(query))


async def test_workers_killed_in_the_middle_give_each_warning_once_and_redis_knows_nothing_of_it(
    mongodb_url, redis_url, tmp_path
):
    rng = dice("killed warnings")
    async with open_town(mongodb_url, redis_url, tmp_path, **QUICK) as town:
        numbers = await overdue_cases(town)
        in_the_middle = 0
        async with Redis.from_url(redis_url) as redis:
            for _ in range(KILLS):
                before = await given(town)
                workers = [await town.start("worker") for _ in range(2)]

                async def more(before: int = before) -> bool:
                    return await given(town) > before or not await open_work(town)

                await town.until(more)
                await redis.flushdb()
                await asyncio.sleep(rng.uniform(0, 0.15))
                for worker in workers:
                    await town.kill(worker)
                in_the_middle += bool(await open_work(town))
        assert in_the_middle, "the work was over before the killing"
        await town.start("worker")
        await town.until(lambda: nothing_left(town))
        notices = town.services.database["staff_notices"]
        for number in numbers:
            report = await town.report(number)
            warned = [e for e in report["timeline"] if e["action"] == "warn"]
            assert [e["given"]["percent"] for e in warned] == list(STEPS), number
            assert report["late"]
            assert report["owed"] == []
            told = {n["_id"] async for n in notices.find({"report": number})}
            assert told == {e["id"] for e in warned}, number


async def nothing_left(town: Town) -> bool:
    return not await open_work(town)
