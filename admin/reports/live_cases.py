"""How live updates show cases."""

from __future__ import annotations

from collections.abc import Sequence

from admin.reports.cases import CaseLine, case_line
from core.queue.debts import Document
from core.services import Services
from handlers.live import Shown
from reports.lifecycle.guards import unit_ids
from reports.queries import ReportQueries


async def _read(services: Services, numbers: Sequence[str]) -> dict[str, Document]:
    return await services[ReportQueries].listed(numbers)


def _line(services: Services, report: Document) -> bytes:
    return CaseLine(**case_line(services, report)).model_dump_json().encode()


def _where(report: Document) -> tuple[list[str], Sequence[str | None]]:
    return report["areas"], unit_ids(report)


SHOWN = Shown("report", "report.view", _read, _line, _where, lines="cases")
