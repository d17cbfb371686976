"""Exports of cases as workbooks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from admin.common.jobs import JobView, job_view
from admin.reports.cases import CaseConditions
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Moment, PlainText
from handlers.operations import operation
from reports.exports import FoundBy, ReportExports


class ExportBody(Body):
    """Which cases, and whether with phones in clear."""

    filters: CaseConditions = CaseConditions()
    phones: Annotated[
        bool, Field(description="Phones in clear: takes the permission report.view_contact, and a reason.")
    ] = False
    reason: Annotated[PlainText | None, Field(min_length=2, max_length=200, description="On record.")] = None


class Exports(BaseHandler):
    """``/exports``."""

    @operation(
        "Export cases as a workbook",
        audience="staff",
        reach="limited",
        body=ExportBody,
        answer=JobView,
        status=202,
        permission="report.export",
        limits=("write",),
        idempotent=True,
        errors=(409,),
    )
    async def post(self, body: ExportBody) -> JobView:
        """The staff list with the same conditions, within the reach of whoever asks: a job, whose file is an xlsx
        marked with who made it and when. On record, with what was asked for."""
        job = await self.services[ReportExports].ask(
            self.staff, body.filters.filters(), phones=body.phones, reason=body.reason, once=self.once
        )
        self.services.wake("jobs")
        return job_view(job)


class TraceBody(Body):
    """Something that has turned up outside: a text copied from an export, or the code that its marks show."""

    text: Annotated[str, Field(min_length=1, max_length=20_000)]


class Traced(Answer):
    """The export that it is from."""

    code: str
    found_by: FoundBy = Field(
        description="mark: an invisible one, which nobody else can make; code: one that is seen, and anybody can write."
    )
    job_id: str
    made_by: str
    made_by_id: str
    made_at: Moment
    rows: int
    phones: bool = Field(description="Whether phones were in clear.")
    reason: str | None
    sha256: str


class ExportTrace(BaseHandler):
    """``/exports/trace``."""

    @operation(
        "Whose export a text is from",
        audience="staff",
        reach="district",
        body=TraceBody,
        answer=Traced,
        permission="audit.view",
        limits=("write",),
        errors=(404,),
    )
    async def post(self, body: TraceBody) -> Traced:
        """By the invisible marks behind every description of an export, or by the code in it. On record.

        It is the audit log that answers.
        """
        entry, found_by = await self.services[ReportExports].trace(body.text)
        await self.services.audit.record("export.trace", subject=self.staff.named(), object_=entry["object"])
        details = entry["details"]
        return Traced(
            code=entry["object"]["id"],
            found_by=found_by,
            job_id=details["job"],
            made_by=entry["subject"]["name"],
            made_by_id=entry["subject"]["id"],
            made_at=entry["at"],
            reason=entry["reason"],
            **{name: details[name] for name in ("rows", "phones", "sha256")},
        )
