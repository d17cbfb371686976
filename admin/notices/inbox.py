"""What the system tells staff: their inbox."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from core.queue.debts import Document
from handlers.base import BaseHandler
from handlers.models import Answer, Moment, Query
from handlers.operations import operation
from notices.inbox import MAX_COUNTED, Reader, StaffInbox


class NoticeQuery(Query):
    """Which notices. Newest first."""

    unread: Annotated[bool, Field(description="Only what you have not read.")] = False
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class StaffNotice(Answer):
    """A notice: to you, or to your role in your areas."""

    notice_id: str
    kind: str = Field(description="E.g. time_limit.")
    text: str
    report: str | None = Field(description="The number of the case that it is about.")
    at: Moment
    read: bool = Field(description="By you.")


class NoticePage(Answer):
    """One page of notices."""

    notices: list[StaffNotice]
    unread: int = Field(description=f"How many you have not read, at most {MAX_COUNTED}.")
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class AllRead(Answer):
    """What has been marked."""

    marked: int = Field(description="How many were new.")


class InboxHandler(BaseHandler):
    """What handlers about notices share."""

    @property
    def reader(self) -> Reader:
        """Whoever is signed in, as the reader of an inbox."""
        staff = self.staff
        return Reader(staff.staff_id, staff.roles, staff.areas, staff.unit_id)


class Notices(InboxHandler):
    """``/notices``."""

    @operation("Read your notices", audience="staff", reach="own", query=NoticeQuery, answer=NoticePage)
    async def get(self, query: NoticeQuery) -> NoticePage:
        """Kept for 90 days, unless the district says otherwise."""
        inbox, reader = self.services[StaffInbox], self.reader
        found, following = await inbox.list(reader, unread=query.unread, page=query.page, size=query.size)
        return NoticePage(
            notices=[_view(notice, reader) for notice in found],
            unread=await inbox.unread(reader),
            next_page=following,
        )


class NoticesRead(InboxHandler):
    """``/notices/read``."""

    @operation("Mark all your notices as read", audience="staff", reach="own", answer=AllRead, limits=("write",))
    async def post(self) -> AllRead:
        """For you alone: colleagues with the same role still have them as new."""
        return AllRead(marked=await self.services[StaffInbox].mark_all_read(self.reader))


class NoticeRead(InboxHandler):
    """``/notices/{notice_id}/read``."""

    @operation("Mark a notice as read", audience="staff", reach="own", limits=("write",), errors=(404,))
    async def post(self, notice_id: str) -> None:
        """For you alone; again changes nothing."""
        await self.services[StaffInbox].mark_read(self.reader, notice_id)


def _view(notice: Document, reader: Reader) -> StaffNotice:
    return StaffNotice(
        notice_id=notice["_id"],
        kind=notice["kind"],
        text=notice["text"],
        report=notice["report"],
        at=notice["at"],
        read=reader.staff_id in notice["read_by"],
    )
