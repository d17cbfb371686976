"""Work that a document still owes, kept in the document itself (the ``owed`` array).

A change and the work that follows from it are one update, so a crash between them is impossible. A worker takes a debt
by a lease; the update that pays it removes it, applies its result and may owe further work, all at once and only while
the lease is still the worker's. Killed anywhere, the debt falls due again; done twice, the second update finds nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.errors import PyMongoError

from core.clock import now
from core.database import Collection
from core.ids import new_id
from core.metrics import DEBTS_PAID

log = structlog.get_logger(__name__)

WAKE_CHANNEL = "wake"
OWED_INDEX = IndexModel([("owed.due_at", ASCENDING)], name="owed_due", sparse=True)

Document = dict[str, Any]


def owe(kind: str, *, delay: timedelta = timedelta(0), at: datetime | None = None, **data: Any) -> Document:
    """A new debt of ``kind``, due ``delay`` after ``at`` (now): to be put into ``owed`` with the change it follows."""
    return {"id": new_id(), "kind": kind, "due_at": (at or now()) + delay, "attempts": 0, **data}


@dataclass
class Amendment:
    """One change to one document, as the single aggregation update that MongoDB applies atomically.

    A classic update cannot take from and add to the same array at once; a pipeline can, so a debt is paid and new ones
    are owed in the same step. All values are literals: text from people is never read as an expression.
    """

    set: Document = field(default_factory=dict)
    unset: list[str] = field(default_factory=list)
    push: dict[str, list[Any]] = field(default_factory=dict)
    increment: dict[str, int] = field(default_factory=dict)
    owe: list[Document] = field(default_factory=list)
    settle: list[str] = field(default_factory=list)
    """Ids of debts that are paid by this change, or kinds of which none is owed any more after it."""

    def pipeline(self) -> list[Document]:
        """The stages to give to ``find_one_and_update``."""
        stage: Document = {path: {"$literal": value} for path, value in self.set.items()}
        for path, items in self.push.items():
            stage[path] = {"$concatArrays": [{"$ifNull": [f"${path}", []]}, {"$literal": items}]}
        for path, amount in self.increment.items():
            stage[path] = {"$add": [{"$ifNull": [f"${path}", 0]}, amount]}
        if self.owe or self.settle:
            kept: Any = {"$ifNull": ["$owed", []]}
            if self.settle:
                paid = {"$or": [{"$in": [f"$$debt.{key}", self.settle]} for key in ("id", "kind")]}
                kept = {"$filter": {"input": kept, "as": "debt", "cond": {"$not": paid}}}
            stage["owed"] = {"$concatArrays": [kept, {"$literal": self.owe}]}
        stages: list[Document] = [{"$set": stage}] if stage else []
        if self.unset:
            stages.append({"$unset": self.unset})
        return stages

    def also(self, other: Amendment) -> Amendment:
        """This change and then ``other``, as one."""
        merged = Amendment({**self.set, **other.set}, [*self.unset, *other.unset])
        for part in (self, other):
            for path, items in part.push.items():
                merged.push[path] = [*merged.push.get(path, []), *items]
            for path, amount in part.increment.items():
                merged.increment[path] = merged.increment.get(path, 0) + amount
            merged.owe += part.owe
            merged.settle += part.settle
        return merged


@dataclass(frozen=True)
class Payment:
    """What paying a debt comes to: a change, and a further condition on the document that must still hold for it.

    When the condition no longer holds the debt stays and is tried again with the document as it then is.
    """

    amendment: Amendment = field(default_factory=Amendment)
    condition: Document = field(default_factory=dict)


class Postponed(Exception):
    """Raised by a payer when the debt cannot be paid yet; ``delay`` overrides the growing pause."""

    def __init__(self, reason: str, delay: timedelta | None = None) -> None:
        super().__init__(reason)
        self.delay = delay


Payer = Callable[[Document, Document], Awaitable[Payment]]
"""``async (document, debt) -> Payment``: may run twice for one debt, so its effects outside must bear that."""


def pause_before(attempt: int) -> timedelta:
    """The pause after failed attempt ``attempt`` (1, 2, ...): 2 s doubling up to an hour, with jitter."""
    seconds = min(2.0**attempt, 3600.0)
    return timedelta(seconds=seconds * random.uniform(0.9, 1.1))


class Collector:
    """Pays the debts of one collection, a bounded number at a time. Any number of them may run at once."""

    def __init__(
        self,
        collection: Collection,
        payers: dict[str, Payer],
        *,
        lease: timedelta,
        concurrency: int = 8,
        on_change: Callable[[Document], Awaitable[None]] | None = None,
    ) -> None:
        self._collection = collection
        self._payers = payers
        self._lease = lease
        self._slots = asyncio.Semaphore(concurrency)
        self._batch = concurrency * 8
        self._on_change = on_change

    async def settle_due(self) -> int:
        """Pay what is due now; returns how many documents were worked on (0: nothing is due)."""
        # The index gives the longest due first. Asking for that order as well would make each call read everything that
        # is due: MongoDB does not take the order of a range in an array from its index.
        cursor = self._collection.find({"owed.due_at": {"$lte": now()}}, {"_id": 1})
        due = [d["_id"] async for d in cursor.limit(self._batch)]
        # Several workers read the same list; in the same order they would queue up behind each other's leases.
        random.shuffle(due)
        async with asyncio.TaskGroup() as group:
            for document_id in due:
                group.create_task(self._settle(document_id))
        return len(due)

    async def _settle(self, document_id: Any) -> None:
        async with self._slots:
            try:
                claim = new_id()
                document = await self._claim(document_id, claim)
                renew_at = now() + self._lease / 2
                while document is not None and (debt := _claimed(document, claim)) is not None:
                    if now() >= renew_at:
                        # A document may owe hundreds of messages: the lease has to outlast one payment, not all.
                        renew_at = now() + self._lease / 2
                        document = await self._renew(document_id, claim)
                        continue
                    document = await self._pay(document, debt) or await self._collection.find_one({"_id": document_id})
            except PyMongoError as error:
                # The lease runs out and the debt falls due again; the next sweep meets it.
                log.warning("debts.database", collection=self._collection.name, error=type(error).__name__)

    async def _claim(self, document_id: Any, claim: str) -> Document | None:
        moment = now()
        found: Document | None = await self._collection.find_one_and_update(
            {"_id": document_id, "owed.due_at": {"$lte": moment}},
            {
                "$set": {"owed.$[due].due_at": moment + self._lease, "owed.$[due].claim": claim},
                "$inc": {"owed.$[due].attempts": 1},
            },
            array_filters=[{"due.due_at": {"$lte": moment}}],
            return_document=ReturnDocument.AFTER,
        )
        return found

    async def _renew(self, document_id: Any, claim: str) -> Document | None:
        """Hold what is still claimed for a whole lease more; None when it was lost."""
        found: Document | None = await self._collection.find_one_and_update(
            {"_id": document_id, "owed.claim": claim},
            {"$set": {"owed.$[mine].due_at": now() + self._lease}},
            array_filters=[{"mine.claim": claim}],
            return_document=ReturnDocument.AFTER,
        )
        return found

    async def _pay(self, document: Document, debt: Document) -> Document | None:
        """Pay one debt; the document after it, or None when it was not paid."""
        kind = debt["kind"]
        mine = {"_id": document["_id"], "owed": {"$elemMatch": {"id": debt["id"], "claim": debt["claim"]}}}
        try:
            payment = await self._payers[kind](document, debt)
        except Postponed as reason:
            await self._put_off(mine, debt, str(reason), reason.delay)
            return None
        except PyMongoError:
            raise
        except Exception as error:
            log.exception("debts.failed", kind=kind, collection=self._collection.name, attempts=debt["attempts"])
            await self._put_off(mine, debt, type(error).__name__, None)
            return None
        amendment = payment.amendment.also(Amendment(settle=[debt["id"]]))
        after: Document | None = await self._collection.find_one_and_update(
            {**payment.condition, **mine}, amendment.pipeline(), return_document=ReturnDocument.AFTER
        )
        if after is None:
            # The document moved on under the payer: at once again, on what it has become.
            await self._put_off(mine, debt, "changed meanwhile", timedelta(0))
            return None
        DEBTS_PAID.labels(self._collection.name, kind, "paid").inc()
        if self._on_change is not None:
            await self._on_change(after)
        return after

    async def _put_off(self, mine: Document, debt: Document, reason: str, delay: timedelta | None) -> None:
        DEBTS_PAID.labels(self._collection.name, debt["kind"], "put_off").inc()
        wait = pause_before(debt["attempts"]) if delay is None else delay
        await self._collection.update_one(
            mine,
            {"$set": {"owed.$.due_at": now() + wait, "owed.$.last_problem": reason}, "$unset": {"owed.$.claim": ""}},
        )


def _claimed(document: Document, claim: str) -> Document | None:
    """The next debt that is still held by ``claim``."""
    return next((d for d in document["owed"] if d.get("claim") == claim), None)


async def count_debts(collections: Sequence[Collection]) -> list[tuple[str, str, int, float]]:
    """(collection, kind, how many, age of the oldest due one in seconds) of what is owed now."""
    rows = []
    moment = now()
    for collection in collections:
        pipeline: list[Document] = [
            {"$match": {"owed.due_at": {"$gt": datetime.min.replace(tzinfo=moment.tzinfo)}}},
            {"$project": {"owed": 1}},
            {"$unwind": "$owed"},
            {"$group": {"_id": "$owed.kind", "n": {"$sum": 1}, "oldest": {"$min": "$owed.due_at"}}},
        ]
        async for row in collection.aggregate(pipeline, hint="owed_due"):
            rows.append((collection.name, row["_id"], row["n"], max(0.0, (moment - row["oldest"]).total_seconds())))
    return rows
