"""kill -9 to workers while they record changes, with Redis emptied in between: each change is there, and once."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from core.changes.log import ChangeLog
from tests.crash.process_district import Town, open_town, submit_many
from tests.sampling import amount, dice

KILLS = amount(2, 5)


async def recorded(town: Town) -> list[tuple[str, str]]:
    """(case, entry) of all changes in their order; the numbers have no gap and no entry is there twice."""
    changes = await ChangeLog(town.services.database).after(0, limit=100_000)
    assert [c["_id"] for c in changes] == list(range(1, len(changes) + 1))
    found = [(c["number"], c["entry"]) for c in changes if c.get("entry")]
    assert len(found) == len(set(found))
    return found


async def unrecorded(town: Town) -> set[tuple[str, str]]:
    """(case, entry) of what is in the cases' timelines and not among the changes yet."""
    reports = await town.services.database["reports"].find({}, {"timeline.id": 1}).to_list(None)
    return {(r["_id"], e["id"]) for r in reports for e in r["timeline"]} - set(await recorded(town))


async def test_workers_killed_while_they_record_changes_lose_and_double_none(mongodb_url, redis_url, tmp_path):
    rng = dice("killed feeders")
    async with open_town(mongodb_url, redis_url, tmp_path, GONGZHI_FEED__LEASE_SECONDS="3") as town:
        await town.start("app")
        workers = [await town.start("worker"), await town.start("worker")]

        async def begun() -> int:
            return await ChangeLog(town.services.database).newest()

        await town.until(begun)
        people = await town.people(3, accepts=40)
        working = asyncio.create_task(submit_many(town, people, each=5))

        async def at_work_or_over() -> bool:
            return bool(await unrecorded(town)) or working.done()

        midst = 0
        async with Redis.from_url(redis_url) as redis:
            for _ in range(KILLS):
                before = len(await recorded(town))
                await asyncio.sleep(rng.uniform(0.2, 1.0))
                await redis.flushall()
                await town.until(at_work_or_over)
                await town.kill(workers.pop(0))
                midst += bool(await unrecorded(town))
                workers.append(await town.start("worker"))

                async def goes_on(before: int = before) -> bool:
                    return len(await recorded(town)) > before or working.done()

                await town.until(goes_on)
        assert midst, "nobody was killed while there were changes to record"
        numbers = await working

        async def whole() -> bool:
            reports = await town.services.database["reports"].find().to_list(None)
            assert {r["_id"] for r in reports} == set(numbers)
            found = await recorded(town)
            # The worker may go on meanwhile: the changes begin with what the timeline was.
            return all(
                [e["id"] for e in r["timeline"]]
                == [e for number, e in found if number == r["_id"]][: len(r["timeline"])]
                for r in reports
            )

        await town.until(whole)
