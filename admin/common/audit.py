"""The audit log, for those who assess and those who administer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from core.audit import AuditFilters
from core.queue.debts import Document
from handlers.base import BaseHandler
from handlers.models import Answer, GivenMoment, Moment, Query
from handlers.operations import operation

Name = Annotated[str, Field(pattern=r"^[a-z_.]{1,60}$")]


class AuditQuery(Query):
    """Which entries; all conditions must hold. Newest first."""

    subject: Annotated[str | None, Field(max_length=60, description="Id of who did it.")] = None
    object_kind: Annotated[Name | None, Field(description="Kind of what it was done to, e.g. report.")] = None
    object_id: Annotated[str | None, Field(max_length=60, description="Its id, e.g. a case number.")] = None
    action: Annotated[Name | None, Field(description="E.g. report.dispatch, report.view_contact, staff.sign_in.")] = (
        None
    )
    since: Annotated[GivenMoment | None, Field(description="Done at or after; ISO 8601 with an offset.")] = None
    until: Annotated[GivenMoment | None, Field(description="Done before.")] = None
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class Party(Answer):
    """Who did something, or what it was done to."""

    kind: str
    id: str
    name: str | None = None


class Subject(Party):
    """Who did something."""

    on_behalf_of: str | None = Field(default=None, description="Id of the absent colleague whose roles were used.")


class AuditEntry(Answer):
    """One entry: who did or saw what, when, from where, why, and what came of it."""

    entry_id: str
    at: Moment
    action: str
    subject: Subject
    object: Party | None
    result: Literal["done", "refused"]
    reason: str | None
    changes: dict[str, Any] = Field(description="{field: {before, after}}")
    details: dict[str, Any]
    request_id: str | None
    address: str | None


class AuditPage(Answer):
    """One page of entries."""

    entries: list[AuditEntry]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class AuditLog(BaseHandler):
    """``/audit``."""

    @operation(
        "Read the audit log",
        audience="staff",
        reach="district",
        query=AuditQuery,
        answer=AuditPage,
        permission="audit.view",
    )
    async def get(self, query: AuditQuery) -> AuditPage:
        """Over the whole district, by who reaches all of it. That it was read, and what was asked for, goes into it
        too."""
        asked = query.model_dump(exclude={"page", "size"})
        found, following = await self.services.audit.read(AuditFilters(**asked), query.page, query.size)
        await self.services.audit.record(
            "audit.view",
            subject=self.staff.named(),
            object_={},
            details={"filters": {name: value for name, value in asked.items() if value is not None}},
        )
        return AuditPage(entries=[_view(entry) for entry in found], next_page=following)


def _view(entry: Document) -> AuditEntry:
    return AuditEntry(
        entry_id=entry["_id"],
        object=Party(**entry["object"]) if entry["object"] else None,
        **{
            name: entry[name]
            for name in ("at", "action", "subject", "result", "reason", "changes", "details", "request_id", "address")
        },
    )
