"""Deliveries: made from the record of changes, each a document that owes its being sent.

A subscription has a cursor. Changes after it become deliveries, whose id is the subscription and the change's number,
and then the cursor moves on: whoever dies in between makes the same deliveries again, which are there already. A
delivery is sent at least once, under the same id each time, until the receiver takes it or three days are over.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import structlog
from pymongo import ReturnDocument
from pymongo.errors import BulkWriteError, PyMongoError

from core.changes.log import ChangeLog
from core.clock import now
from core.config_sections import Webhooks as WebhookSettings
from core.database import Collection, Database
from core.encryption import Vault
from core.queue.debts import Amendment, Document, Parties, Payment, Postponed, owe
from core.queue.leadership import Leadership
from core.waiting import until_set
from webhooks.metrics import WEBHOOKS_SENT
from webhooks.models import GIVE_UP_AFTER, Wanted, event_of, message_of, pause_after
from webhooks.sending import Outcome, Sender

log = structlog.get_logger(__name__)

_READ = 500
_CLEARED = 2000
_DUPLICATE = 11000
_KEEP_DELIVERED = timedelta(days=7)
_KEEP_DEAD = timedelta(days=30)
_GONE = 410
_LOOK_AGAIN = timedelta(minutes=10)
_LONGEST_REST = timedelta(minutes=5)
_LEASE_SECONDS = 15.0
_LINGER_SECONDS = 0.1


class Planner:
    """Makes deliveries of changes. Any number may run; one works, by a lease, which spares work and nothing else.

    ``made`` is called when there are new deliveries.
    """

    def __init__(self, database: Database, made: Callable[[], None]) -> None:
        self._webhooks = database["webhooks"]
        self._deliveries = database["webhook_deliveries"]
        self._changes = ChangeLog(database)
        self._made = made
        self._lead = Leadership(database["leaders"], "webhooks", seconds=_LEASE_SECONDS)

    async def run(self, woken: asyncio.Event, seconds: float) -> None:
        """Plan whenever ``woken``, and every ``seconds``, until cancelled."""
        leads, renew_at = False, 0.0
        loop = asyncio.get_running_loop()
        try:
            while True:
                woken.clear()
                try:
                    if loop.time() >= renew_at:
                        leads = await (self._lead.renew() if leads else self._lead.take())
                        renew_at = loop.time() + self._lead.seconds / 3
                    if leads and await self.plan():
                        self._made()
                except PyMongoError as error:
                    log.warning("webhooks.database", error=type(error).__name__)
                except Exception:
                    log.exception("webhooks.failed")  # and is tried again: the process has other work
                    await asyncio.sleep(seconds)
                await asyncio.sleep(_LINGER_SECONDS)
                await until_set(woken, seconds)
        finally:
            if leads:
                with contextlib.suppress(PyMongoError):
                    await self._lead.release()

    async def plan(self) -> int:
        """Make the deliveries of every change that no subscription has had yet; how many were made."""
        made = 0
        newest = await self._changes.newest()
        behind: dict[int, list[Document]] = {}
        async for webhook in self._webhooks.find({"state": "active", "cursor": {"$lt": newest}}, {"secrets": 0}):
            behind.setdefault(webhook["cursor"], []).append(webhook)
        for cursor, webhooks in behind.items():
            made += await self._plan_from(cursor, webhooks)
        return made

    async def _plan_from(self, cursor: int, webhooks: list[Document]) -> int:
        made = 0
        async for changes in self._from(cursor, webhooks):
            for webhook in webhooks:
                wanted = Wanted.of(webhook)
                new = [_delivery(webhook["_id"], c) for c in changes if wanted.takes(c)]
                if new:
                    await self._insert(new)
                    made += len(new)
                # The condition keeps whoever stood still meanwhile from moving it back.
                await self._webhooks.update_one(
                    {"_id": webhook["_id"], "cursor": {"$lt": changes[-1]["_id"]}},
                    {"$set": {"cursor": changes[-1]["_id"]}},
                )
        return made

    async def _from(self, cursor: int, webhooks: list[Document]) -> AsyncIterator[list[Document]]:
        """The changes after ``cursor``, some at a time. What is no longer kept is written down as missed."""
        while changes := await self._changes.after(cursor, limit=_READ):
            if changes[0]["_id"] > cursor + 1:
                gap = {"after": cursor, "before": changes[0]["_id"]}
                log.error("webhooks.missed", webhooks=len(webhooks), **gap)
                await self._webhooks.update_many(
                    {"_id": {"$in": [w["_id"] for w in webhooks]}}, {"$addToSet": {"missed": gap}}
                )
            yield changes
            cursor = changes[-1]["_id"]

    async def _insert(self, new: list[Document]) -> None:
        try:
            await self._deliveries.insert_many(new, ordered=False)
        except BulkWriteError as error:
            if any(e["code"] != _DUPLICATE for e in error.details["writeErrors"]):
                raise


def _delivery(webhook_id: str, change: Document) -> Document:
    delivery_id = f"{webhook_id}-{change['_id']}"
    moment = now()
    return {
        "_id": delivery_id,
        "webhook_id": webhook_id,
        "seq": change["_id"],
        "event": event_of(change),
        "number": change["number"],
        "body": message_of(delivery_id, change),
        "state": "waiting",
        "created_at": moment,
        "give_up_at": moment + GIVE_UP_AFTER,
        "delivered_at": None,
        "expires_at": None,
        "tries": 0,
        "last": None,
        "owed": [owe("deliver")],
    }


async def hasten(deliveries: Collection, webhook_id: str) -> None:
    """Make due what was put off for the subscription and nobody has taken up."""
    moment = now()
    put_off: Document = {"due_at": {"$gt": moment}, "claim": {"$exists": False}}
    await deliveries.update_many(
        {"webhook_id": webhook_id, "owed": {"$elemMatch": put_off}}, {"$set": {"owed.$[].due_at": moment}}
    )


def receivers(database: Database) -> Parties:
    """To whom deliveries go: one that is slow, or that much waits for, holds up none of the others.

    Nothing is sent to one that is paused, deleted, or rests after a failure.
    """

    def payable() -> Document:
        return {"state": "active", "$or": [{"retry_at": None}, {"retry_at": {"$lte": now()}}]}

    return Parties(database["webhooks"], "webhook_id", payable)


async def owe_clearing(database: Database) -> int:
    """Have subscriptions owe :meth:`Delivering.pay_clear` for which something waits in vain; how many.

    That is what waits for a deleted one (its deletion owes it too, but a delivery may be made in that moment), and what
    has waited for longer than deliveries are tried, as while one was paused.
    """
    joined = {"from": "webhook_deliveries", "localField": "_id", "foreignField": "webhook_id", "as": "vain"}
    one: list[Document] = [
        {"$match": {"state": "waiting", "$expr": {"$or": ["$$deleted", {"$lt": ["$created_at", "$$too_old"]}]}}},
        {"$match": {"$expr": {"$or": ["$$deleted", {"$lte": ["$give_up_at", "$$moment"]}]}}},
        {"$limit": 1},
        {"$project": {"_id": 1}},
    ]
    given = {"deleted": {"$eq": ["$state", "deleted"]}, "too_old": now() - GIVE_UP_AFTER, "moment": now()}
    stages: list[Document] = [
        {"$lookup": {**joined, "let": given, "pipeline": one}},
        {"$match": {"vain": {"$ne": []}}},
        {"$project": {"_id": 1}},
    ]
    found = [row["_id"] async for row in database["webhooks"].aggregate(stages)]
    for webhook_id in found:
        unless_owed = {"_id": webhook_id, "owed.kind": {"$ne": "clear"}}
        await database["webhooks"].update_one(unless_owed, {"$push": {"owed": owe("clear")}})
    return len(found)


class Delivering:
    """Pays the debt of a delivery: sends it; and clears away in bulk what is not to be sent any more."""

    def __init__(self, database: Database, vault: Vault, sender: Sender, settings: WebhookSettings) -> None:
        self._webhooks = database["webhooks"]
        self._deliveries = database["webhook_deliveries"]
        self._vault = vault
        self._sender = sender
        self._settings = settings

    async def pay_deliver(self, delivery: Document, debt: Document) -> Payment:
        """Send it once. It may run twice for one debt: the receiver knows it by its id."""
        webhook = await self._webhooks.find_one({"_id": delivery["webhook_id"]})
        moment = now()
        if webhook is None or webhook["state"] == "deleted":
            return _ended("dropped", _KEEP_DELIVERED)
        if moment >= delivery["give_up_at"]:
            WEBHOOKS_SENT.labels("dead").inc()
            return _ended("dead", _KEEP_DEAD)
        if webhook["state"] != "active":
            raise Postponed("the subscription is paused", _LOOK_AGAIN)
        if webhook["retry_at"] is not None and webhook["retry_at"] > moment:
            # It failed just now: the first ones after its rest try whether it is back.
            raise Postponed("the receiver fails", webhook["retry_at"] - moment)
        secrets = [
            self._vault.open(s, "webhook") for s in webhook["secrets"] if s["until"] is None or s["until"] > moment
        ]
        outcome = await self._sender.send(webhook["url"], secrets, delivery["_id"], bytes(delivery["body"]))
        last = {
            "at": now(),
            "status": outcome.status,
            "problem": outcome.problem,
            "milliseconds": outcome.milliseconds,
        }
        if outcome.accepted:
            WEBHOOKS_SENT.labels("delivered").inc()
            await self._went_well(webhook)
            payment = _ended("delivered", _KEEP_DELIVERED)
            payment.amendment.set |= {"delivered_at": now(), "last": last}
            payment.amendment.increment["tries"] = 1
            return payment
        WEBHOOKS_SENT.labels("failed").inc()
        await self._went_wrong(webhook, outcome)
        tries = delivery["tries"] + 1
        await self._deliveries.update_one(
            {"_id": delivery["_id"], "owed": {"$elemMatch": {"id": debt["id"], "claim": debt["claim"]}}},
            {"$set": {"last": last}, "$inc": {"tries": 1}},
        )
        pause = pause_after(tries)
        raise Postponed(outcome.problem or "", min(pause + _spread(pause / 10), delivery["give_up_at"] - moment))

    async def pay_clear(self, webhook: Document, debt: Document) -> Payment:
        """End at once many of the deliveries that are not to be sent any more; owed again while there may be more.

        All of a deleted subscription are dropped; of others, what has waited for too long is dead.
        """
        moment = now()
        vain: Document = {"webhook_id": webhook["_id"], "state": "waiting"}
        state, keep = "dropped", _KEEP_DELIVERED
        if webhook["state"] != "deleted":
            vain |= {"created_at": {"$lt": moment - GIVE_UP_AFTER}, "give_up_at": {"$lte": moment}}
            vain["owed.claim"] = {"$exists": False}
            state, keep = "dead", _KEEP_DEAD
        ids = [d["_id"] async for d in self._deliveries.find(vain, {"_id": 1}).limit(_CLEARED)]
        ended = await self._deliveries.update_many(
            {"_id": {"$in": ids}, **vain}, {"$set": {"state": state, "expires_at": moment + keep, "owed": []}}
        )
        if state == "dead":
            WEBHOOKS_SENT.labels("dead").inc(ended.modified_count)
        return Payment(Amendment(owe=[owe("clear")] if len(ids) == _CLEARED else []))

    async def _went_well(self, webhook: Document) -> None:
        moment = now()
        seen = webhook["last_success_at"]
        if webhook["failures"] or seen is None or moment - seen > timedelta(minutes=1):
            well = {"failures": 0, "failing_since": None, "retry_at": None, "last_success_at": moment}
            await self._webhooks.update_one({"_id": webhook["_id"]}, {"$set": well})

    async def _went_wrong(self, webhook: Document, outcome: Outcome) -> None:
        """Rest for a while; pause the subscription when it has failed for long, or the receiver says to stop."""
        moment = now()
        rest = min(pause_after(webhook["failures"] + 1), _LONGEST_REST)
        after = await self._webhooks.find_one_and_update(
            {"_id": webhook["_id"]},
            {
                "$inc": {"failures": 1},
                "$set": {
                    "last_problem": outcome.problem,
                    "retry_at": moment + rest,
                    **({} if webhook["failing_since"] else {"failing_since": moment}),
                },
            },
            return_document=ReturnDocument.AFTER,
        )
        long = timedelta(hours=self._settings.pause_after_hours)
        because = "gone" if outcome.status == _GONE else None
        if after["failures"] >= self._settings.pause_after_failures and moment - after["failing_since"] >= long:
            because = "failing"
        if because is not None:
            paused: dict[str, Any] = {"$set": {"state": "paused", "paused_because": because}, "$inc": {"version": 1}}
            await self._webhooks.update_one({"_id": webhook["_id"], "state": "active"}, paused)
            log.warning("webhooks.paused", webhook=webhook["_id"], because=because, problem=outcome.problem)


def _ended(state: str, keep: timedelta) -> Payment:
    return Payment(Amendment(set={"state": state, "expires_at": now() + keep}))


def _spread(most: timedelta) -> timedelta:
    return most * random.random()
