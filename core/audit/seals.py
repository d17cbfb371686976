"""The chain over the audit log: every few seconds a seal covers the entries that no seal covers yet.

Entries are written by many processes at once and wait for nobody; the chain is made afterwards, by whichever worker is
first. A seal holds the ids and the MACs of its entries and the MAC of the seal before it, and its number is its id: two
workers that seal at once want the same number, and one of them gets it. No entry is ever changed, so the application's
database user needs to insert and find, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import structlog
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import DuplicateKeyError, PyMongoError

from core.audit.entries import audit_database
from core.audit.macs import Document, Macs
from core.clock import now
from core.config import Settings
from core.database import Database

log = structlog.get_logger(__name__)

MAX_ENTRIES = 1000
"""Entries in one seal."""
TAG_BYTES = 16
"""How much of an entry's MAC its seal keeps."""

# An entry can arrive after others that were written later: by as much as a write may take, and clocks may differ.
_LATE = timedelta(minutes=2)
LATEST = timedelta(days=1)
"""How far back the hourly look goes, for what a machine that stood still wrote when it went on."""
_LOOK_BACK_EVERY = timedelta(hours=1)


@dataclass(frozen=True)
class Head:
    """The newest seal; number 0 stands for none."""

    number: int
    mac: bytes
    until: datetime | None

    def __str__(self) -> str:
        """Its number and half of its MAC. In groups, so that no run of digits looks like a phone to the log's mask."""
        mac = self.mac[:16].hex()
        return f"{self.number}:{'-'.join(mac[i : i + 4] for i in range(0, len(mac), 4))}"


class ChainBroken(Exception):
    """The newest seal is not one of ours: there is nothing to go on from. ``python -m core.audit verify`` says more."""


async def head_of(database: Database, macs: Macs) -> Head:
    """The newest seal of the log in ``database``. Raises :class:`ChainBroken`."""
    newest = await database["audit_seals"].find_one({}, sort=[("_id", DESCENDING)])
    if newest is None:
        return Head(0, b"", None)
    if not macs.fits("seal", newest):
        raise ChainBroken(f"seal {newest['_id']} was altered")
    return Head(newest["_id"], newest["mac"], newest["until"])


