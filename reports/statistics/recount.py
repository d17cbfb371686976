"""Keeping the statistics true: every change of a report is followed, and everything can be counted anew.

A case is counted in one transaction: its old facts are counted out of the rows, its new ones in, and the new facts are
stored. So at any moment the rows are the sum of the stored facts, whoever counts, however often, and wherever a process
dies; and a case that was counted after its last change is counted right.

Counting anew fills a new generation of both collections and puts it in place together with the place in the stream of
changes where that began: what changed meanwhile is counted again, which does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any, Final

import structlog
from bson import Timestamp
from pymongo import DeleteOne, ReplaceOne, UpdateOne, WriteConcern
from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from core.clock import now
from core.database import Database
from core.errors import Conflict
from core.ids import new_id
from core.queue.debts import Document
from reports.statistics.indicators import FACT_FIELDS, facts
from reports.statistics.rows import FACT_INDEXES, FORMAT, ROW_INDEXES, Difference, part_id, row_fields, row_id, stored

log = structlog.get_logger(__name__)

STATE: Final = "statistics_state"
STATE_ID: Final = "reports"
_PROJECTION = dict.fromkeys(FACT_FIELDS, 1)
_BATCH: Final = 500
_COUNTS_HELD: Final = 1_000_000
_GATHERING: Final = 1.0
"""Seconds for which changes are gathered at most before they are counted."""
_LEASE: Final = timedelta(seconds=30)
# mongo/base/error_codes.yml: CappedPositionLost, InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost
_HISTORY_LOST: Final = frozenset({136, 260, 280, 286})

# A report is written far more often than its facts change: every debt that is claimed and paid is a write too.
_NAMES: Final = "^(" + "|".join(sorted({name.partition(".")[0] for name in FACT_FIELDS})) + r")(\.|$)"
_CHANGED: Final[Document] = {
    "$concatArrays": [
        {
            "$map": {
                "input": {"$objectToArray": {"$ifNull": ["$updateDescription.updatedFields", {}]}},
                "in": "$$this.k",
            }
        },
        {"$ifNull": ["$updateDescription.removedFields", []]},
        {"$ifNull": ["$updateDescription.truncatedArrays.field", []]},
    ]
}
_TOUCHES_FACTS: Final[Document] = {
    "$anyElementTrue": {"$map": {"input": _CHANGED, "in": {"$regexMatch": {"input": "$$this", "regex": _NAMES}}}}
}
_RELEVANT: Final[list[Document]] = [
    {"$match": {"$expr": {"$or": [{"$ne": ["$operationType", "update"]}, _TOUCHES_FACTS]}}},
    {"$project": {"documentKey": 1, "operationType": 1, "clusterTime": 1}},
]

Progress = Callable[[int, int], None]
"""``(done, total)``: how many cases have been counted, of about how many."""


def collections(database: Database, generation: str) -> tuple[Any, Any]:
    """The facts and the rows of ``generation``."""
    return database[f"report_facts_{generation}"], database[f"statistics_{generation}"]


class Recount:
    """Counts reports into the statistics. Any number may count at once; one at a time follows the changes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reports = database["reports"]
        self._states = database[STATE]
        self._me = new_id()

    async def count(self, numbers: Sequence[str], generation: str) -> None:
        """Make ``generation`` true of the cases ``numbers``, whether they have changed, are new or are gone."""
        for start in range(0, len(numbers), _BATCH):
            batch = list(dict.fromkeys(numbers[start : start + _BATCH]))
            async with await self._database.client.start_session() as session:
                await session.with_transaction(
                    self._counting(batch, generation),
                    read_concern=ReadConcern("snapshot"),
                    write_concern=WriteConcern("majority", j=True),
                )

    def _counting(self, numbers: list[str], generation: str) -> Callable[[Any], Coroutine[Any, Any, None]]:
        all_facts, rows = collections(self._database, generation)
        these = {"_id": {"$in": numbers}}

        async def count(session: Any) -> None:
            before = {f["_id"]: f async for f in all_facts.find(these, session=session)}
            parts = [part_id(number, unit) for number, f in before.items() for unit in f.get("parts", ())]
            if parts:
                before |= {f["_id"]: f async for f in all_facts.find({"_id": {"$in": parts}}, session=session)}
            after: dict[str, Document] = {}
            async for report in self._reports.find(these, _PROJECTION, session=session):
                after |= {document["_id"]: document for document in stored(facts(report))}
            difference = Difference()
            writes: list[Any] = []
            for number in dict.fromkeys([*before, *after]):
                old, new = before.get(number), after.get(number)
                if old != new:
                    difference.add(old, -1)
                    difference.add(new, 1)
                    same = {"_id": number}
                    writes.append(DeleteOne(same) if new is None else ReplaceOne(same, new, upsert=True))
            if writes:
                await all_facts.bulk_write(writes, ordered=False, session=session)
            if updates := _updates(difference):
                await rows.bulk_write(updates, ordered=False, session=session)

        return count

    async def follow(self, pause: float) -> None:
        """Follow the changes of the reports until cancelled, whenever no other process does.

        ``pause`` (seconds) lets changes of one case gather, so that they are counted once.
        """
        while True:
            try:
                if await self._lead():
                    await self._follow(pause)
            except OperationFailure as error:
                log.warning("statistics.database", error=type(error).__name__, code=error.code)
                if error.code in _HISTORY_LOST:
                    await self._states.update_one({"_id": STATE_ID}, {"$unset": {"generation": "", "token": ""}})
            except (PyMongoError, Conflict) as error:
                log.warning("statistics.waiting", error=type(error).__name__)
            await asyncio.sleep(max(pause, 0.05))

    async def _follow(self, pause: float) -> None:
        state = await self._states.find_one({"_id": STATE_ID}) or {}
        if state.get("generation") is None or state.get("format") != FORMAT:
            await self.rebuild()
            return
        generation = state["generation"]
        held = {"_id": STATE_ID, "leader": self._me, "generation": generation}
        async with self._reports.watch(_RELEVANT, resume_after=state["token"], max_await_time_ms=500) as stream:
            while stream.alive:
                began, changed = now(), (await self._database.command("ping"))["operationTime"]
                numbers, read_to = await _gather(stream)
                await self.count(numbers, generation)
                # What changes while this is read and counted may be counted the next time only.
                reached = {"counted_to": began} if read_to is None or read_to >= changed else {}
                # Nobody leads any more, or another generation is in place: look again where that one begins.
                step = {"token": stream.resume_token, "until": now() + _LEASE, **reached}
                if not (await self._states.update_one(held, {"$set": step})).matched_count:
                    return
                if numbers:
                    await asyncio.sleep(pause)

    async def _lead(self) -> bool:
        """Take or hold the lease on following; False while another process has it."""
        free = {"_id": STATE_ID, "$or": [{"leader": {"$in": [self._me, None]}}, {"until": {"$lt": now()}}]}
        try:
            lease = {"leader": self._me, "until": now() + _LEASE}
            await self._states.update_one(free, {"$set": lease}, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    async def rebuild(self, progress: Progress = lambda _done, _total: None) -> int:
        """Count everything anew, from the reports alone; how many cases. Until it is done the old figures stand.

        Raises :class:`Conflict` (``REBUILDING``) while another process does the same.
        """
        generation = new_id()
        await self._states.update_one({"_id": STATE_ID}, {"$setOnInsert": {"leader": None}}, upsert=True)
        # What this process began before is over: the database was away when it ended.
        unless = ({"building": None}, {"builder": self._me}, {"building_until": {"$lt": now()}})
        await self._hold_building(generation, *unless)
        began = now()
        try:
            async with self._reports.watch(_RELEVANT, max_await_time_ms=50) as stream:
                await stream.try_next()  # opened: what changes from here on is in the stream
                token = stream.resume_token
            counted = await self._build(generation, progress)
            await self._states.update_one(
                {"_id": STATE_ID, "building": generation},
                {"$set": {"generation": generation, "format": FORMAT, "token": token, "counted_to": began}},
            )
        finally:
            await self._states.update_one(
                {"_id": STATE_ID, "building": generation},
                {"$set": {"building": None, "builder": None, "building_until": None}},
            )
        await self._clear_away()
        return counted

    async def _hold_building(self, generation: str, *unless: Document) -> None:
        held = await self._states.update_one(
            {"_id": STATE_ID, "$or": [{"building": generation}, *unless]},
            {"$set": {"building": generation, "builder": self._me, "building_until": now() + 4 * _LEASE}},
        )
        if not held.matched_count:
            raise Conflict("统计数据正在重新生成，请稍后再试。", code="REBUILDING")

    async def _build(self, generation: str, progress: Progress) -> int:
        all_facts, rows = collections(self._database, generation)
        await rows.create_indexes(ROW_INDEXES)
        # Before anything is in it: on a million cases one call would take longer than the driver waits for an answer.
        await all_facts.create_indexes(FACT_INDEXES)
        total = await self._reports.estimated_document_count()
        done, difference, batch = 0, Difference(), list[Document]()

        async def put_facts() -> None:
            if batch:
                await all_facts.insert_many(batch, ordered=False)
                batch.clear()
                await self._hold_building(generation)
                progress(done, max(total, done))

        # In the order of the numbers, which is the order of time: most rows are complete before they are written.
        async for report in self._reports.find({}, _PROJECTION).sort("_id", 1):
            for document in stored(facts(report)):
                batch.append(document)
                difference.add(document, 1)
            done += 1
            if len(batch) >= 2000:
                await put_facts()
            if difference.size >= _COUNTS_HELD:
                await self._put_rows(generation, difference)
                difference = Difference()
        await put_facts()
        await self._put_rows(generation, difference)
        progress(done, done)
        return done

    async def _put_rows(self, generation: str, difference: Difference) -> None:
        _, rows = collections(self._database, generation)
        updates = _updates(difference)
        for start in range(0, len(updates), 5000):
            await rows.bulk_write(updates[start : start + 5000], ordered=False)
            await self._hold_building(generation)

    async def _clear_away(self) -> None:
        """Drop the generations that are neither in place nor being built."""
        state = await self._states.find_one({"_id": STATE_ID}) or {}
        kept = {c.name for g in (state.get("generation"), state.get("building")) if g for c in self._named(g)}
        for name in await self._database.list_collection_names():
            if name.startswith(("report_facts_", "statistics_")) and name not in {STATE, *kept}:
                await self._database.drop_collection(name)

    def _named(self, generation: str) -> tuple[Any, Any]:
        return collections(self._database, generation)


async def _gather(stream: Any) -> tuple[list[str], Timestamp | None]:
    """The numbers of the cases that have changed, and how far the stream was read; None where it had no more.

    It waits a moment for the first, and for more of them :data:`_GATHERING` at most: where cases change all the time,
    they are to be counted all the time.
    """
    numbers: dict[str, None] = {}
    ends: float | None = None
    while (change := await stream.try_next()) is not None:
        if "documentKey" in change:
            numbers[change["documentKey"]["_id"]] = None
        ends = ends or monotonic() + _GATHERING
        if len(numbers) == _BATCH or monotonic() >= ends:
            return list(numbers), change["clusterTime"]
    return list(numbers), None


def _updates(difference: Difference) -> list[Any]:
    return [
        UpdateOne(
            {"_id": row_id(row)},
            {"$inc": counts, "$setOnInsert": row_fields(row)},
            upsert=True,
        )
        for row, counts in difference.changes()
    ]
