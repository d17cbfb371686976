"""kill -9 to workers at what they are at: all of it is done afterwards, and none of it twice."""

from __future__ import annotations

import asyncio

from tests.crash.process_district import Town, open_town, submit_many
from tests.sampling import amount, dice

KILLS, EACH = amount(4, 12), amount(7, 10)


async def claims(town: Town, *, of_messages: bool) -> set[str]:
    """The claims that workers hold on reports, or held when they died; or of them, those on messages on their way."""
    found = town.services.database["reports"].find({"owed.claim": {"$exists": True}})
    return {d["claim"] async for r in found for d in r["owed"] if "claim" in d and (not of_messages or "sending" in d)}


async def test_a_worker_killed_again_and_again_leaves_nothing_undone_and_nothing_done_twice(
    mongodb_url, redis_url, tmp_path
):
    rng = dice("killed workers")
    async with open_town(mongodb_url, redis_url, tmp_path) as town:
        await town.start("app")
        numbers = await submit_many(town, await town.people(6, accepts=10), each=EACH)
        await town.slow_down(0.15)
        interrupted: set[tuple[str, str]] = set()
        in_the_middle = 0
        for kill in range(KILLS):
            of_messages = kill % 2 == 1
            before = await claims(town, of_messages=of_messages)
            worker = await town.start("worker")

            async def begun(before: set[str] = before, of_messages: bool = of_messages) -> set[str]:
                return await claims(town, of_messages=of_messages) - before

            await town.until(begun)
            await asyncio.sleep(rng.uniform(0, 0.3))
            await town.kill(worker)
            interrupted |= await town.sending()
            in_the_middle += bool(await town.owed(later=False))
        assert in_the_middle == KILLS, "the work was over before the killing"
        assert interrupted, "no kill landed inside a call to WeChat"
        await town.start("worker")
        await town.all_paid()
        await town.check_done_once(numbers, interrupted=interrupted, accepts=10)


async def test_two_workers_share_the_work_and_one_finishes_it_when_the_other_is_killed(
    mongodb_url, redis_url, tmp_path
):
    async with open_town(mongodb_url, redis_url, tmp_path, lease_seconds=6.0) as town:
        await town.start("app")
        numbers = await submit_many(town, await town.people(6, accepts=10), each=amount(3, 5))
        await town.slow_down(0.15)
        first = await town.start("worker")
        await town.start("worker")
        await town.until(town.sending)
        interrupted = await town.sending()
        await town.kill(first)
        interrupted |= await town.sending()
        await town.all_paid()
        await town.check_done_once(numbers, interrupted=interrupted, accepts=10)
