"""A collector takes more as soon as a place is free, gives one party two places, and is stopped by no single debt."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest_asyncio
from pymongo import ASCENDING, IndexModel

from core.database import connect
from core.ids import new_id
from core.queue.debts import OWED_INDEX, Amendment, DebtCollector, Document, Parties, Payment, owe
from tests.timing import until

LEASE = timedelta(seconds=300)
RARELY = 300.0
"""How often is looked without being woken: what comes sooner has not come by that."""


@pytest_asyncio.fixture
async def things(mongodb_url):
    database = connect(mongodb_url, f"collectors_{new_id()}")
    yield database["things"]
    await database.client.drop_database(database.name)
    database.client.close()


class Payers:
    """Pays by counting. What is of a party that is held up waits until it is let go."""

    def __init__(self) -> None:
        self.held_up: set[str] = set()
        self.go_on = asyncio.Event()
        self.working: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def pay(self, thing: Document, _debt: Document) -> Payment:
        party = thing["party"]
        self.working[party] += 1
        self.most[party] = max(self.most[party], self.working[party])
        try:
            if party in self.held_up:
                await self.go_on.wait()
        finally:
            self.working[party] -= 1
        return Payment(Amendment(increment={"paid": 1}))


async def new(things: Any, party: str, count: int = 1, *kinds: str) -> list[str]:
    made = [
        {"_id": new_id(), "party": party, "paid": 0, "owed": [owe(kind) for kind in kinds or ("count",)]}
        for _ in range(count)
    ]
    await things.insert_many(made)
    return [str(thing["_id"]) for thing in made]


async def paid(things: Any, party: str, count: int) -> None:
    """Wait until ``count`` things of ``party`` are paid."""

    async def all_paid() -> bool:
        return bool(await things.count_documents({"party": party, "paid": 1, "owed": []}) == count)

    await until(all_paid)


@asynccontextmanager
async def running(collector: DebtCollector, woken: asyncio.Event) -> AsyncIterator[None]:
    task = asyncio.create_task(collector.run(woken, RARELY))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_what_comes_while_one_is_slow_is_paid_by_the_free_places(things):
    counter, woken = Payers(), asyncio.Event()
    counter.held_up.add("slow")
    collector = DebtCollector(things, {"count": counter.pay}, lease=LEASE, concurrency=2)
    async with running(collector, woken):
        await new(things, "slow")
        woken.set()
        await until(lambda: things.find_one({"party": "slow", "owed.claim": {"$exists": True}}))
        for known in range(3):
            await new(things, "quick", 20)
            woken.set()
            await paid(things, "quick", 20 * (known + 1))
        assert counter.working["slow"] == 1
        counter.go_on.set()
        await paid(things, "slow", 1)


async def test_one_party_has_two_places_however_much_waits_for_it(things):
    counter, woken = Payers(), asyncio.Event()
    counter.held_up.add("slow")
    parties = things.database["parties"]
    await parties.insert_many([{"_id": name} for name in ("slow", "quick", "idle")])
    await new(things, "slow", 200)
    collector = DebtCollector(
        things, {"count": counter.pay}, lease=LEASE, concurrency=5, parties=Parties(parties, "party")
    )
    async with running(collector, woken):
        await new(things, "quick", 40)
        woken.set()
        await paid(things, "quick", 40)
        assert counter.working["slow"] == 2
        counter.go_on.set()
        await paid(things, "slow", 200)
    assert counter.most["slow"] == 2, "one has more places than its share"


async def test_what_one_party_is_behind_with_is_not_read_to_find_what_is_due_to_another(things):
    parties = things.database["parties"]
    await parties.insert_many([{"_id": name} for name in ("slow", "quick")])
    await things.create_indexes([OWED_INDEX, IndexModel([("party", ASCENDING), ("owed.due_at", ASCENDING)])])
    await new(things, "slow", 1000)
    await new(things, "quick", 3)
    collector = DebtCollector(things, {"count": Payers().pay}, lease=LEASE, parties=Parties(parties, "party"))
    pipelines: list[Any] = []

    class Told:
        def aggregate(self, pipeline: Any) -> Any:
            pipelines.append(pipeline)
            return parties.aggregate(pipeline)

    collector._parties = Parties(Told(), "party")  # type: ignore[arg-type]
    assert len(await collector._look([], [])) == 4
    for full, found in (([], 4), (["slow"], 2)):
        pipelines[0][0]["$match"] = {"_id": {"$nin": full}}
        command = {"aggregate": "parties", "pipeline": pipelines[0], "cursor": {}}
        told = await parties.database.command({"explain": command, "verbosity": "executionStats"})
        (lookup,) = [stage for stage in told["stages"] if "$lookup" in stage]
        assert lookup["nReturned"] == found
        assert lookup["totalKeysExamined"] < 20, "a backlog is read through"


async def test_a_payment_that_cannot_be_stored_is_a_failed_attempt_and_stops_nobody(things):
    """A number beyond 64 bits, answered by somebody outside, ended the worker; each worker after it, too."""
    counter, woken = Payers(), asyncio.Event()

    async def unstorable(_thing: Document, _debt: Document) -> Payment:
        return Payment(Amendment(set={"answer": 2**70}))

    collector = DebtCollector(things, {"count": counter.pay, "poison": unstorable}, lease=LEASE)
    (poisoned,) = await new(things, "a", 1, "poison", "count")
    await new(things, "b", 10)
    async with running(collector, woken):
        await paid(things, "b", 10)
        row = await until(lambda: things.find_one({"_id": poisoned, "paid": 1, "owed.last_problem": "OverflowError"}))
    (left,) = row["owed"]
    assert (left["kind"], left["attempts"], "claim" in left) == ("poison", 1, False)


async def test_who_pays_another_kind_is_told_of_what_a_payment_leaves(things):
    told: list[str] = []

    async def pass_on(thing: Document, _debt: Document) -> Payment:
        later = timedelta(hours=1) if thing["party"] == "later" else timedelta(0)
        return Payment(Amendment(owe=[owe("elsewhere", delay=later)]))

    collector = DebtCollector(things, {"count": pass_on}, lease=LEASE, others=lambda: told.append("told"))
    await new(things, "later")
    await collector.settle_due()
    assert told == []
    await new(things, "now")
    await collector.settle_due()
    assert told == ["told"]
