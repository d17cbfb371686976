"""Writing audit entries and reading them."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, Self

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from core.audit.macs import Document, Macs
from core.clock import now
from core.config import Settings
from core.database import Database
from core.ids import new_id
from core.paging import newest_first

_NEWEST = [("at", DESCENDING), ("_id", DESCENDING)]

INDEXES = {
    "audit": [
        IndexModel(_NEWEST, name="newest"),
        IndexModel([("object.kind", ASCENDING), ("object.id", ASCENDING), *_NEWEST], name="object"),
        IndexModel([("subject.id", ASCENDING), *_NEWEST], name="subject"),
        IndexModel([("action", ASCENDING), *_NEWEST], name="action"),
        IndexModel([("written_at", ASCENDING), ("_id", ASCENDING)], name="written"),
    ],
    "audit_seals": [IndexModel([("latest", ASCENDING)], name="latest")],
    "audit_checkpoints": [],
}

Result = Literal["done", "refused"]


@dataclass(frozen=True)
class Origin:
    """Where something was asked for: the request's id and the client's address; None outside any request."""

    request_id: str | None = None
    address: str | None = None

    def stored(self) -> dict[str, str | None]:
        """As a debt or an entry keeps it."""
        return asdict(self)


_NO_REQUEST = Origin()
_serving: ContextVar[Origin] = ContextVar("serving", default=_NO_REQUEST)


def serving(request_id: str, address: str | None) -> None:
    """Say which request the present task serves: what it records from here on is recorded as asked for by it."""
    _serving.set(Origin(request_id, address))


def origin() -> Origin:
    """The request that the present task serves."""
    return _serving.get()


@dataclass(frozen=True)
class AuditFilters:
    """What entries can be listed by; None means any. ``since`` is included, ``until`` is not."""

    subject: str | None = None
    object_kind: str | None = None
    object_id: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def audit_database(settings: Settings, database: Database) -> Database:
    """Where the audit log is kept: ``mongodb.audit_database`` beside ``database``, or in ``database`` itself."""
    name = settings.mongodb.audit_database or database.name
    return database.client.get_database(
        name, codec_options=database.codec_options, write_concern=database.write_concern
    )


class Audit:
    """Writes and reads audit entries.

    A failure to write is an error of the caller's, so nothing is done or seen unrecorded. Each entry names the one that
    the same process wrote before it (``previous``): an entry that is deleted is missed by its successor, even before a
    seal covers it. So the entries of a process are written one after the other.
    """

    def __init__(self, database: Database, macs: Macs) -> None:
        self._entries = database["audit"]
        self._macs = macs
        self._turn = asyncio.Lock()
        self._previous: Document | None = None

    @classmethod
    def of(cls, settings: Settings, database: Database) -> Self:
        """The log that ``settings`` keep beside ``database``."""
        return cls(audit_database(settings, database), Macs(settings.keys.audit.get_secret_value()))

    async def record(
        self,
        action: str,
        *,
        subject: dict[str, str],
        object_: dict[str, str],
        result: Result = "done",
        reason: str | None = None,
        changes: dict[str, dict[str, Any]] | None = None,
        details: dict[str, Any] | None = None,
        entry_id: str | None = None,
        at: datetime | None = None,
        asked: Origin | None = None,
    ) -> None:
        """Add one entry; one with an ``entry_id`` that is there already is not added again.

        ``subject`` and ``object_`` are {kind, id} and maybe a name, ``changes`` is {field: {before, after}}. ``at`` and
        ``asked`` default to now and to the request being served. None of it may hold personal data in clear.
        """
        # Each process's own order is what its entries are linked by; two at once would both follow the same one.
        async with self._turn:
            written_at = now()
            entry: Document = {
                "_id": entry_id or new_id(),
                "at": at or written_at,
                "written_at": written_at,
                "action": action,
                "subject": subject,
                "object": object_,
                "result": result,
                "reason": reason,
                "changes": changes or {},
                "details": details or {},
                **(asked or origin()).stored(),
                "previous": self._previous,
            }
            entry["mac"] = self._macs.of("entry", entry)
            try:
                await self._entries.insert_one(entry)
            except DuplicateKeyError:
                return
            except BaseException:
                # It may be there or not: what comes next must not say that it is.
                self._previous = None
                raise
            self._previous = {"id": entry["_id"], "at": written_at}

    async def read(self, filters: AuditFilters, page: str | None, size: int) -> tuple[list[Document], str | None]:
        """One page of entries, newest first, and the mark of the next one."""
        query: Document = {
            name: value
            for name, value in (
                ("subject.id", filters.subject),
                ("object.kind", filters.object_kind),
                ("object.id", filters.object_id),
                ("action", filters.action),
            )
            if value is not None
        }
        conditions = [query]
        conditions += [{"at": {op: t}} for op, t in (("$gte", filters.since), ("$lt", filters.until)) if t is not None]
        return await newest_first(self._entries, {"$and": conditions}, page, size, by="at")
