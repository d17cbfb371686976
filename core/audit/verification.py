"""Walking the chain: is every entry there, unchanged, and in its place?"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import ASCENDING

from core.audit.macs import Document, Macs
from core.audit.seals import LATEST, TAG_BYTES, ChainBroken, Head, head_of, newest_checkpoint, tags
from core.database import Database

Progress = Callable[[int, int], None]
"""Called with how many entries have been checked, and how many there are about."""


@dataclass(frozen=True)
class Found:
    """What a walk came to; ``problem`` names the first thing that is wrong, None when nothing is."""

    entries: int
    seals: int
    not_sealed: int
    waiting_since: datetime | None
    """When the oldest entry that no seal covers yet was written."""
    head: Head
    problem: str | None


class _Broken(Exception):
    """The first thing that is wrong."""


async def verify(
    database: Database, macs: Macs, *, anchor: str | None = None, progress: Progress = lambda done, total: None
) -> Found:
    """Walk the whole log in ``database``, which may be written to meanwhile.

    ``anchor`` is the ``seal`` of a line ``audit.sealed`` that was kept elsewhere: the chain must still hold it.
    """
    walk = _Walk(database, macs, progress)
    problem = None
    try:
        await walk.walk(anchor)
    except _Broken as broken:
        problem = str(broken)
    return Found(walk.entries, walk.seals, walk.not_sealed, walk.waiting_since, walk.head, problem)


class _Walk:
    def __init__(self, database: Database, macs: Macs, progress: Progress) -> None:
        self._database = database
        self._entries = database["audit"]
        self._seals = database["audit_seals"]
        self._macs = macs
        self._progress = progress
        self._total = 0
        self._checkpoint: Document | None = None
        self._tails: set[str] = set()
        """Entries that no other names as the one before it: the last that each process wrote, so far."""
        self._awaited: dict[str, Document] = {}
        """Entries that another names as the one before it and that have not been met, by id."""
        self.entries = self.seals = self.not_sealed = 0
        self.waiting_since: datetime | None = None
        self.head = Head(0, b"", None)

    async def walk(self, anchor: str | None) -> None:
        self._total = await self._entries.estimated_document_count()
        self._checkpoint = await newest_checkpoint(self._database)
        if self._checkpoint is not None:
            if not self._macs.fits("checkpoint", self._checkpoint):
                raise _Broken(f"checkpoint {self._checkpoint['_id']} was altered")
            self.head = Head(self._checkpoint["_id"], self._checkpoint["seal"], None)
        try:
            end = await head_of(self._database, self._macs)
        except ChainBroken as broken:
            await self._walk_seals(None, None, None)  # which names the first that is wrong: it may be an earlier one
            raise _Broken(str(broken)) from broken
        # What is older than this was sealed long ago, or is not ours; what is newer may not have been sealed yet.
        recent = end.until - LATEST if end.until is not None else None
        old, covered = await self._walk_seals(end, recent, anchor)
        await self._walk_not_sealed(recent, covered)
        self._check_awaited()
        if recent is not None:
            await self._check_strays(recent, old)

    async def _walk_seals(self, end: Head | None, recent: datetime | None, anchor: str | None) -> tuple[int, set[str]]:
        """How many entries the seals up to ``end`` cover that are older than ``recent``, and the ids of the others."""
        start = self.head.number
        anchored = anchor in (None, str(self.head))
        old, covered = 0, set[str]()
        # Compared by "not": a forged seal whose number is no number is met too.
        wanted: Document = {"_id": {"$not": {"$lte": start}}}
        async for seal in self._seals.find(wanted).sort("_id", ASCENDING):
            if end is not None and self.head.number == end.number:
                break  # made since the walk began
            for entry in await self._sealed(seal):
                self._follow(entry)
                if recent is not None and entry["written_at"] < recent:
                    old += 1
                else:
                    covered.add(entry["_id"])
            self.head = Head(seal["_id"], seal["mac"], seal["until"])
            anchored = anchored or str(self.head) == anchor
            self.seals += 1
            self._progress(self.entries, self._total)
        if start and not self.seals:
            raise _Broken(f"seal {start + 1} is missing: the newest seal never expires")
        if not anchored:
            raise _Broken(f"seal {anchor} is not in the chain, which ends with {self.head}: it was cut or made anew")
        return old, covered

    async def _sealed(self, seal: Document) -> list[Document]:
        """The entries of ``seal``, which has to follow the seal before."""
        number = self.head.number + 1
        if seal["_id"] != number:
            raise _Broken(f"seal {number} is missing")
        if not self._macs.fits("seal", seal):
            raise _Broken(await self._what_is_wrong_with(seal))
        if seal["previous"] != self.head.mac:
            raise _Broken(f"seal {number} does not follow the seal before it, which was made anew")
        by_id = await self._by_id(seal["entries"])
        for place, entry_id in enumerate(seal["entries"]):
            entry = by_id.get(entry_id)
            if entry is None:
                raise _Broken(f"entry {entry_id} is missing (seal {number}, place {place + 1})")
            self._check(entry)
            tag = seal["tags"][place * TAG_BYTES : (place + 1) * TAG_BYTES]
            if not hmac.compare_digest(tag, tags([entry])):
                raise _Broken(f"entry {_named(entry)} is another than the one that seal {number} covers")
        return [by_id[entry_id] for entry_id in seal["entries"]]

    async def _what_is_wrong_with(self, seal: Document) -> str:
        """A seal that was altered: an order that is not the one in which entries are sealed tells more."""
        listed = seal.get("entries")
        if isinstance(listed, list):
            by_id = await self._by_id(listed)
            there = [by_id[i] for i in listed if isinstance(i, str) and i in by_id]
            keys = [(e["written_at"], e["_id"]) for e in there if self._macs.fits("entry", e)]
            for place, (one, other) in enumerate(zip(keys, sorted(keys), strict=True)):
                if one != other:
                    where = f"seal {seal['_id']}, place {place + 1}, where {other[1]} belongs"
                    return f"entry {one[1]} was reordered ({where})"
        return f"seal {seal['_id']} was altered"

    async def _by_id(self, ids: list[Any]) -> dict[str, Document]:
        return {e["_id"]: e async for e in self._entries.find({"_id": {"$in": ids}})}

    def _check(self, entry: Document) -> None:
        if not self._macs.fits("entry", entry):
            raise _Broken(f"entry {_named(entry)} was altered")
        self.entries += 1

    def _follow(self, entry: Document) -> None:
        """Note the entry, and the one that its process wrote before it."""
        if self._awaited.pop(entry["_id"], None) is None:
            self._tails.add(entry["_id"])
        before = entry["previous"]
        if before is not None:
            if before["id"] in self._tails:
                self._tails.remove(before["id"])
            else:
                self._awaited[before["id"]] = entry

    async def _walk_not_sealed(self, recent: datetime | None, covered: set[str]) -> None:
        written = {} if recent is None else {"written_at": {"$gte": recent}}
        async for entry in self._entries.find(written).sort([("written_at", ASCENDING), ("_id", ASCENDING)]):
            if entry["_id"] not in covered:
                self._check(entry)
                self._follow(entry)
                self.not_sealed += 1
                self.waiting_since = self.waiting_since or entry["written_at"]
        self._progress(self.entries, self._total)

    def _check_awaited(self) -> None:
        expired = self._checkpoint["latest"] if self._checkpoint is not None else None
        for entry_id, successor in self._awaited.items():
            if expired is None or successor["previous"]["at"] > expired:
                raise _Broken(f"entry {entry_id} is missing: {_named(successor)} was written right after it")

    async def _check_strays(self, recent: datetime, old: int) -> None:
        """Nothing may lie there that no seal covers. By counting; only where the numbers differ it is looked for."""
        odd = await self._entries.find_one({"written_at": {"$not": {"$type": "date"}}})
        if odd is not None:
            raise _Broken(f"entry {_named(odd)} was altered")
        older: Document = {"written_at": {"$lt": recent}}
        if await self._entries.count_documents(older) == old + await self._left_behind(older):
            return
        covered = {entry_id async for seal in self._seals.find({}, {"entries": 1}) for entry_id in seal["entries"]}
        async for entry in self._entries.find(older).sort("written_at", ASCENDING):
            if entry["_id"] not in covered:
                self._check(entry)
                raise _Broken(f"entry {_named(entry)} is in no seal, though later ones are")

    async def _left_behind(self, older: Document) -> int:
        """How many have expired and are not deleted yet, because that was interrupted."""
        if self._checkpoint is None:
            return 0
        expired = self._seals.find({"_id": {"$lte": self._checkpoint["_id"]}}, {"entries": 1})
        counts = [await self._entries.count_documents({"_id": {"$in": s["entries"]}, **older}) async for s in expired]
        return sum(counts)


def _named(entry: Document) -> str:
    return f"{entry['_id']} ({entry.get('action')}, {entry.get('at')})"
