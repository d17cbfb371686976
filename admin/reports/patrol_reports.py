"""What collectors report, and what they still answer for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from admin.reports.cases import CaseHandler, CaseLine, CasePage
from handlers.models import AtLeast, Body, ObjectId, PlainText, Query
from handlers.operations import operation
from places.models import Position
from reports.intake.patrol_reports import PatrolReports
from reports.models import Given, NewReport
from reports.new_case import MOST_PHOTOS


class SettledBody(Body):
    """What was done on the spot, with the photos of after."""

    note: Annotated[PlainText, Field(min_length=1, max_length=500)]
    photo_ids: Annotated[list[ObjectId], Field(min_length=1, max_length=MOST_PHOTOS)]


class FindingBody(Body):
    """What a collector has found, with the photos of before."""

    description: Annotated[PlainText, AtLeast(5), Field(max_length=500)]
    category: Annotated[str, Field(max_length=40)]
    photo_ids: Annotated[list[ObjectId], Field(min_length=1, max_length=MOST_PHOTOS)]
    location: Position
    address: Annotated[PlainText, Field(max_length=200)] = ""
    answers: Annotated[dict[str, Annotated[PlainText, Field(max_length=200)]], Field(max_length=10)] = {}
    settled: Annotated[
        SettledBody | None, Field(description="Settled on the spot (自行处置): files, handles and closes it at once.")
    ] = None


class FindingsQuery(Query):
    """Which of one's own findings. Newest first."""

    all: Annotated[bool, Field(description="Those that are over, too.")] = False
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class Findings(CaseHandler):
    """``/findings``."""

    @operation(
        "Report a finding",
        audience="staff",
        reach="limited",
        body=FindingBody,
        answer=CaseLine,
        status=201,
        permission="finding.report",
        limits=("write",),
        idempotent=True,
    )
    async def post(self, body: FindingBody) -> CaseLine:
        """It is filed and dispatched by the rules, as citizens' reports are; what is settled on the spot is closed
        at once, unless its category wants a check before that: its state tells."""
        longitude, latitude = body.location.wgs84()
        report = await self.services[PatrolReports].report(
            self.staff,
            NewReport(
                description=body.description,
                category=body.category,
                photo_ids=tuple(body.photo_ids),
                longitude=longitude,
                latitude=latitude,
                given={"coordinates": [body.location.longitude, body.location.latitude], "crs": body.location.crs},
                address=body.address,
                contact_phone=None,
                anonymous=False,
                answers=body.answers,
            ),
            settled=Given(note=body.settled.note, photos=tuple(body.settled.photo_ids)) if body.settled else None,
            once=self.once,
        )
        self.services.wake("reports")
        return CaseLine(**self.line(report))

    @operation(
        "My findings that are still open",
        audience="staff",
        reach="own",
        query=FindingsQuery,
        answer=CasePage,
        permission="finding.report",
    )
    async def get(self, query: FindingsQuery) -> CasePage:
        """What a collector still answers for, until it is closed."""
        found, following = await self.services[PatrolReports].own(
            self.staff, open_only=not query.all, page=query.page, size=query.size
        )
        return CasePage(reports=[CaseLine(**self.line(r)) for r in found], next_page=following)
