"""What collectors (采集员) find on patrol: reported as cases and followed.

A collector answers for a finding until it is closed: the list of own findings that are open is the duty to close the
loop.
"""

from __future__ import annotations

from accounts.models import StaffSession
from core.debts import Document
from core.idempotency import Once
from reports.models import Finder, NewReport
from reports.queries import ReportQueries
from reports.rules import OPEN
from reports.service import ReportService


class ReportFindings:
    """Reporting by collectors, and their open findings."""

    def __init__(self, *, reports: ReportService, queries: ReportQueries) -> None:
        self._reports = reports
        self._queries = queries

    async def report(self, staff: StaffSession, report: NewReport, *, once: Once | None = None) -> Document:
        """Take a finding in: the case. Raises what :meth:`ReportService.submit` raises."""
        return await self._reports.submit(report, Finder(staff), once=once)

    async def own(
        self, staff: StaffSession, *, open_only: bool, page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        """The findings of ``staff``, newest first, and the mark of the next page: all, or what is still open."""
        return await self._queries.found_by(staff.staff_id, OPEN if open_only else (), page, size)
