"""kill -9 to workers in the middle of bringing merged cases together, and of offering checks on site."""

from __future__ import annotations

import asyncio
import random

import pytest

from core.ids import new_id
from tests.crash.town import Town, open_town, submit_many
from tests.district import location

MERGED = 40
ASKED = 30
KILLS = 5


async def claimed(town: Town, collection: str, kinds: list[str]) -> set[str]:
    """The claims that workers hold, or held when they died, on debts of ``kinds``."""
    query = {"owed": {"$elemMatch": {"kind": {"$in": kinds}, "claim": {"$exists": True}}}}
    found = town.services.database[collection].find(query)
    return {d["claim"] async for r in found for d in r["owed"] if d["kind"] in kinds and "claim" in d}


async def kill_in_the_middle(town: Town, collection: str, kinds: list[str]) -> int:
    """Start a worker again and again, and kill it when it is at such debts; how often some were left."""
    rng = random.Random(20261125)
    left = 0
    for _ in range(KILLS):
        before = await claimed(town, collection, kinds)
        if not await town.services.database[collection].count_documents({"owed.kind": {"$in": kinds}}):
            break
        worker = await town.start("worker")

        async def begun(before: set[str] = before) -> bool:
            debts = await town.services.database[collection].count_documents({"owed.kind": {"$in": kinds}})
            return bool(await claimed(town, collection, kinds) - before) or not debts

        await town.until(begun)
        await asyncio.sleep(rng.uniform(0, 0.05))
        await town.kill(worker)
        left += bool(await town.services.database[collection].count_documents({"owed.kind": {"$in": kinds}}))
    return left


@pytest.mark.timeout(240)
async def test_whoever_kills_the_worker_all_that_was_merged_comes_together_once(mongodb_url, redis_url, tmp_path):
    async with open_town(mongodb_url, redis_url, tmp_path) as town:
        await town.start("app")
        people = await town.people(8, accepts=0)
        numbers = sorted(await submit_many(town, people, each=(MERGED + 1) // 8 + 1))[: MERGED + 1]
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
        in_the_middle = await kill_in_the_middle(town, "reports", ["absorb"])
        assert in_the_middle >= 2, "the work was over before the killing"
        await town.start("worker")
        await town.all_paid()
        case = await town.report(first)
        ends = {number: (await town.services.queries.end_of(await town.report(number)))["_id"] for number in rest}
        assert set(ends.values()) == {first}
        assert sorted(case["absorbed"]) == rest
        reporters = {(await town.report(n))["reporter"]["citizen_id"] for n in rest}
        assert set(case["followers"]) == reporters - {case["reporter"]["citizen_id"]}
        assert len(case["followers"]) == len(set(case["followers"]))
        brought = [e["given"]["case"] for e in case["timeline"] if e["action"] == "take_over"]
        assert sorted(brought) == rest, "each report's evidence, once"
        assert len({e["id"] for e in case["timeline"]}) == len(case["timeline"]) == case["version"]


@pytest.mark.timeout(240)
async def test_whoever_kills_the_worker_each_check_is_offered_once(mongodb_url, redis_url, tmp_path):
    async with open_town(mongodb_url, redis_url, tmp_path) as town:
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
        left = await kill_in_the_middle(town, "reports", ["offer_check"])
        assert left >= 1, "the work was over before the killing"
        await town.start("worker")

        async def all_offered() -> bool:
            return await tasks.count_documents({"offered_to": {"$ne": []}}) == ASKED

        await town.until(all_offered, 90)
        await town.all_paid()
        found = [t async for t in tasks.find()]
        assert sorted(t["number"] for t in found) == sorted(numbers)
        for task in found:
            assert task["offered_to"] == [who.facts["staff"]["staff_id"]]
            assert sorted(d["kind"] for d in task["owed"]) == ["expire", "offer"]
            assert (await town.report(task["number"]))["open_checks"] == [task["_id"]]
