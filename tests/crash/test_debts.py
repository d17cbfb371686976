"""A debt is paid once, wherever its worker dies, and only by the worker that holds its lease."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from core.clock import now
from core.database import connect
from core.ids import new_id
from core.queue.debts import KINDS_INDEX, OWED_INDEX, Amendment, DebtCollector, Document, Payer, Payment, Postponed, owe
from tests.clock import unmoved_clock, wait
from tests.crash.fault_injection import Mortal

LEASE = timedelta(seconds=30)


@pytest_asyncio.fixture
async def database(mongodb_url):
    found = connect(mongodb_url, f"debts_{new_id()}")
    yield found
    await found.client.drop_database(found.name)
    found.client.close()


@pytest.fixture(autouse=True)
def _clock():
    with unmoved_clock():
        yield


class Shop:
    """Documents that owe a count; paying it owes a receipt; an effect outside is kept by the debt's id."""

    def __init__(self, database: Any) -> None:
        self.documents = database["documents"]
        self.outside = database["outside"]
        self.runs = 0

    async def new(self, *kinds: str, **fields: Any) -> str:
        document = {"_id": new_id(), "counted": 0, "receipts": 0, "owed": [owe(k) for k in kinds], **fields}
        await self.documents.insert_one(document)
        return str(document["_id"])

    async def pay_count(self, document: Document, debt: Document) -> Payment:
        self.runs += 1
        await self.outside.update_one({"_id": debt["id"]}, {"$set": {"of": document["_id"]}}, upsert=True)
        return Payment(Amendment(increment={"counted": 1}, push={"log": [debt["id"]]}, owe=[owe("receipt")]))

    async def pay_receipt(self, _document: Document, _debt: Document) -> Payment:
        return Payment(Amendment(increment={"receipts": 1}))

    def collector(self, **payers: Any) -> DebtCollector:
        payers = {"count": self.pay_count, "receipt": self.pay_receipt, **payers}
        return DebtCollector(self.documents, payers, lease=LEASE)

    async def settle(self, collector: DebtCollector | None = None) -> None:
        for _ in range(100):
            if not await (collector or self.collector()).settle_due():
                return
        raise AssertionError("there is always something due")

    async def read(self, document_id: str) -> Document:
        found = await self.documents.find_one({"_id": document_id})
        assert found is not None
        return dict(found)


async def calls_of_a_whole_life(shop: Shop) -> list[str]:
    await shop.new("count", "count")
    alive = Mortal(0, "before")
    with alive.lifetime():
        await shop.settle()
    return alive.calls


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_of_documents_claimed_together_each_is_paid_once_whatever_call_their_worker_died_at(database, moment):
    shop = Shop(database)
    payers: dict[str, Payer] = {"count": shop.pay_count, "receipt": shop.pay_receipt}

    def together() -> DebtCollector:
        return DebtCollector(shop.documents, payers, lease=LEASE, concurrency=3, claimed_together=3)

    async def settle_all() -> list[str]:
        mortal = Mortal(0, "before")
        with mortal.lifetime():
            await shop.settle(together())
        return mortal.calls

    for _ in range(5):
        await shop.new("count")
    calls = await settle_all()
    assert len(calls) == 2 + 3 * 5, "two claims for five documents; of each an effect, the count and the receipt"
    for at in range(1, len(calls) + 1):
        ids = [await shop.new("count") for _ in range(5)]
        with Mortal(at, moment).lifetime():
            await shop.settle(together())
        await shop.settle(together())
        wait(seconds=LEASE.total_seconds() + 1)
        await shop.settle(together())
        for paid in [await shop.read(document_id) for document_id in ids]:
            assert (paid["counted"], paid["receipts"], paid["owed"]) == (1, 1, []), f"death {moment} call {at}"
            assert await database["outside"].count_documents({"of": paid["_id"]}) == 1


async def test_workers_that_claim_several_together_never_pay_the_same_debt(database):
    shop = Shop(database)
    ids = [await shop.new("count") for _ in range(60)]
    payers: dict[str, Payer] = {"count": shop.pay_count, "receipt": shop.pay_receipt}
    workers = [DebtCollector(shop.documents, payers, lease=LEASE, claimed_together=8) for _ in range(3)]
    await asyncio.gather(*(shop.settle(worker) for worker in workers))
    assert shop.runs == len(ids)
    assert await shop.documents.count_documents({"counted": 1, "receipts": 1, "owed": []}) == len(ids)


