"""Keeps the topics (热点): gives every report its topic, once, in the order in which reports come.

One process leads, by a lease. It goes along the record of changes (:mod:`core.changes.log`), in which each submission
stands once, and has the living topics in memory. What a batch of submissions comes to (the place in the record, the
reports' membership, the topics) is one transaction, made only while the lease holds. Killed anywhere, the next leader
reads what is stored and goes on behind it; a report that is a member already is passed over.

Nothing is counted: a topic's figures are sums over its members (:mod:`reports.topics.ranking`), so they cannot drift.

Everything is worked out from the reports and their order, which the members keep (``n``). :meth:`TopicKeeper.rebuild`
does it anew in a generation of its own, in the same order, and comes to the same; then puts that in place.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne, UpdateOne, WriteConcern
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from core.changes.log import ChangeLog
from core.clock import now
from core.database import Database
from core.errors import Conflict
from core.ids import new_id
from core.queue.debts import Document
from core.queue.leadership import Leadership
from reports.states import State
from reports.topics.model import QUIET_DAYS, Item, Topic, TopicModel, Vocabulary

log = structlog.get_logger(__name__)

STATE: Final = "topics_state"
STATE_ID: Final = "reports"
_VOCABULARY: Final = "vocabulary"
_BUILDING: Final = "rebuilding"
_BATCH: Final = 200
_READ: Final = 500
_FIRST_STAGE: Final = 64
_LAST_STAGE: Final = 16_384
_OUT_OF_ORDER: Final = timedelta(days=3)  # topics stay in memory so much longer, for reports that come late
_CATCH_UP_DAYS: Final = 2 * QUIET_DAYS
_UNCOUNTED: Final = (State.VOID, State.WITHDRAWN)
_ITEM = dict.fromkeys(("created_at", "description", "category", "location", "areas", "channel", "state"), 1)
_TOPIC_INDEXES = [IndexModel([("last_at", DESCENDING)], name="alive")]
_MEMBER_INDEXES = [
    # All that a ranking asks for is in it: no member is read.
    IndexModel([(name, ASCENDING) for name in ("at", "area", "category", "topic", "counted")], name="ranking"),
    IndexModel([("topic", ASCENDING), ("at", DESCENDING), ("_id", DESCENDING)], name="topic"),
    IndexModel([("n", ASCENDING)], name="order", unique=True),
]

Progress = Callable[[int, int], None]
"""``(done, total)``: how many reports have been given a topic, of about how many."""


class Deposed(Exception):
    """Another process leads, or another generation is in place."""


def collections(database: Database, generation: str) -> tuple[Any, Any]:
    """The topics and the members of ``generation``."""
    return database[f"topics_{generation}"], database[f"topic_members_{generation}"]


def stage_of(n: int) -> int:
    """How many reports the vocabulary is made of, for the report after ``n`` others: 64, doubling; then 16,384 more."""
    if n < _FIRST_STAGE:
        return 0
    if n >= _LAST_STAGE:
        return n - n % _LAST_STAGE
    return 1 << (n.bit_length() - 1)


@dataclass
class _Standing:
    """Where a generation stands: the topics in memory, how many members there are, and of what the vocabulary is."""

    generation: str
    model: TopicModel
    n: int
    stage: int


class TopicKeeper:
    """Gives reports their topics. Any number may run; one leads."""

    def __init__(self, database: Database, *, lease_seconds: float = 10.0) -> None:
        self._database = database
        self._reports = database["reports"]
        self._states = database[STATE]
        self._changes = ChangeLog(database)
        self._lease = Leadership(self._states, STATE_ID, seconds=lease_seconds)

    async def run(self, pause: float) -> None:
        """Lead whenever nobody else does, until cancelled; looks for new reports every ``pause`` seconds."""
        while True:
            try:
                if await self._lease.take():
                    await self._lead(pause)
            except (PyMongoError, Deposed) as error:
                log.warning("topics.stands_down", reason=str(error)[:200], error=type(error).__name__)
            except Exception:
                # One report that cannot be read must not end the process, which has other work; it is tried again.
                log.exception("topics.failed")
            await asyncio.sleep(self._lease.seconds / 4)

    async def _lead(self, pause: float) -> None:
        keeping = asyncio.create_task(self._keep(pause))
        try:
            while not keeping.done():
                await asyncio.wait([keeping], timeout=self._lease.seconds / 3)
                if not keeping.done() and not await self._lease.renew():
                    raise Deposed("the lease has gone to another")
            keeping.result()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            with contextlib.suppress(PyMongoError):  # then it runs out
                await self._lease.release()

    async def _keep(self, pause: float) -> None:
        state = await self._states.find_one({"_id": STATE_ID}) or {}
        generation = state.get("generation")
        if generation is None:
            generation = await self._begin()
            await self._fenced({"generation": generation}, generation=None)
        standing = await self._stand(generation)
        seq = state.get("seq")
        if seq is None or not await self._changes.reaches_back_to(seq):
            seq = await self._catch_up(standing)
        while True:
            changes = await self._changes.after(seq, limit=_BATCH)
            if changes:
                if any(c["kind"] != "report" for c in changes):  # the record tells those who follow to fetch
                    await self._catch_up(standing)
                submitted = [c["number"] for c in changes if c["action"] == "submit"]
                gone = [c["number"] for c in changes if c.get("to") in _UNCOUNTED]
                moved = [c["number"] for c in changes if c["action"] == "locate"]
                seq = changes[-1]["_id"]
                await self._take_in(standing, submitted, gone=gone, moved=moved, fence={"seq": seq})
            if len(changes) < _BATCH:
                await asyncio.sleep(pause)
                await self._fenced({}, generation=generation)  # another may have been put in place

    async def _catch_up(self, standing: _Standing) -> int:
        """Take in the reports of late that are no members yet; the number in the record to go on from."""
        seq = await self._changes.newest()
        _, members = collections(self._database, standing.generation)
        last = await members.find_one({}, {"at": 1}, sort=[("at", DESCENDING)])
        since = now() - timedelta(days=_CATCH_UP_DAYS)
        if last is not None:
            since = max(since, last["at"] - timedelta(days=1))
        log.info("topics.catching_up", since=since.isoformat())
        recent = self._reports.find({"created_at": {"$gte": since}}, {"_id": 1})
        async for numbers in _in_batches(recent.sort([("created_at", ASCENDING), ("_id", ASCENDING)])):
            await self._take_in(standing, numbers)
        voided = {"created_at": {"$gte": since}, "state": {"$in": list(_UNCOUNTED)}}
        async for numbers in _in_batches(self._reports.find(voided, {"_id": 1})):
            await self._take_in(standing, [], gone=numbers)
        moved = {"created_at": {"$gte": since}, "timeline.action": "locate"}
        async for numbers in _in_batches(self._reports.find(moved, {"_id": 1})):
            await self._take_in(standing, [], moved=numbers)
        await self._fenced({"seq": seq}, generation=standing.generation)
        return seq

    async def _take_in(
        self,
        standing: _Standing,
        numbers: Sequence[str],
        *,
        gone: Sequence[str] = (),
        moved: Sequence[str] = (),
        fence: Document | None = None,
    ) -> int:
        """Give the reports ``numbers`` that have none their topics; how many. ``gone`` are counted no more, ``moved``
        where they lie now.

        With ``fence`` that is written in the state too, and everything only while this process leads.
        """
        _, members = collections(self._database, standing.generation)
        wanted = list(dict.fromkeys(numbers))
        known = {m["_id"] async for m in members.find({"_id": {"$in": wanted}}, {"_id": 1})}
        wanted = [n for n in wanted if n not in known]
        taken = 0
        while wanted or gone or moved or fence:
            # The vocabulary changes at certain numbers of members: what comes after is another batch.
            room = _next_stage(standing.n) - standing.n
            part, wanted = wanted[: min(room, _BATCH)], wanted[min(room, _BATCH) :]
            last = not wanted
            added, topics = await self._assign(standing, part)
            await self._write(
                standing,
                added,
                topics,
                gone=list(gone) if last else [],
                places=await self._places_of(moved) if last else {},
                fence=(fence or {}) if last else {},
            )
            taken += len(added)
            standing.n += len(added)
            if stage_of(standing.n) != standing.stage:
                await self._next_vocabulary(standing)
            if last:
                break
        return taken

    async def _assign(self, standing: _Standing, numbers: Sequence[str]) -> tuple[list[Document], dict[str, Topic]]:
        found = {r["_id"]: r async for r in self._reports.find({"_id": {"$in": list(numbers)}}, _ITEM)}
        added: list[Document] = []
        changed: dict[str, Topic] = {}
        for number in numbers:
            report = found.get(number)
            if report is None or report["channel"] == "split":  # a part of a case is not one more who reports it
                continue
            longitude, latitude = report["location"]["coordinates"]
            item = Item(number, report["created_at"], report["description"], report["category"], longitude, latitude)
            if len(added) % 20 == 0:
                await asyncio.sleep(0)
            if not added:
                standing.model.let_go(item.at - timedelta(days=QUIET_DAYS) - _OUT_OF_ORDER)
            topic, fit = standing.model.assign(item)
            changed[topic.id] = topic
            added.append(
                {
                    "_id": number,
                    "n": standing.n + len(added),
                    "topic": topic.id,
                    "at": item.at,
                    **_place(report),
                    "category": item.category,
                    "fit": round(fit, 4),
                    "counted": report["state"] not in _UNCOUNTED,
                }
            )
        return added, changed

    async def _places_of(self, numbers: Sequence[str]) -> dict[str, Document]:
        if not numbers:
            return {}
        found = self._reports.find({"_id": {"$in": list(numbers)}}, {"areas": 1, "location": 1})
        return {report["_id"]: _place(report) async for report in found}

    async def _write(
        self,
        standing: _Standing,
        added: list[Document],
        topics: dict[str, Topic],
        *,
        gone: list[str],
        places: dict[str, Document],
        fence: Document,
    ) -> None:
        kept, members = collections(self._database, standing.generation)
        writes = [ReplaceOne({"_id": t.id}, t.stored(), upsert=True) for t in topics.values()]

        async def write(session: Any) -> None:
            if standing.generation != self._building_generation:
                held = {**self._lease.mine, "generation": standing.generation}
                step = {"$set": {**fence, "kept_at": now()}}
                if not (await self._states.update_one(held, step, session=session)).matched_count:
                    raise Deposed("another leads, or another generation is in place")
            if added:
                await members.insert_many(added, session=session)
                await kept.bulk_write(writes, ordered=False, session=session)
            if gone:
                await members.update_many({"_id": {"$in": gone}}, {"$set": {"counted": False}}, session=session)
            if places:
                moves = [UpdateOne({"_id": number}, {"$set": place}) for number, place in places.items()]
                await members.bulk_write(moves, ordered=False, session=session)

        async with await self._database.client.start_session() as session:
            await session.with_transaction(
                write, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority", j=True)
            )

    _building_generation: str | None = None

    async def _fenced(self, step: Document, *, generation: str | None) -> None:
        """Write ``step`` in the state while this process leads and ``generation`` is in place."""
        held = {**self._lease.mine, "generation": generation}
        if not (await self._states.update_one(held, {"$set": {**step, "kept_at": now()}})).matched_count:
            raise Deposed("another leads, or another generation is in place")

    async def _begin(self) -> str:
        """A new generation, empty."""
        generation = new_id()
        topics, members = collections(self._database, generation)
        await topics.create_indexes(_TOPIC_INDEXES)
        await members.create_indexes(_MEMBER_INDEXES)
        return generation

    async def _stand(self, generation: str) -> _Standing:
        """Where ``generation`` stands, from what is stored."""
        topics, members = collections(self._database, generation)
        last = await members.find_one({}, {"n": 1, "at": 1}, sort=[("n", DESCENDING)])
        n = last["n"] + 1 if last else 0
        standing = _Standing(generation, TopicModel(Vocabulary()), n, 0)
        if last:
            alive = topics.find({"last_at": {"$gte": last["at"] - timedelta(days=2 * QUIET_DAYS)}})
            standing.model = TopicModel(Vocabulary(), [Topic.of(t) async for t in alive.sort("_id", ASCENDING)])
        if (stage := stage_of(n)) > 0:
            stored = await self._states.find_one({"_id": f"{_VOCABULARY}_{generation}"}) or {}
            if stored.get("stage") == stage:
                standing.model.vocabulary = Vocabulary(stored["documents"], zlib.decompress(stored["counts"]))
                standing.stage = stage
            else:
                await self._next_vocabulary(standing)
        return standing

    async def _next_vocabulary(self, standing: _Standing) -> None:
        """Make the vocabulary of the reports of the latest stage: the same whoever makes it, and whenever."""
        stage = stage_of(standing.n)
        _, members = collections(self._database, standing.generation)
        these = {"n": {"$gte": max(stage - _LAST_STAGE, 0), "$lt": stage}}
        vocabulary = Vocabulary()
        async for numbers in _in_batches(members.find(these, {"_id": 1}).sort("n", ASCENDING)):
            async for report in self._reports.find({"_id": {"$in": numbers}}, {"description": 1}):
                vocabulary.add(report["description"])
            await asyncio.sleep(0)
        await self._states.replace_one(
            {"_id": f"{_VOCABULARY}_{standing.generation}"},
            {"stage": stage, "documents": vocabulary.documents, "counts": zlib.compress(vocabulary.packed(), 6)},
            upsert=True,
        )
        standing.model.vocabulary, standing.stage = vocabulary, stage

    async def rebuild(self, progress: Progress = lambda _done, _total: None) -> int:
        """Give every report its topic anew, in the order that they have had so far; how many.

        Until it is done the old topics stand. Raises :class:`Conflict` (``REBUILDING``) while another does the same.
        """
        lease = Leadership(self._states, _BUILDING, seconds=60)
        if not await lease.take():
            raise Conflict("热点正在重新生成，请稍后再试。", code="REBUILDING")
        try:
            state = await self._states.find_one({"_id": STATE_ID}) or {}
            seq = await self._changes.newest()
            generation = self._building_generation = await self._begin()
            standing = await self._stand(generation)
            total, done = await self._reports.estimated_document_count(), 0
            async for numbers in self._in_order(state.get("generation")):
                done += await self._take_in(standing, numbers)
                progress(done, max(total, done))
                if not await lease.renew():
                    raise Conflict("热点正在重新生成，请稍后再试。", code="REBUILDING")
            await self._states.update_one(
                {"_id": STATE_ID},
                {
                    "$set": {"generation": generation, "seq": seq, "kept_at": now()},
                    "$setOnInsert": {"holder": None, "term": 0, "until": datetime.fromtimestamp(0, now().tzinfo)},
                },
                upsert=True,
            )
            progress(done, done)
            await self._clear_away(generation)
        finally:
            self._building_generation = None
            await lease.release()
        return done

    async def _in_order(self, generation: str | None) -> AsyncIterator[list[str]]:
        """The numbers of all reports: those that are members of ``generation`` as they came, then the others."""
        if generation is not None:
            _, members = collections(self._database, generation)
            async for numbers in _in_batches(members.find({}, {"_id": 1}).sort("n", ASCENDING)):
                yield numbers
        everything = self._reports.find({}, {"_id": 1}).sort([("created_at", ASCENDING), ("_id", ASCENDING)])
        async for numbers in _in_batches(everything):
            yield numbers  # members are passed over

    async def _clear_away(self, generation: str) -> None:
        """Drop what belongs to other generations."""
        for name in await self._database.list_collection_names():
            if name.startswith(("topics_", "topic_members_")) and name != STATE and not name.endswith(generation):
                await self._database.drop_collection(name)
        others = {"$regex": f"^{_VOCABULARY}_", "$ne": f"{_VOCABULARY}_{generation}"}
        await self._states.delete_many({"_id": others})


def _next_stage(n: int) -> int:
    """The number of members at which the vocabulary changes next."""
    if n < _FIRST_STAGE:
        return _FIRST_STAGE
    stage = stage_of(n)
    return stage + (_LAST_STAGE if stage >= _LAST_STAGE else stage)


async def _in_batches(cursor: Any) -> AsyncIterator[list[str]]:
    numbers: list[str] = []
    async for found in cursor:
        numbers.append(found["_id"])
        if len(numbers) == _READ:
            yield numbers
            numbers = []
    if numbers:
        yield numbers


def _place(report: Document) -> Document:
    """What a member keeps of where its report lies, which is moved when staff set its point."""
    return {"area": report["areas"][-1], "location": report["location"]["coordinates"]}
