"""Work that a document still owes, kept in the document itself (the ``owed`` array).

A change and the work that follows from it are one update, so a crash between them is impossible. A worker takes a debt
by a lease; the update that pays it removes it, applies its result and may owe further work, all at once and only while
the lease is still the worker's. Killed anywhere, the debt falls due again; done twice, the second update finds nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from bson.errors import BSONError
from pymongo import ASCENDING, IndexModel, ReturnDocument, WriteConcern
from pymongo.errors import PyMongoError

from core.clock import now
from core.database import Collection
from core.ids import new_id
from core.metrics import DEBTS_PAID
from core.queue.agenda import Agenda, Found, Look

log = structlog.get_logger(__name__)

WAKE_CHANNEL = "wake"
OWED_INDEX = IndexModel([("owed.due_at", ASCENDING)], name="owed_due", sparse=True)
KINDS_INDEX = IndexModel([("owed.kind", ASCENDING), ("owed.due_at", ASCENDING)], name="owed_kinds", sparse=True)
"""Besides, where several collectors share a collection: what one is behind with is not in the way of the others."""

_UNSTORABLE = (OverflowError, UnicodeError, BSONError)
"""What MongoDB cannot hold, such as a number beyond 64 bits that somebody outside has answered."""

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

    When the condition no longer holds the debt stays and is tried again with the document as it then is. Several debts
    of a document are paid in one update; ``prompt`` asks for it at once, because what was done outside is not to be
    done twice.
    """

    amendment: Amendment = field(default_factory=Amendment)
    condition: Document = field(default_factory=dict)
    prompt: bool = False


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


@dataclass(frozen=True)
class _Held:
    """A document of which debts are this worker's until ``renew_at`` at least."""

    document: Document
    claim: str
    renew_at: datetime


@dataclass(frozen=True)
class Parties:
    """Whom the debts of a collection are paid to, where that is many: none of them has more than two places.

    ``field`` of a document that owes is the ``_id`` of its party in ``collection``; (``field``, ``owed.due_at``) wants
    an index, so that what one party is behind with is not in the way of the others. ``payable`` is the condition on
    parties that anything is paid to now; what others are owed waits, and nobody looks at it.
    """

    collection: Collection
    field: str
    payable: Callable[[], Document] = dict


PLACES_EACH = 2
"""How many debts are paid to one party at once: whoever is slow holds up nobody else."""


