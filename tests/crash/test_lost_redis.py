"""Redis emptied again and again, stopped and started: it holds nothing that anything depends on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest_asyncio
from redis.asyncio import Redis
from saq import Queue

from server.launcher.embedded import Embedded, start_valkey
from tests.crash.process_district import Town, open_town, submit_many
from tests.sampling import amount

CRON_JOBS = {"clear_unused_photos", "mark_late_reports", "count_jobs"}
READS = 40
# Generous but for reading, so that only what a test does on purpose is limited.
LIMITS = {
    "GONGZHI_LIMITS__ENABLED": "true",
    "GONGZHI_LIMITS__READ__COUNT": str(READS),
    **{f"GONGZHI_LIMITS__{name}__COUNT": "100000" for name in ("WRITE", "REPORT", "PHOTO", "SIGN_IN")},
}


@pytest_asyncio.fixture
async def mortal_valkey(tmp_path):
    """A Valkey of the test's own; whoever stops it puts its successor in."""
    (tmp_path / "logs").mkdir()
    held = [await start_valkey(tmp_path / "valkey", tmp_path / "logs")]
    yield held
    await held[-1].stop()


def scheduled(valkey: Embedded) -> Callable[[], Awaitable[bool]]:
    """Whether every entry of the timetable is on the queue, or being done."""

    async def all_of_them() -> bool:
        queue = Queue.from_url(valkey.url, name="timetable")
        try:
            jobs = await queue.jobs([f"cron:{name}" for name in CRON_JOBS])
            return {job.function for job in jobs if job is not None} == CRON_JOBS
        finally:
            await queue.disconnect()

    return all_of_them


async def the_timetable_works(valkey: Embedded) -> None:
    """What is put on the queue is taken from it and done."""
    queue = Queue.from_url(valkey.url, name="timetable")
    try:
        assert await queue.apply("mark_late_reports", timeout=120) == 0
    finally:
        await queue.disconnect()


@asynccontextmanager
async def emptied_all_the_while(valkey: Embedded) -> AsyncIterator[None]:
    async def empty() -> None:
        async with Redis.from_url(valkey.url) as redis:
            while True:
                await redis.flushall()
                await asyncio.sleep(0.05)

    emptying = asyncio.create_task(empty())
    yield
    assert not emptying.done()
    emptying.cancel()
    await asyncio.gather(emptying, return_exceptions=True)


async def limited_from(town: Town) -> int:
    """How many reads a citizen is allowed now before being told to wait; ``2 * READS`` when all are."""
    citizen = await town.citizen()
    for count in range(2 * READS):
        answer = await citizen.call("GET", "/me")
        if answer.status_code == 429:
            assert int(answer.headers["Retry-After"]) >= 1
            return count
        assert answer.status_code == 200, answer.text
    return 2 * READS


async def test_emptying_redis_all_the_while_loses_and_doubles_nothing(mongodb_url, mortal_valkey, tmp_path):
    (valkey,) = mortal_valkey
    async with open_town(mongodb_url, valkey.url, tmp_path, lease_seconds=10.0, **LIMITS) as town:
        await town.start("app")
        await town.start("worker")
        await town.until(scheduled(valkey))
        people = await town.people(4, accepts=10)
        await town.slow_down(0.05)
        async with emptied_all_the_while(valkey):
            numbers = await submit_many(town, people, each=amount(3, 6))
            await town.all_paid()
        await town.check_done_once(numbers, accepts=10)
        await town.until(scheduled(valkey))
        await the_timetable_works(valkey)
        assert READS <= await limited_from(town) <= READS + 1


async def test_without_redis_people_are_served_and_the_work_is_done_and_afterwards_all_is_as_before(
    mongodb_url, mortal_valkey, tmp_path
):
    (valkey,) = mortal_valkey
    async with open_town(mongodb_url, valkey.url, tmp_path, lease_seconds=10.0, **LIMITS) as town:
        await town.start("app")
        await town.start("worker")
        await town.until(scheduled(valkey))
        people = await town.people(4, accepts=10)
        await town.slow_down(0.05)
        numbers = await submit_many(town, people, each=2)
        await town.until(town.sending)
        await valkey.stop()
        numbers += await submit_many(town, people, each=3)
        assert await limited_from(town) == 2 * READS, "who cannot be counted is let pass"
        await town.all_paid()
        await town.check_done_once(numbers, accepts=10)
        mortal_valkey.append(await start_valkey(tmp_path / "valkey", tmp_path / "logs", port=valkey.port))
        assert mortal_valkey[-1].url == valkey.url
        numbers += await submit_many(town, people, each=2)
        await town.until(scheduled(valkey))
        await the_timetable_works(valkey)
        assert READS <= await limited_from(town) <= READS + 1
        await town.all_paid()
        await town.check_done_once(numbers, accepts=10)
