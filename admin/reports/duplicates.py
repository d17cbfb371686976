"""Which open cases may be of the same problem as one. Merging them is an action of a person: ``merge``."""

from __future__ import annotations

from pydantic import Field

from admin.reports.cases import CaseHandler, CaseLine
from handlers.models import Answer
from handlers.operations import operation
from reports.lifecycle.blockers import is_earlier
from reports.queries import ReportQueries
from reports.triage.duplicates import Duplicates


class SimilarCase(Answer):
    """A case that may be of the same problem."""

    report: CaseLine
    score: float = Field(description="How likely, from 0 to 1.")
    metres: float = Field(description="How far away.")
    reasons: list[str] = Field(description="What speaks for it, in Chinese, such as 相距 12 米.")
    earlier: bool = Field(
        description="Reported earlier: this case may be merged into it; otherwise it may be merged into this one."
    )


class SimilarAnswer(Answer):
    """At most ten, the likest first."""

    similar: list[SimilarCase]


class SimilarCases(CaseHandler):
    """``/reports/{number}/similar``."""

    @operation(
        "Cases that may be the same", audience="staff", reach="limited", answer=SimilarAnswer, permission="report.view"
    )
    async def get(self, number: str) -> SimilarAnswer:
        """Open ones near the case in place and time, within the reach of whoever asks, as they are now."""
        report = await self.services[ReportQueries].for_staff(number, self.staff)
        return SimilarAnswer(
            similar=[
                SimilarCase(
                    report=CaseLine(**self.line(c.report)),
                    score=round(c.likeness.score, 3),
                    metres=round(c.likeness.metres, 1),
                    reasons=list(c.likeness.reasons),
                    earlier=is_earlier(c.report, report),
                )
                for c in await self.services[Duplicates].of_case(report, self.staff)
            ]
        )