class Sealer:
    """Seals entries. Any number may run at once, in any process."""

    def __init__(self, database: Database, macs: Macs) -> None:
        self._entries = database["audit"]
        self._seals = database["audit_seals"]
        self._database = database
        self._macs = macs
        self._seen = Head(0, b"", None)

    @classmethod
    def of(cls, settings: Settings, database: Database) -> Self:
        """For the log that ``settings`` keep beside ``database``."""
        return cls(audit_database(settings, database), Macs(settings.keys.audit.get_secret_value()))

    async def run(self, seconds: float) -> None:
        """Seal every ``seconds`` until cancelled. While the database is away nothing is lost, only sealed later."""
        look_back_at = now()
        while True:
            try:
                due = now() >= look_back_at
                await self.seal(LATEST if due else _LATE)
                if due:
                    look_back_at = now() + _LOOK_BACK_EVERY
            except PyMongoError as error:
                log.warning("audit.not_sealed", error=type(error).__name__)
            except ChainBroken as error:
                log.error("audit.chain_broken", problem=str(error))
            await asyncio.sleep(seconds)

    async def seal(self, look_back: timedelta = _LATE) -> int:
        """Seal what no seal covers, of entries written up to ``look_back`` before the newest seal; how many.

        Raises :class:`ChainBroken` when the newest seal is not one of ours. What is sealed is logged with the seal's
        MAC: whoever changes the database cannot change a log that is kept elsewhere.
        """
        sealed = 0
        while True:
            head = await head_of(self._database, self._macs)
            self._watch(head)
            fresh = await self._not_sealed(head, look_back)
            if not fresh:
                return sealed
            try:
                self._seen = await self._append(head, fresh)
            except DuplicateKeyError:
                return sealed  # another worker was quicker, and has these or goes on
            log.info("audit.sealed", seal=str(self._seen), entries=len(fresh))
            sealed += len(fresh)

    def _watch(self, head: Head) -> None:
        """A chain only grows: say so when it does not. It is sealed on all the same, or more could be taken away."""
        seen = self._seen
        if head.number < seen.number or (head.number == seen.number and head.mac != seen.mac):
            log.error("audit.chain_cut", was=str(seen), found=str(head))
        self._seen = head

    async def _not_sealed(self, head: Head, look_back: timedelta) -> list[Document]:
        written: Document = {}
        covered: set[str] = set()
        if head.until is not None:
            since = head.until - look_back
            written = {"written_at": {"$gte": since}}
            async for seal in self._seals.find({"latest": {"$gte": since}}, {"entries": 1}):
                covered.update(seal["entries"])
        fresh: list[Document] = []
        found = self._entries.find(written, {"mac": 1, "written_at": 1})
        async for entry in found.sort([("written_at", ASCENDING), ("_id", ASCENDING)]):
            if entry["_id"] not in covered:
                fresh.append(entry)
                if len(fresh) == MAX_ENTRIES:
                    break
        return fresh

    async def _append(self, head: Head, fresh: list[Document]) -> Head:
        moment = now()
        latest: datetime = fresh[-1]["written_at"]
        # A clock that is ahead must not have the entries of the others passed over.
        reached = min(latest, moment)
        seal: Document = {
            "_id": head.number + 1,
            "at": moment,
            "previous": head.mac,
            "entries": [e["_id"] for e in fresh],
            "tags": tags(fresh),
            "until": max(reached, min(head.until, moment)) if head.until else reached,
            "latest": latest,
        }
        seal["mac"] = self._macs.of("seal", seal)
        await self._seals.insert_one(seal)
        return Head(seal["_id"], seal["mac"], seal["until"])


def tags(entries: Iterable[Document]) -> bytes:
    """The beginnings of the entries' MACs, one after the other. One that is no MAC gives a tag that fits none."""
    return b"".join(bytes(e["mac"][:TAG_BYTES]) if isinstance(e.get("mac"), bytes) else bytes(16) for e in entries)


async def expire(database: Database, macs: Macs, keep: timedelta) -> int:
    """Delete the entries that are older than ``keep``, by whole seals; how many went.

    First a signed checkpoint says which seal the chain begins after; then the entries go, then their seals. Killed
    anywhere, the next call goes on. The newest seal always stays. Needs a database user who may delete. What is deleted
    is not looked at: verify first.
    """
    seals, oldest = database["audit_seals"], now() - keep
    head = await head_of(database, macs)
    last: Document | None = None
    count = 0
    latest: datetime | None = None
    async for seal in seals.find({"_id": {"$lt": head.number}}).sort("_id", ASCENDING):
        if seal["until"] >= oldest or seal["latest"] >= oldest:
            break
        last, count = seal, count + len(seal["entries"])
        latest = max(latest or seal["latest"], seal["latest"])
    if last is None:
        return 0
    before = await newest_checkpoint(database)
    if before is None or before["_id"] < last["_id"]:
        checkpoint: dict[str, Any] = {
            "_id": last["_id"],
            "at": now(),
            "seal": last["mac"],
            "latest": max(latest, before["latest"]) if before and latest else latest,
            "entries": count,
        }
        checkpoint["mac"] = macs.of("checkpoint", checkpoint)
        await database["audit_checkpoints"].insert_one(checkpoint)
    gone = 0
    async for seal in seals.find({"_id": {"$lte": last["_id"]}}).sort("_id", ASCENDING):
        gone += (await database["audit"].delete_many({"_id": {"$in": seal["entries"]}})).deleted_count
        await seals.delete_one({"_id": seal["_id"]})
    return gone


async def newest_checkpoint(database: Database) -> Document | None:
    """Up to where entries have expired, if any have."""
    found: Document | None = await database["audit_checkpoints"].find_one({}, sort=[("_id", DESCENDING)])
    return found
