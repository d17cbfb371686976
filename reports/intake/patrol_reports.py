"""What collectors (采集员) find on patrol: reported as cases, settled on the spot where that is possible, and followed.

A collector answers for a finding until it is closed: the list of own findings that are open is the duty to close the
loop. What can be put right at once (自行处置) is dispatched to nobody: one step of the table files, handles and closes
the case, with the photos of before in the report and those of after in the step. It carries the unit that the rules
name all the same, so that whoever sends it into rework has somebody to send it to.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta

from accounts.models import StaffSession
from core.errors import Conflict, Invalid
from core.idempotency import Once
from core.queue.debts import Document
from photos.service import PhotoService
from places.service import PlaceService
from reports.catalogue.categories import Catalogue
from reports.models import Finder, Given, NewReport
from reports.queries import ReportQueries
from reports.service import ReportService
from reports.states import OPEN

# Should the step not follow the report because the process dies between them, the case goes the ordinary way then.
_ROUTE_AFTER = timedelta(minutes=2)


class PatrolReports:
    """Reporting by collectors, and their open findings."""

    def __init__(
        self,
        *,
        reports: ReportService,
        queries: ReportQueries,
        photos: PhotoService,
        places: PlaceService,
        catalogue: Catalogue,
    ) -> None:
        self._reports = reports
        self._queries = queries
        self._photos = photos
        self._places = places
        self._catalogue = catalogue

    async def report(
        self, staff: StaffSession, report: NewReport, *, settled: Given | None = None, once: Once | None = None
    ) -> Document:
        """Take a finding in; with ``settled`` (a note and the photos of after) it is closed at once. The case then.

        Raises what :meth:`ReportService.submit` raises, and :class:`Invalid` for photos of after that are unknown or
        (``NO_UNIT_TO_SETTLE_FOR``) where no rule names a unit.
        """
        finder = Finder(staff)
        if settled is None:
            return await self._reports.submit(report, finder, once=once)
        await self._photos.usable([*report.photo_ids, *settled.photos], finder.owner)
        given = replace(settled, category=report.category, unit=await self._unit(report))
        document = await self._reports.submit(report, finder, once=once, route_after=_ROUTE_AFTER)
        try:
            document, _ = await self._reports.act(document["_id"], "settle", staff, given, once=_step(once))
        except Conflict:
            # The case goes the ordinary way: by now, or as its category wants a check before closing. It stands there.
            document = await self._reports.get(document["_id"])
        return document

    async def _unit(self, report: NewReport) -> str:
        located = await self._places.locate(report.longitude, report.latitude)
        rules = await self._catalogue.rules()
        unit = next((r.unit for r in rules if report.category and r.fits(report.category, located.areas)), None)
        if unit is None:
            raise Invalid(
                "该类别在此处没有处置部门，不能自行处置；请不填自行处置，按一般流程上报。",
                code="NO_UNIT_TO_SETTLE_FOR",
            )
        return unit

    async def own(
        self, staff: StaffSession, *, open_only: bool, page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        """The findings of ``staff``, newest first, and the mark of the next page: all, or what is still open."""
        return await self._queries.found_by(staff.staff_id, OPEN if open_only else (), page, size)


def _step(once: Once | None) -> Once | None:
    """The key of the step that follows the report under ``once``."""
    if once is None:
        return None
    key = hashlib.sha256(f"{once.key}\0settle".encode()).hexdigest()
    return replace(once, key=f"settle-{key}", path=f"{once.path}#settle")
