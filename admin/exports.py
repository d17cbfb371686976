"""Exports of cases as workbooks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from admin.jobs import JobView, job_view
from admin.reports import CaseConditions
from handlers.base import BaseHandler
from handlers.models import Body, PlainText
from handlers.operations import operation


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
        job = await self.services.exports.ask(
            self.staff, body.filters.filters(), phones=body.phones, reason=body.reason, once=self.once
        )
        self.services.wake("jobs")
        return job_view(job)
