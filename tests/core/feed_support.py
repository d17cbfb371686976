"""Cases as the feed sees them, without the rest of the product: made, changed and noisily in debt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from core.changes.feed import Feed, Source
from core.changes.log import ChangeLog
from core.clock import now
from core.database import Database
from core.ids import new_id
from core.queue.debts import Document, owe
from reports.feed import SOURCE, describe
from tests.timing import until


def _of_copies(number: str, document: Document | None, latest: Document | None) -> list[Document]:
    return [{**change, "kind": "copy"} for change in describe(number, document, latest)]


COPIES = replace(SOURCE, kind="copy", collection="copies", describe=_of_copies)
"""Documents of another kind, with the same ids as the cases: a change of one must never pass for one of the other."""


class Cases:
    """The collection of cases, and what was done to them."""

    sources: tuple[Source, ...] = (SOURCE,)

    def __init__(self, database: Database) -> None:
        self.database = database
        self.reports = database["reports"]
        self.log = ChangeLog(database)
        self.announced: list[int] = []
        self.feeds: list[Feed] = []

    async def new(self, number: str, *, areas: list[str] | None = None, unit: str | None = None) -> None:
        """A case as it is just after being submitted."""
        await self._insert(
            {
                "_id": number,
                "state": "submitted",
                "version": 1,
                "category": "other",
                "areas": areas or ["990101", "990101001"],
                "unit_id": unit,
                "due_at": None,
                "late": False,
                "public": False,
                "photo_verdicts": {},
                "timeline": [_entry("submit", None, "submitted")],
                "owed": [owe("route")],
            }
        )

    async def _insert(self, document: Document) -> None:
        for source in self.sources:
            await self.database[source.collection].insert_one(dict(document))

    async def _update(self, number: str, change: Any) -> None:
        for source in self.sources:
            await self.database[source.collection].update_one({"_id": number}, change)

    async def act(self, number: str, action: str, to: str, **fields: Any) -> None:
        """One step, in the form that the product's updates have."""
        entry = _entry(action, None, to)
        stage = {
            "state": to,
            **fields,
            "timeline": {"$concatArrays": ["$timeline", {"$literal": [entry]}]},
            "version": {"$add": ["$version", 1]},
        }
        await self._update(number, [{"$set": stage}])

    async def file_and_dispatch(self, number: str) -> None:
        """Two steps in one update, as the worker takes them where a rule fits."""
        entries = [_entry("file", "submitted", "filed"), _entry("dispatch", "filed", "dispatched")]
        change = {
            "$push": {"timeline": {"$each": entries}},
            "$set": {"state": "dispatched", "unit_id": "roads"},
            "$inc": {"version": 2},
        }
        await self._update(number, change)

    async def debts(self, number: str) -> None:
        """A debt is taken up, put off and paid: nothing that a reader sees."""
        await self.reports.update_one({"_id": number}, {"$set": {"owed.0.claim": new_id()}, "$inc": {"risk_rank": 1}})
        await self.reports.update_one({"_id": number}, {"$push": {"notices": {"event": "filed"}}})
        await self.reports.update_one({"_id": number}, [{"$set": {"owed": [], "text_verdicts": {"a": "pass"}}}])

    def feed(self, *, lease_seconds: float = 1.0) -> Feed:
        async def announce(seq: int) -> None:
            self.announced.append(seq)

        self.feeds.append(Feed(self.database, self.sources, lease_seconds=lease_seconds, announce=announce))
        return self.feeds[-1]

    @asynccontextmanager
    async def fed(self, **options: float) -> AsyncIterator[asyncio.Task[None]]:
        """A feed runs meanwhile."""
        task = asyncio.create_task(self.feed(**options).run())
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def changes(self) -> list[Document]:
        """All changes, whose numbers must have no gap."""
        found = await self.log.after(0, limit=100_000)
        assert [c["_id"] for c in found] == list(range(1, len(found) + 1))
        return found

    async def recorded(self) -> list[Document]:
        """All changes, once every entry of every timeline is among them; none may be there twice."""

        async def all_there() -> list[Document] | None:
            found = await self.changes()
            seen = [(c["kind"], c["entry"]) for c in found if c.get("entry")]
            assert len(seen) == len(set(seen)), "a change was recorded twice"
            wanted = {
                (source.kind, e["id"])
                for source in self.sources
                async for r in self.database[source.collection].find()
                for e in r["timeline"]
                if e["id"] not in self.old
            }
            return found if wanted <= set(seen) else None

        found: list[Document] = await until(all_there)
        return found

    old: frozenset[str] = frozenset()
    """Entries from before the feed."""

    async def started(self) -> None:
        """Wait until a feed follows the stream, past its first look at everything."""

        async def noted() -> bool:
            state = await self.database["feeds"].find_one({"_id": "reports"})
            return bool(state and state.get("token") and not state.get("resync"))

        await until(noted)


def _entry(action: str, origin: str | None, to: str) -> Document:
    by = {"kind": "staff", "id": "s1", "name": "张三"}
    return {"id": new_id(), "at": now(), "action": action, "from": origin, "to": to, "by": by}