class DebtCollector:
    """Pays debts of one collection, a bounded number at a time. Any number of them may run at once.

    Those of the kinds that it has ``payers`` for: others are left to who can pay them, and ``others`` is called when a
    payment has left such a debt that is due.

    ``claimed_together``: so many documents are claimed in one update where as many are due. It saves most of what a
    debt that is paid in milliseconds costs; of those that take longer, another worker would have had some meanwhile.
    """

    def __init__(
        self,
        collection: Collection,
        payers: dict[str, Payer],
        *,
        lease: timedelta,
        concurrency: int = 8,
        claimed_together: int = 1,
        parties: Parties | None = None,
        others: Callable[[], None] | None = None,
    ) -> None:
        self._collection = collection
        # A claim need not last: one that is lost with its server is nobody's, and the update that pays asks for it.
        self._claims = collection.with_options(write_concern=WriteConcern(1))
        self._payers = payers
        self._kinds = sorted(payers)
        self._lease = lease
        self._concurrency = concurrency
        self._together = claimed_together
        self._parties = parties
        self._others = others

    async def settle_due(self) -> int:
        """Pay what is due now; returns how many documents were worked on (0: nothing is due)."""
        agenda = self._agenda(self._look)
        found = await agenda.look()
        await self._work(agenda, min(self._concurrency, found))
        return found

    async def run(self, woken: asyncio.Event, seconds: float) -> None:
        """Pay what falls due until cancelled: found when ``woken``, after what was paid, and every ``seconds``."""

        async def look(begun: Iterable[Any], full: Iterable[Any]) -> list[Found]:
            try:
                return await self._look(begun, full)
            except PyMongoError as error:
                self._warn(error)
                return []

        await self._work(self._agenda(look, woken=woken, seconds=seconds), self._concurrency)

    def _agenda(self, look: Look, **when: Any) -> Agenda:
        return Agenda(look, each=PLACES_EACH if self._parties is not None else None, **when)

    def _warn(self, error: PyMongoError) -> None:
        # The lease runs out and the debt falls due again; a later look meets it.
        log.warning("debts.database", collection=self._collection.name, error=type(error).__name__)

    async def _look(self, begun: Iterable[Any], full: Iterable[Any]) -> list[Found]:
        due = {"_id": {"$nin": list(begun)}, **self._due(now())}
        if self._parties is None:
            # The index gives the longest due first. Asking for that order as well would make each call read everything
            # that is due: MongoDB does not take the order of a range in an array from its index.
            cursor = self._collection.find(due, {"_id": 1})
            found = [Found(d["_id"]) async for d in cursor.limit(8 * self._concurrency)]
        else:
            some: list[Document] = [{"$match": due}, {"$limit": PLACES_EACH}, {"$project": {"_id": 1}}]
            joined = {"from": self._collection.name, "localField": "_id", "foreignField": self._parties.field}
            stages: list[Document] = [
                {"$match": {"_id": {"$nin": list(full)}, **self._parties.payable()}},
                {"$lookup": {**joined, "pipeline": some, "as": "due"}},
                {"$unwind": "$due"},
                {"$project": {"due": "$due._id"}},
            ]
            found = [Found(row["due"], row["_id"]) async for row in self._parties.collection.aggregate(stages)]
        # Several workers read the same list; in the same order they would queue up behind each other's leases.
        random.shuffle(found)
        return found

    async def _work(self, agenda: Agenda, places: int) -> None:
        claimed = list[_Held]()
        # What is claimed and not begun keeps others from it: no more of that than are begun at a time.
        claiming = asyncio.Semaphore(max(self._concurrency // self._together, 1))

        async def next_held() -> _Held | None:
            while True:
                async with claiming:
                    if not claimed:
                        document_ids = await agenda.take(self._together)
                        if not document_ids:
                            return None
                        claimed.extend(await self._claim_of(agenda, document_ids))
                    if claimed:
                        return claimed.pop()

        async def settle_one_after_another() -> None:
            while held := await next_held():
                try:
                    await self._settle(held)
                except PyMongoError as error:
                    self._warn(error)
                finally:
                    agenda.release(held.document["_id"])

        async with asyncio.TaskGroup() as group:
            for _ in range(places):
                group.create_task(settle_one_after_another())

    async def _claim_of(self, agenda: Agenda, document_ids: list[Any]) -> list[_Held]:
        held: list[_Held] = []
        try:
            held = await self._claim(document_ids)
        except PyMongoError as error:
            self._warn(error)
        mine = {h.document["_id"] for h in held}
        for document_id in document_ids:
            if document_id not in mine:
                agenda.release(document_id)
        return held

    async def _settle(self, held: _Held) -> None:
        claim, renew_at = held.claim, held.renew_at
        document: Document | None = held.document
        while document is not None and (debts := _claimed(document, claim)):
            if now() >= renew_at:
                # A document may owe hundreds of messages: the lease has to outlast a few payments, not all.
                renew_at = now() + self._lease / 2
                document = await self._renew(document["_id"], claim)
                continue
            after = await self._pay(document, debts, renew_at)
            document = after or await self._collection.find_one({"_id": document["_id"]})

    async def _claim(self, document_ids: Sequence[Any]) -> list[_Held]:
        """Claim what is due of ``document_ids``: those of which another worker has not."""
        moment, claim = now(), new_id()
        due = self._due(moment)
        change = {
            "$set": {"owed.$[due].due_at": moment + self._lease, "owed.$[due].claim": claim},
            "$inc": {"owed.$[due].attempts": 1},
        }
        filters = [{"due.due_at": {"$lte": moment}, "due.kind": {"$in": self._kinds}}]
        renew_at = moment + self._lease / 2
        if len(document_ids) == 1:
            document = await self._claims.find_one_and_update(
                {"_id": document_ids[0], **due}, change, array_filters=filters, return_document=ReturnDocument.AFTER
            )
            return [] if document is None else [_Held(document, claim, renew_at)]
        these = {"_id": {"$in": document_ids}}
        await self._claims.update_many({**these, **due}, change, array_filters=filters)
        return [_Held(d, claim, renew_at) async for d in self._collection.find({**these, "owed.claim": claim})]

    def _due(self, moment: datetime) -> Document:
        return {"owed": {"$elemMatch": {"due_at": {"$lte": moment}, "kind": {"$in": self._kinds}}}}

    async def _renew(self, document_id: Any, claim: str) -> Document | None:
        """Hold what is still claimed for a whole lease more; None when it was lost."""
        found: Document | None = await self._claims.find_one_and_update(
            {"_id": document_id, "owed.claim": claim},
            {"$set": {"owed.$[mine].due_at": now() + self._lease}},
            array_filters=[{"mine.claim": claim}],
            return_document=ReturnDocument.AFTER,
        )
        return found

    async def _pay(self, document: Document, debts: list[Document], until: datetime) -> Document | None:
        """Pay some of ``debts``, the first ones, in one update; the document after it, None when nothing was paid.

        After ``until`` no further one is begun: the update has to be made while the lease holds.

        A payment with a condition depends on what the document is, which another one may change: only one such goes
        into an update, and the next is worked out anew on the document as it then is.
        """
        paid: list[tuple[Document, Payment]] = []
        for debt in debts:
            payment = await self._payment(document, debt)
            if payment is None:
                continue
            if payment.condition and any(earlier.condition for _, earlier in paid):
                break
            paid.append((debt, payment))
            if payment.prompt or now() >= until:
                break
        after = await self._apply(document, paid) if paid else None
        if paid and after is None:
            # One of them does not hold any more, or its lease is lost: that must not undo what the others have done.
            for debt, payment in paid:
                alone = await self._apply(document, [(debt, payment)]) if len(paid) > 1 else None
                if alone is None:  # at once again, on what the document has become
                    await self._put_off(_held(document, debt), debt, "changed meanwhile", timedelta(0))
                after = alone or after
        return after

    async def _payment(self, document: Document, debt: Document) -> Payment | None:
        """What paying ``debt`` comes to; None when it cannot be paid now, and has been put off."""
        mine = _held(document, debt)
        try:
            return await self._payers[debt["kind"]](document, debt)
        except Postponed as reason:
            await self._put_off(mine, debt, str(reason), reason.delay)
        except PyMongoError:
            raise
        except Exception as error:
            log.exception(
                "debts.failed", kind=debt["kind"], collection=self._collection.name, attempts=debt["attempts"]
            )
            await self._put_off(mine, debt, type(error).__name__, None)
        return None

    async def _apply(self, document: Document, payments: list[tuple[Document, Payment]]) -> Document | None:
        """Make the changes of ``payments`` in one update, while all their leases and conditions hold; else None."""
        amendment = Amendment()
        conditions: list[Document] = []
        for debt, payment in payments:
            amendment = amendment.also(payment.amendment).also(Amendment(settle=[debt["id"]]))
            conditions.append({"owed": {"$elemMatch": {"id": debt["id"], "claim": debt["claim"]}}, **payment.condition})
        # What falls due at once is claimed with the change that it follows from: it is paid next, by the same worker.
        moment = now()
        for new in amendment.owe:
            if new["due_at"] <= moment and new["kind"] in self._payers:
                new.update(due_at=moment + self._lease, claim=payments[0][0]["claim"], attempts=1)
        after: Document | None = None
        try:
            after = await self._collection.find_one_and_update(
                {"_id": document["_id"], "$and": conditions}, amendment.pipeline(), return_document=ReturnDocument.AFTER
            )
        except _UNSTORABLE as error:
            if len(payments) == 1:  # else each is tried alone, and this one found
                debt = payments[0][0]
                log.exception("debts.unstorable", kind=debt["kind"], collection=self._collection.name)
                await self._put_off(_held(document, debt), debt, type(error).__name__, None)
        if after is not None:
            for debt, _ in payments:
                DEBTS_PAID.labels(self._collection.name, debt["kind"], "paid").inc()
            if self._others and any(d["due_at"] <= moment and d["kind"] not in self._payers for d in amendment.owe):
                self._others()
        return after

    async def _put_off(self, mine: Document, debt: Document, reason: str, delay: timedelta | None) -> None:
        DEBTS_PAID.labels(self._collection.name, debt["kind"], "put_off").inc()
        wait = pause_before(debt["attempts"]) if delay is None else delay
        await self._collection.update_one(
            mine,
            {"$set": {"owed.$.due_at": now() + wait, "owed.$.last_problem": reason}, "$unset": {"owed.$.claim": ""}},
        )


def _claimed(document: Document, claim: str) -> list[Document]:
    """The debts that are still held by ``claim``."""
    return [d for d in document["owed"] if d.get("claim") == claim]


def _held(document: Document, debt: Document) -> Document:
    """The query for the document while ``debt`` is still the worker's."""
    return {"_id": document["_id"], "owed": {"$elemMatch": {"id": debt["id"], "claim": debt["claim"]}}}


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