async def test_what_a_collector_has_no_payer_for_is_left_to_who_has(database):
    shop = Shop(database)
    quick = DebtCollector(shop.documents, {"count": shop.pay_count}, lease=LEASE)
    slow = DebtCollector(shop.documents, {"slow": shop.pay_receipt, "receipt": shop.pay_receipt}, lease=LEASE)
    document_id = await shop.new("slow", "count")
    await shop.settle(quick)
    left = await shop.read(document_id)
    assert left["counted"] == 1
    assert [(d["kind"], d["attempts"], "claim" in d) for d in left["owed"]] == [
        ("slow", 0, False),
        ("receipt", 0, False),
    ]
    await asyncio.gather(shop.settle(quick), shop.settle(slow))
    paid = await shop.read(document_id)
    assert (paid["counted"], paid["receipts"], paid["owed"]) == (1, 2, [])


async def test_what_one_collector_is_behind_with_is_not_in_the_way_of_another(database):
    shop = Shop(database)
    await shop.documents.create_indexes([OWED_INDEX, KINDS_INDEX])
    for _ in range(300):
        await shop.new("slow")
    for _ in range(3):
        await shop.new("count")
    for _ in range(10):
        await shop.new()
    due = DebtCollector(shop.documents, {"count": shop.pay_count, "receipt": shop.pay_receipt}, lease=LEASE)._due(now())
    command = {"find": "documents", "filter": due, "projection": {"_id": 1}, "limit": 64}
    told = await database.command({"explain": command, "verbosity": "executionStats"})
    assert told["executionStats"]["nReturned"] == 3
    assert told["executionStats"]["totalKeysExamined"] < 10


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_debt_is_paid_once_whatever_call_its_worker_died_at(database, moment):
    shop = Shop(database)
    calls = await calls_of_a_whole_life(shop)
    assert len(calls) == 5  # the claim, an effect for each count, both counts in one update, both receipts in another
    for at in range(1, len(calls) + 1):
        await database["outside"].delete_many({})
        document_id = await shop.new("count", "count")
        with Mortal(at, moment).lifetime():
            await shop.settle()
        await shop.settle()
        wait(seconds=LEASE.total_seconds() + 1)
        await shop.settle()
        paid = await shop.read(document_id)
        assert (paid["counted"], paid["receipts"], paid["owed"]) == (2, 2, []), f"death {moment} call {at}"
        assert len(set(paid["log"])) == 2
        assert await database["outside"].count_documents({"of": document_id}) == 2


async def test_a_payment_that_does_not_hold_any_more_undoes_no_other_of_the_same_update(database):
    shop = Shop(database)
    document_id = await shop.new("count", "fragile", "count", stage=1)

    async def fragile(document: Document, _debt: Document) -> Payment:
        if document["stage"] == 1:  # somebody else is quicker
            await shop.documents.update_one({"_id": document_id}, {"$set": {"stage": 2}})
        return Payment(Amendment(push={"saw": [document["stage"]]}), condition={"stage": document["stage"]})

    await shop.settle(shop.collector(fragile=fragile))
    paid = await shop.read(document_id)
    assert (paid["counted"], paid["receipts"], paid["saw"], paid["owed"]) == (2, 2, [2], [])
    assert shop.runs == 2


async def test_two_payments_with_conditions_are_worked_out_one_after_the_other(database):
    shop = Shop(database)
    document_id = await shop.new("step", "step", stage=1)

    async def step(document: Document, _debt: Document) -> Payment:
        stage = document["stage"]
        return Payment(Amendment(set={"stage": stage + 1}, push={"saw": [stage]}), condition={"stage": stage})

    await shop.settle(shop.collector(step=step))
    paid = await shop.read(document_id)
    assert (paid["stage"], paid["saw"], paid["owed"]) == (3, [1, 2], [])


async def test_what_was_done_outside_for_good_is_recorded_before_the_next_debt_is_looked_at(database):
    shop = Shop(database)
    document_id = await shop.new("send", "send")
    recorded: list[int] = []

    async def send(_document: Document, debt: Document) -> Payment:
        recorded.append(len((await shop.read(document_id)).get("log", [])))
        return Payment(Amendment(push={"log": [debt["id"]]}), prompt=True)

    await shop.settle(shop.collector(send=send))
    assert recorded == [0, 1]


async def test_while_the_lease_of_a_dead_worker_runs_nobody_takes_its_debt(database):
    shop = Shop(database)
    document_id = await shop.new("count")
    with Mortal(2, "before").lifetime():  # claimed, and died at the effect
        await shop.settle()
    await shop.settle()
    assert shop.runs == 1
    assert (await shop.read(document_id))["counted"] == 0
    wait(seconds=LEASE.total_seconds() + 1)
    await shop.settle()
    assert (await shop.read(document_id))["counted"] == 1


