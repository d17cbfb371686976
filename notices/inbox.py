"""Notices to staff (工作提醒): what the system tells them of its own accord, in one inbox for each.

A notice goes to whoever holds a role and reaches a case, or to one person; who that is, is found when they look, so
that somebody who gets the role tomorrow reads what came today. Each address in ``to`` is one key of an index:
``role:dispatcher@990101001`` the command centre's dispatchers of an area, ``role:unit@990101001#roads`` the staff of a
unit there, ``staff:{id}`` one person.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from core.database import Database
from core.errors import NotFound
from core.paging import newest_first
from core.queue.debts import Document

_NEWEST = [("at", DESCENDING), ("_id", DESCENDING)]
INDEXES = {
    "staff_notices": [
        IndexModel([("to", ASCENDING), *_NEWEST], name="to"),
        IndexModel([("forget_at", ASCENDING)], name="expiry", expireAfterSeconds=0),
    ]
}

MAX_COUNTED = 100
"""Unread notices are counted up to here: "99+" is all that a screen says."""


@dataclass(frozen=True)
class Reader:
    """Who looks into the inbox: a person with roles, in areas (codes), of a unit or (None) of the command centre."""

    staff_id: str
    roles: tuple[str, ...]
    areas: tuple[str, ...]
    unit_id: str | None

    def addresses(self) -> list[str]:
        """The addresses whose notices are this person's."""
        unit = f"#{self.unit_id}" if self.unit_id is not None else ""
        return [f"staff:{self.staff_id}", *(f"role:{r}@{area}{unit}" for r in self.roles for area in self.areas)]


def role_addresses(roles: Iterable[str], areas: Sequence[str], units: Iterable[str]) -> list[str]:
    """The addresses of whoever holds one of ``roles`` and reaches what lies in ``areas`` and is held by ``units``."""
    suffixes = ["", *(f"#{unit}" for unit in units)]
    return [f"role:{role}@{area}{suffix}" for role in roles for area in areas for suffix in suffixes]


class StaffInbox:
    """The notices to staff. It alone touches the ``staff_notices`` collection."""

    def __init__(self, database: Database, *, keep: timedelta) -> None:
        self._notices = database["staff_notices"]
        self._keep = keep

    async def tell(
        self, notice_id: str, to: Sequence[str], *, kind: str, text: str, report: str | None, at: datetime
    ) -> None:
        """Put a notice into the inboxes of ``to``; one with this id that is there already is not put in again."""
        notice: Document = {
            "_id": notice_id,
            "to": list(to),
            "kind": kind,
            "text": text,
            "report": report,
            "at": at,
            "forget_at": at + self._keep,
            "read_by": [],
        }
        try:
            await self._notices.insert_one(notice)
        except DuplicateKeyError:
            return

    async def list(
        self, reader: Reader, *, unread: bool, page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        """One page of the reader's notices, newest first, and the mark of the next one."""
        query: Document = {"to": {"$in": reader.addresses()}}
        if unread:
            query["read_by"] = {"$ne": reader.staff_id}
        return await newest_first(self._notices, query, page, size, by="at")

    async def unread(self, reader: Reader) -> int:
        """How many notices the reader has not read, at most :data:`MAX_COUNTED`."""
        query = {"to": {"$in": reader.addresses()}, "read_by": {"$ne": reader.staff_id}}
        return int(await self._notices.count_documents(query, limit=MAX_COUNTED))

    async def mark_read(self, reader: Reader, notice_id: str) -> None:
        """Note that the reader has read it; again changes nothing. Raises :class:`NotFound` for one of others."""
        result = await self._notices.update_one(
            {"_id": notice_id, "to": {"$in": reader.addresses()}}, {"$addToSet": {"read_by": reader.staff_id}}
        )
        if not result.matched_count:
            raise NotFound("没有找到这条提醒。", code="NO_SUCH_NOTICE")

    async def mark_all_read(self, reader: Reader) -> int:
        """Note that the reader has read all that is there now; how many were new."""
        result = await self._notices.update_many(
            {"to": {"$in": reader.addresses()}, "read_by": {"$ne": reader.staff_id}},
            {"$addToSet": {"read_by": reader.staff_id}},
        )
        return int(result.modified_count)
