"""Writes the record of changes (:mod:`core.changes.log`) from MongoDB's own change stream over the database.

So nobody who changes a document has to publish anything, and nothing that was changed can be left out. One process
leads by a lease. It takes what the stream says has changed, reads those documents as they are now, and compares each
with what the latest change of it left behind; what differs is recorded. Hence a document that the stream names twice
makes no second change, and killing the leader at any line neither loses nor doubles one:

* A change's number is its ``_id``: of two who both believe that they lead, one gets the number, the other is told.
* Each change holds the stream's position (``token``) to go on from after it, written in the same insert.

When the oplog no longer reaches back to the position, every document is compared instead (:meth:`Feed._resync`).
A kind that was not watched before begins with how its documents are then (:meth:`Feed._begin_with`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from core.changes.log import ChangeLog, Key
from core.clock import now
from core.database import Database
from core.metrics import CHANGES
from core.queue.debts import Document
from core.queue.leadership import Leadership

log = structlog.get_logger(__name__)

_BATCH = 200
_LINGER_SECONDS = 0.02
_NOTE_EVERY_SECONDS = 30.0
_SCAN = 1000
_REMEMBERED = 20_000
_ELECTION_TRIES = 100
_DUPLICATE = 11000
# mongo/base/error_codes.yml: the position is not one that the stream can go on from.
_POSITION_LOST = frozenset({136, 222, 260, 280, 286})


POSITION: Final = "reports"
"""The name of the feed's position and lease."""


@dataclass(frozen=True)
class Source:
    """What is watched, and what a change of it is.

    ``kind`` is what the record calls these documents. ``fields`` are the top-level fields in which readers can see a
    change; updates of others are not looked at. ``describe(id, document, latest)`` gives the changes that lead from
    what ``latest`` (a change or head, or None) left behind to ``document`` (None: it was removed), in order; each has
    what :data:`core.changes.log.HEAD` names, as far as there is such a thing.
    """

    kind: str
    collection: str
    fields: tuple[str, ...]
    projection: Document
    describe: Callable[[str, Document | None, Document | None], list[Document]]


class Deposed(Exception):
    """Another process leads."""


class PositionLost(Exception):
    """The stream cannot go on from where it was."""


@dataclass(frozen=True)
class _Event:
    """One word of the stream: which document (None: only the position has moved), its version, the position after."""

    key: Key | None
    version: int
    token: Document


