"""kill -9 to workers in the middle of bringing merged cases together, and of offering checks on site."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from core.ids import new_id
from reports.queries import ReportQueries
from tests.crash.process_district import Town, open_town, submit_many
from tests.district import location
from tests.sampling import amount, dice

MERGED = amount(7, 15)
ASKED = amount(12, 24)
KILLS = amount(2, 4)


async def kill_in_the_middle(town: Town, pending: Callable[[], Awaitable[int]]) -> int:
    """Start a worker again and again, and kill it when it has done some of what is ``pending``; how often some was."""
    rng = dice("killed relations")
    left = 0
    for _ in range(KILLS):
        before = await pending()
        if not before:
            break
        worker = await town.start("worker")

        async def begun(before: int = before) -> bool:
            return await pending() < before

        await town.until(begun)
        await asyncio.sleep(rng.uniform(0, 0.02))
        await town.kill(worker)
        left += bool(await pending())
    return left


ONE_BY_ONE = "1"
"""One case after the other, so that a quick machine is not through before it is killed."""


async def test_whoever_kills_the_worker_all_that_was_merged_comes_together_once(mongodb_url, redis_url, tmp_path):
    # Beside other work, a worker that stands back would not be at anything for minutes.
    async with open_town(mongodb_url, redis_url, tmp_path, GONGZHI_WORKER__CONCURRENCY=ONE_BY_ONE) as town:
        await town.start("app")
        people = await town.people(8, accepts=0)
        numbers = sorted(await submit_many(town, people, each=(MERGED + 1) // 8))
        worker = await town.start("worker")
        await town.all_paid()
        await town.kill(worker)
        first, *rest = numbers
        for at, number in enumerate(rest):
            # Some into the first one, some into each other: chains.
            into = first if at % 3 else rest[at - 1] if at else first
            target = await town.report(into)
            into = target["merged_into"] or into
            if into < number:
                await town.action("duty_chief", number, "merge", into=into, reason="同一处")
        reports = town.services.database["reports"]
        left = await kill_in_the_middle(town, lambda: reports.count_documents({"owed.kind": "absorb"}))
        assert left >= 1, "the work was over before the killing"
        await town.start("worker")
        await town.all_paid()
        case = await town.report(first)
        ends = {
            number: (await town.services[ReportQueries].end_of(await town.report(number)))["_id"] for number in rest
        }
        assert set(ends.values()) == {first}
        assert sorted(case["absorbed"]) == rest
        reporters = {(await town.report(n))["reporter"]["citizen_id"] for n in rest}
        assert set(case["followers"]) == reporters - {case["reporter"]["citizen_id"]}
        assert len(case["followers"]) == len(set(case["followers"]))
        brought = [e["given"]["case"] for e in case["timeline"] if e["action"] == "take_over"]
        assert sorted(brought) == rest, "each report's evidence, once"
        assert len({e["id"] for e in case["timeline"]}) == len(case["timeline"]) == case["version"]


async def test_whoever_kills_the_worker_each_check_is_offered_once(mongodb_url, redis_url, tmp_path):
    async with open_town(mongodb_url, redis_url, tmp_path, GONGZHI_WORKER__CONCURRENCY=ONE_BY_ONE) as town:
        await town.start("app")
        citizen = (await town.people(1, accepts=0))[0]
        who = await town.staff("collector")
        await who.post("/position", {"location": location(), "consent": True})
        photo = await citizen.photo()
        numbers = [
            await town.submit(citizen, key=new_id(), category=None, answers={}, photo_ids=[photo]) for _ in range(ASKED)
        ]
        worker = await town.start("worker")
        await town.all_paid()
        await town.kill(worker)
        for number in numbers:
            await town.action("duty_chief", number, "ask_check")
        tasks = town.services.database["side_tasks"]

        async def not_offered() -> int:
            return ASKED - int(await tasks.count_documents({"offered_to": {"$ne": []}}))

        left = await kill_in_the_middle(town, not_offered)
        assert left >= 1, "the work was over before the killing"
        await town.start("worker")

        async def all_offered() -> bool:
            return await tasks.count_documents({"offered_to": {"$ne": []}}) == ASKED

        await town.until(all_offered)
        await town.all_paid()
        found = [t async for t in tasks.find()]
        assert sorted(t["number"] for t in found) == sorted(numbers)
        for task in found:
            assert task["offered_to"] == [who.facts["staff"]["staff_id"]]
            assert sorted(d["kind"] for d in task["owed"]) == ["expire", "offer"]
            assert (await town.report(task["number"]))["open_checks"] == [task["_id"]]
