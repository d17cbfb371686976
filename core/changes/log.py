"""The record of changes: every change that readers can see, with a number (``_id``) that grows by one, without gaps.

:mod:`core.changes.feed` writes it; live updates and webhooks read it. A change is small and holds no personal data:
what it is about is looked up where it is needed. Changes are kept for some days; of a document whose changes are gone,
its *head* keeps what the next change has to be compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne

from core.database import Database
from core.queue.debts import Document

CHANNEL = "changes"
"""Where the number of the newest change is announced, for those who wait; an announcement may be lost."""

INDEXES = {
    "changes": [
        IndexModel([("number", ASCENDING), ("_id", DESCENDING)], name="number"),
        IndexModel([("areas", ASCENDING), ("_id", ASCENDING)], name="areas"),
        IndexModel([("unit_id", ASCENDING), ("_id", ASCENDING)], name="unit"),
    ],
    "change_heads": [],
    "feeds": [],
}

Key = tuple[str, str]
"""A document: its kind, and its ``_id``."""

_TRIM = 1000
_INNER = {"token": 0}


class ChangeLog:
    """Reads the changes, and lets go of old ones."""

    def __init__(self, database: Database) -> None:
        self._changes = database["changes"]
        self._heads = database["change_heads"]
        self._feeds = database["feeds"]

    async def newest(self) -> int:
        """The number of the newest change; 0 when there has been none."""
        found = await self._changes.find_one({}, {"_id": 1}, sort=[("_id", DESCENDING)])
        if found is not None:
            return int(found["_id"])
        feed = await self._feeds.find_one({}, {"seq": 1})
        return int(feed.get("seq", 0)) if feed else 0

    async def reaches_back_to(self, seq: int) -> bool:
        """Whether every change after ``seq`` is still kept."""
        oldest = await self._changes.find_one({}, {"_id": 1}, sort=[("_id", ASCENDING)])
        return oldest["_id"] <= seq + 1 if oldest is not None else seq == await self.newest()

    async def after(self, seq: int, *, until: int | None = None, limit: int = 500) -> list[Document]:
        """Changes after ``seq``, up to and with ``until``, in their order; at most ``limit``."""
        bounds = {"$gt": seq} if until is None else {"$gt": seq, "$lte": until}
        found = self._changes.find({"_id": bounds}, _INNER).sort("_id", ASCENDING).limit(limit)
        return [dict(change) async for change in found]

    async def latest_of(self, keys: Sequence[Key]) -> dict[Key, Document]:
        """The latest change of each document, or its head where the change is gone."""
        found: dict[Key, Document] = {}
        for kind in dict.fromkeys(kind for kind, _ in keys):
            numbers = [number for of_kind, number in keys if of_kind == kind]
            stages: list[Document] = [
                {"$match": {"number": {"$in": numbers}}},
                {"$sort": {"number": 1, "_id": -1}},
                {"$match": {"kind": kind}},
                {"$group": {"_id": "$number", "latest": {"$first": "$$ROOT"}}},
            ]
            found |= {(kind, row["_id"]): row["latest"] async for row in self._changes.aggregate(stages)}
            missing = {_head_id(kind, n): n for n in numbers if (kind, n) not in found}
            if missing:
                heads = self._heads.find({"_id": {"$in": list(missing)}})
                found |= {(kind, missing[head["_id"]]): head async for head in heads}
        return found

    async def put_heads(self, changes: Sequence[Document]) -> None:
        """Keep what each of ``changes`` left behind as the head of its document, unless a later one is there."""
        writes = []
        for change in changes:
            head = {name: change.get(name) for name in HEAD}
            newer = {"$gt": [{"$ifNull": ["$seq", -1]}, change.get("_id", 0)]}
            kept = {name: {"$cond": [newer, f"${name}", {"$literal": value}]} for name, value in head.items()}
            kept["seq"] = {"$max": ["$seq", change.get("_id", 0)]}
            writes.append(UpdateOne({"_id": _head_id(change["kind"], change["number"])}, [{"$set": kept}], upsert=True))
        if writes:
            await self._heads.bulk_write(writes, ordered=False)

    async def trim(self, before: datetime) -> int:
        """Let go of changes recorded before ``before``; how many. May be killed and repeated at any point.

        The newest change that the feed has not yet noted is never let go of: numbers go on from it.
        """
        feed = await self._feeds.find_one({}, {"seq": 1})
        noted = int(feed.get("seq", 0)) if feed else 0
        trimmed = 0
        while True:
            # By number and not by time: what goes is always the beginning.
            oldest = self._changes.find({}).sort("_id", ASCENDING).limit(_TRIM)
            old = []
            async for change in oldest:
                if change["recorded_at"] >= before or change["_id"] > noted:
                    break
                old.append(change)
            if not old:
                return trimmed
            await self.put_heads([c for c in old if c["kind"] != "feed"])
            result = await self._changes.delete_many({"_id": {"$lte": old[-1]["_id"]}})
            trimmed += result.deleted_count


def _head_id(kind: str, number: str) -> str:
    """The ``_id`` of a head; that of a case is its number alone, as it was when there were no other kinds."""
    return number if kind == "report" else f"{kind}:{number}"


HEAD = ("entries", "mark", "areas", "unit_id", "units", "to", "late", "version")
"""What of a change the next one of the same document is compared with."""