class Feed:
    """The feed of a database. Any number may run; one leads.

    Its position and lease have stood under the name of the cases since there was nothing else: so two versions of the
    program never lead at once, and each goes on from the other's position, of which a collection's is one of its
    database, too.
    """

    def __init__(
        self,
        database: Database,
        sources: Sequence[Source],
        *,
        lease_seconds: float,
        announce: Callable[[int], Awaitable[None]],
    ) -> None:
        self._sources = {source.collection: source for source in sources}
        self._changes = database["changes"]
        self._feeds = database["feeds"]
        self._database = database.with_options(read_concern=ReadConcern("majority"))
        self._log = ChangeLog(database)
        self._lease = Leadership(self._feeds, POSITION, seconds=lease_seconds)
        self._announce = announce
        self._seq = 0
        self._latest: OrderedDict[Key, Document] = OrderedDict()

    async def run(self) -> None:
        """Lead whenever nobody else does, until cancelled."""
        while True:
            try:
                if await self._lease.take():
                    log.info("feed.leads", term=self._lease.term)
                    await self._lead()
            except (PyMongoError, Deposed) as error:
                log.warning("feed.stands_down", reason=str(error)[:200], error=type(error).__name__)
            except Exception:
                # A case that cannot be described must not end the process, which has other work; it is tried again.
                log.exception("feed.failed")
            await asyncio.sleep(self._lease.seconds / 4)

    async def _lead(self) -> None:
        tail = asyncio.create_task(self._tail())
        try:
            while not tail.done():
                await asyncio.wait([tail], timeout=self._lease.seconds / 3)
                if not tail.done() and not await self._lease.renew():
                    raise Deposed("the lease has gone to another")
            tail.result()
        finally:
            tail.cancel()
            await asyncio.gather(tail, return_exceptions=True)
            with contextlib.suppress(PyMongoError):  # then it runs out
                await self._lease.release()

    async def _tail(self) -> None:
        """Go on from what is recorded, for as long as this process leads."""
        while True:
            self._latest.clear()
            state = await self._feeds.find_one({"_id": POSITION}) or {}
            last = await self._changes.find_one({}, sort=[("_id", DESCENDING)])
            noted = state.get("seq", 0)
            self._seq = max(noted, last["_id"] if last else 0)
            # Between two notes the newest change knows the position best.
            token = last["token"] if last and last["_id"] > noted else state.get("token")
            try:
                if token is None or state.get("resync"):
                    await self._resync(state.get("resync") or "the feed is new")
                else:
                    await self._begin_with_new_kinds(state)
                    await self._follow(token)
            except PositionLost as error:
                log.error("feed.position_lost", reason=str(error))
                await self._note(resync=str(error))

    async def _note(self, **state: Any) -> None:
        """Write down where the feed stands, if this process still leads."""
        noted = await self._feeds.update_one(self._lease.mine, {"$set": state})
        if not noted.matched_count:
            raise Deposed("the lease has gone to another")

    async def _follow(self, token: Document) -> None:
        events: asyncio.Queue[_Event] = asyncio.Queue(_BATCH * 4)
        reading = asyncio.create_task(self._read(token, events))
        loop = asyncio.get_running_loop()
        note_at = loop.time()
        try:
            while True:
                batch = await self._next(events, reading)
                if any(e.key is not None for e in batch):
                    await self._record(batch, token)
                token = batch[-1].token
                if loop.time() >= note_at:
                    note_at = loop.time() + _NOTE_EVERY_SECONDS
                    await self._note(seq=self._seq, token=token)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    @staticmethod
    async def _next(events: asyncio.Queue[_Event], reading: asyncio.Task[None]) -> list[_Event]:
        """What the stream has said since, at least one word; raises what ended it."""
        if events.empty():
            first = asyncio.create_task(events.get())
            try:
                await asyncio.wait([first, reading], return_when=asyncio.FIRST_COMPLETED)
                if not first.done():
                    reading.result()
                    raise PositionLost("the stream has ended")
                batch = [first.result()]
            finally:
                first.cancel()
        else:
            batch = [events.get_nowait()]
        if batch[0].key is not None:
            await asyncio.sleep(_LINGER_SECONDS)  # what changes at about the same time costs less together
        while len(batch) < _BATCH and not events.empty():
            batch.append(events.get_nowait())
        return batch

    async def _read(self, token: Document, events: asyncio.Queue[_Event]) -> None:
        """Put what the stream says into ``events``; raises :class:`PositionLost`."""
        try:
            async with self._stream(resume_after=token, max_await_time_ms=1000) as stream:
                while stream.alive:
                    said = await stream.try_next()
                    if said is None:
                        await events.put(_Event(None, 0, stream.resume_token))
                        continue
                    if said["kind"] not in ("insert", "update", "replace", "delete"):
                        raise PositionLost(f"{said['collection']} was subject to {said['kind']}")
                    key = self._sources[said["collection"]].kind, said["number"]
                    await events.put(_Event(key, said.get("version") or 0, said["_id"]))
        except OperationFailure as error:
            if error.code in _POSITION_LOST:
                raise PositionLost(f"{error.code}: {error.details.get('codeName') if error.details else ''}") from error
            raise

    def _stream(self, **options: Any) -> Any:
        return self._database.watch(self._stages(), **options)

    def _stages(self) -> list[Document]:
        """Let the server pass over what readers do not see, and say no more than what has changed."""
        changed = {
            "$concatArrays": [
                {
                    "$map": {
                        "input": {"$objectToArray": {"$ifNull": ["$updateDescription.updatedFields", {}]}},
                        "in": "$$this.k",
                    }
                },
                {"$ifNull": ["$updateDescription.removedFields", []]},
            ]
        }
        tops = {"$map": {"input": changed, "in": {"$arrayElemAt": [{"$split": ["$$this", "."]}, 0]}}}
        seen = [
            {
                "ns.coll": source.collection,
                "$expr": {"$gt": [{"$size": {"$setIntersection": [tops, list(source.fields)]}}, 0]},
            }
            for source in self._sources.values()
        ]
        return [
            {"$match": {"ns.coll": {"$in": list(self._sources)}}},
            {"$match": {"$or": [{"operationType": {"$ne": "update"}}, *seen]}},
            {
                "$project": {
                    "kind": "$operationType",
                    "collection": "$ns.coll",
                    "number": "$documentKey._id",
                    "version": {"$ifNull": ["$updateDescription.updatedFields.version", "$fullDocument.version"]},
                }
            },
        ]

    async def _record(self, batch: Sequence[_Event], before: Document) -> None:
        """Record what differs in the documents that ``batch`` names. ``before``: the position before the batch."""
        documents = await self._read_documents(batch)
        await self._remember(list(documents))
        changes: list[Document] = []
        for event in batch:
            if event.key is not None:
                new = self._compare(event.key, documents[event.key])
                # All but the last let the stream say it again: whoever dies between them finds the rest to be missing.
                changes += [{**c, "token": before} for c in new[:-1]]
                changes += [{**c, "token": event.token} for c in new[-1:]]
            before = event.token
        await self._append(changes)

    async def _read_documents(self, batch: Sequence[_Event]) -> dict[Key, Document | None]:
        """The documents as they are now: at least as new as the stream has said."""
        wanted: dict[Key, int] = {}
        for event in batch:
            if event.key is not None:
                wanted[event.key] = max(wanted.get(event.key, 0), event.version)
        documents: dict[Key, Document | None] = dict.fromkeys(wanted)
        behind = list(wanted)
        for _ in range(_ELECTION_TRIES):
            for source in self._sources.values():
                if ids := [number for kind, number in behind if kind == source.kind]:
                    found = self._database[source.collection].find({"_id": {"$in": ids}}, source.projection)
                    documents |= {(source.kind, d["_id"]): d async for d in found}
            # After an election the new primary may not know at once what of it the majority has.
            behind = [k for k in behind if (documents[k] or {}).get("version", 0) < wanted[k]]
            if not behind:
                break
            await asyncio.sleep(_LINGER_SECONDS)
        return documents

    async def _remember(self, keys: Sequence[Key]) -> None:
        """Have at hand what the latest change of each of ``keys`` left behind."""
        if missing := [key for key in keys if key not in self._latest]:
            self._latest |= await self._log.latest_of(missing)
        for key in keys:
            if key in self._latest:
                self._latest.move_to_end(key)

    def _compare(self, key: Key, document: Document | None) -> list[Document]:
        kind, number = key
        source = next(s for s in self._sources.values() if s.kind == kind)
        new = source.describe(number, document, self._latest.get(key))
        if new:
            self._latest[key] = new[-1]
            self._latest.move_to_end(key)
        return new

    async def _append(self, changes: list[Document]) -> None:
        """Give ``changes`` the next numbers and record them. Raises :class:`Deposed` when another has used those."""
        if not changes:
            return
        moment = now()
        for number, change in enumerate(changes, self._seq + 1):
            change |= {"_id": number, "recorded_at": moment}
        try:
            await self._changes.insert_many(changes, ordered=True)
        except BulkWriteError as error:
            if any(e["code"] == _DUPLICATE for e in error.details["writeErrors"]):
                raise Deposed("another has recorded changes under the same numbers") from error
            raise
        self._seq += len(changes)
        CHANGES.inc(len(changes))
        while len(self._latest) > _REMEMBERED:
            self._latest.popitem(last=False)
        await self._announce(self._seq)

    async def _resync(self, reason: str) -> None:
        """Compare every document, because the stream cannot tell: the feed is new, or the oplog has rolled past it.

        Killed anywhere it begins anew, and what it has recorded is then found to be the same. A new feed records no
        change for what was there before it, but one that tells all who follow to fetch.
        """
        new = self._seq == 0
        write = log.info if new else log.warning  # before the first change of all there is nothing to go on from
        write("feed.resync", reason=reason)
        await self._note(resync=reason)
        # From here on the stream tells; what changes meanwhile is told a second time, and is then the same.
        async with self._stream(max_await_time_ms=1) as stream:
            await stream.try_next()
            token = stream.resume_token
        state = await self._feeds.find_one({"_id": POSITION}) or {}
        recorded = 0
        for source in self._sources.values():
            recorded += await self._compare_all(source, record=not new and source.kind in _kinds(state))
        if new:
            await self._append([{"kind": "feed", "action": "resync", "number": None, "token": token}])
        await self._note(seq=self._seq, token=token, kinds=[s.kind for s in self._sources.values()], resync=None)
        write("feed.resynced", recorded=recorded)

    async def _begin_with_new_kinds(self, state: Document) -> None:
        """Take how the documents of a kind are that was not watched before for what its first changes lead from."""
        known = _kinds(state)
        for source in self._sources.values():
            if source.kind not in known:
                log.info("feed.new_kind", kind=source.kind)
                await self._compare_all(source, record=False)
        if set(known) != {source.kind for source in self._sources.values()}:
            await self._note(kinds=[source.kind for source in self._sources.values()])

    async def _compare_all(self, source: Source, *, record: bool) -> int:
        """Compare every document of ``source`` and record what differs, or only keep it; how much was recorded."""
        compared = recorded = 0
        async for documents in self._all_documents(source):
            await self._remember([(source.kind, d["_id"]) for d in documents])
            changes = [c for d in documents for c in self._compare((source.kind, d["_id"]), d)]
            if record:
                await self._append([{**c, "token": None} for c in changes])
                recorded += len(changes)
            else:
                await self._log.put_heads(list({c["number"]: c for c in changes}.values()))
            while len(self._latest) > _REMEMBERED:
                self._latest.popitem(last=False)
            compared += len(documents)
            if compared % (_SCAN * 20) == 0:
                log.info("feed.resync_goes_on", kind=source.kind, compared=compared, recorded=recorded)
        return recorded

    async def _all_documents(self, source: Source) -> AsyncIterator[list[Document]]:
        after: str | None = None
        while True:
            bound = {} if after is None else {"_id": {"$gt": after}}
            found = self._database[source.collection].find(bound, source.projection).sort("_id", ASCENDING)
            documents = await found.limit(_SCAN).to_list(_SCAN)
            if not documents:
                return
            yield documents
            after = documents[-1]["_id"]


def _kinds(state: Document) -> list[str]:
    """What was watched when ``state`` was written; a version that does not say watched cases."""
    return list(state.get("kinds", ["report"]))