async def test_a_payment_that_comes_after_the_lease_was_lost_changes_nothing(database):
    shop = Shop(database)
    document_id = await shop.new("count")
    held, go = asyncio.Event(), asyncio.Event()

    async def slow(document: Document, debt: Document) -> Payment:
        held.set()
        await go.wait()
        return await shop.pay_count(document, debt)

    late = asyncio.create_task(shop.collector(count=slow).settle_due())
    await held.wait()
    wait(seconds=LEASE.total_seconds() + 1)
    await shop.settle()
    before = await shop.read(document_id)
    assert (before["counted"], before["receipts"]) == (1, 1)
    go.set()
    await late
    assert await shop.read(document_id) == before


@pytest.mark.parametrize("how", ["postponed", "failed"])
async def test_a_worker_that_lost_its_lease_does_not_put_off_what_another_has_taken(database, how):
    shop = Shop(database)
    document_id = await shop.new("count")
    events = {name: (asyncio.Event(), asyncio.Event()) for name in ("late", "present")}

    def slow(name: str) -> Any:
        held, go = events[name]

        async def pay(document: Document, debt: Document) -> Payment:
            held.set()
            await go.wait()
            if name == "present":
                return await shop.pay_count(document, debt)
            if how == "postponed":
                raise Postponed("not yet", timedelta(hours=1))
            raise ValueError("broken")

        return pay

    late = asyncio.create_task(shop.collector(count=slow("late")).settle_due())
    await events["late"][0].wait()
    wait(seconds=LEASE.total_seconds() + 1)
    present = asyncio.create_task(shop.collector(count=slow("present")).settle_due())
    await events["present"][0].wait()
    events["late"][1].set()
    await late
    (debt,) = (await shop.read(document_id))["owed"]
    assert "claim" in debt
    assert "last_problem" not in debt
    events["present"][1].set()
    await present
    assert (await shop.read(document_id))["counted"] == 1


async def test_a_document_with_many_slow_debts_stays_with_the_worker_that_is_paying_them(database):
    """Together they take many leases; a second worker looks for work all the time and must find none of it."""
    shop = Shop(database)
    document_id = await shop.new(*["count"] * 12)
    payers_of: dict[str, list[str]] = {}

    def slow(name: str) -> Any:
        async def pay(document: Document, debt: Document) -> Payment:
            payers_of.setdefault(debt["id"], []).append(name)
            wait(seconds=LEASE.total_seconds() * 0.4)
            if name == "first":
                await shop.collector(count=slow("second")).settle_due()
            return await shop.pay_count(document, debt)

        return pay

    await shop.settle(shop.collector(count=slow("first")))
    assert (await shop.read(document_id))["counted"] == 12
    assert list(payers_of.values()) == [["first"]] * 12


async def test_a_worker_that_lost_its_lease_leaves_the_rest_of_the_document_alone(database):
    shop = Shop(database)
    document_id = await shop.new("count", "count", "count")
    tried: list[str] = []

    async def slow(document: Document, debt: Document) -> Payment:
        tried.append(debt["id"])
        wait(seconds=LEASE.total_seconds() + 1)
        await shop.settle()  # another worker takes all of it over
        return await shop.pay_count(document, debt)

    await shop.collector(count=slow).settle_due()
    assert len(tried) == 1
    assert (await shop.read(document_id))["counted"] == 3


async def test_a_payment_whose_condition_no_longer_holds_is_made_anew_on_the_document_as_it_is(database):
    shop = Shop(database)
    document_id = await shop.new("move", place="here")
    seen: list[str] = []

    async def move(document: Document, _debt: Document) -> Payment:
        seen.append(document["place"])
        if len(seen) == 1:
            await shop.documents.update_one({"_id": document_id}, {"$set": {"place": "there"}})
        return Payment(Amendment(set={"moved_from": document["place"]}), condition={"place": document["place"]})

    await shop.settle(shop.collector(move=move))
    assert seen == ["here", "there"]
    assert (await shop.read(document_id))["moved_from"] == "there"


async def test_ten_workers_at_once_pay_every_debt_once(database):
    shop = Shop(database)
    ids = [await shop.new("count", "count") for _ in range(30)]
    await asyncio.gather(*(shop.settle() for _ in range(10)))
    wait(seconds=1)
    await shop.settle()
    for document_id in ids:
        paid = await shop.read(document_id)
        assert (paid["counted"], paid["receipts"], paid["owed"]) == (2, 2, [])
    assert shop.runs == 60
