"""Leading (主节点): one of several processes does, for as long as it lives, what only one may do at a time, by a lease.

The lease is a document. Time is the database server's alone, so clocks that differ do no harm. Who stood still and
wakes up too late may believe for a moment that the lease is still theirs: whatever they write has to be fenced as well,
by the :attr:`Leadership.term` or by what it is written under.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pymongo import ReturnDocument

from core.database import Collection
from core.ids import new_id

_NEVER = datetime.fromtimestamp(0, UTC)


class Leadership:
    """The lease kept in the document ``name`` of ``collection``, for ``seconds`` at a time."""

    def __init__(self, collection: Collection, name: str, *, seconds: float) -> None:
        self._collection = collection
        self._name = name
        self.seconds = seconds
        self.holder = new_id()
        self.term = 0

    @property
    def mine(self) -> dict[str, Any]:
        """The condition under which the document is still this holder's, for updates that must be fenced."""
        return {"_id": self._name, "holder": self.holder, "term": self.term}

    async def take(self) -> bool:
        """Take the lease if nobody holds it; each taking is a new term."""
        await self._collection.update_one(
            {"_id": self._name}, {"$setOnInsert": {"holder": None, "term": 0, "until": _NEVER}}, upsert=True
        )
        taken = await self._collection.find_one_and_update(
            {"_id": self._name, "$expr": {"$lte": ["$until", "$$NOW"]}},
            [{"$set": {"holder": self.holder, "term": {"$add": ["$term", 1]}, "until": self._until()}}],
            return_document=ReturnDocument.AFTER,
        )
        if taken is None:
            return False
        self.term = taken["term"]
        return True

    async def renew(self) -> bool:
        """Hold it for as long again; False when it has gone to another or has run out."""
        # One that has run out may have been taken and given back meanwhile: the term tells.
        renewed = await self._collection.update_one(self.mine, [{"$set": {"until": self._until()}}])
        return bool(renewed.matched_count)

    async def release(self) -> None:
        """Give it back, so that the next one need not wait."""
        await self._collection.update_one(self.mine, {"$set": {"holder": None, "until": _NEVER}})

    def _until(self) -> dict[str, Any]:
        return {"$dateAdd": {"startDate": "$$NOW", "unit": "millisecond", "amount": round(self.seconds * 1000)}}
