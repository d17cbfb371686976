"""How the models do, day by day, and which one was in force when."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from core.errors import Invalid
from core.paging import number_mark, read_number_mark
from handlers.base import BaseHandler
from handlers.models import Answer, Moment, Query
from handlers.operations import operation
from inference.model_store import OWN
from inference.monitoring import Drift
from inference.promotions import Promotions

MAX_DAYS = 92


class DaysQuery(Query):
    """Which days, in Asia/Shanghai."""

    since: Annotated[date, Field(description="The first day.")]
    until: Annotated[date, Field(description=f"The first day after the period: at most {MAX_DAYS} days.")]


class ModelDay(Answer):
    """What one model answered in one task on one day, and what people said of its answers."""

    day: date
    task: str = Field(description="`photos`, `category`, `department` or `government`.")
    model: str
    judged: int
    confidence: float | None = Field(description="The mean; null where nothing was judged.")
    labels: dict[str, int] = Field(description="How many of each answer.")
    stability: float | None = Field(
        description="Population stability index against the model's first 30 days; above 0.25 much has moved."
    )
    confirmed: int = Field(description="Labels of people, given on that day, that say the same.")
    corrected: int = Field(description="Those that say something else.")
    disagreement: float | None = Field(description="The share of the latter; null where nobody said anything.")


class ShadowDay(Answer):
    """How a model that ran in shadow did beside the one in force on one day."""

    day: date
    task: str
    model: str
    shadow: str
    judged: int
    agreed: int
    confidence: float = Field(description="The mean of the shadow's.")


class InferenceStatistics(Answer):
    """The days of a period."""

    days: list[ModelDay]
    shadow: list[ShadowDay]


class ModelsQuery(Query):
    """One page of the history, the newest first."""

    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class Operator(Answer):
    """Who changed the model."""

    kind: str
    id: str
    name: str | None = None


class Change(Answer):
    """One change of the model in force. `own`: the models that the product came with."""

    number: int
    action: Literal["promote", "rollback"]
    before: str
    after: str
    at: Moment
    by: Operator
    reason: str | None
    forced: bool
    figures: dict[str, Any] | None = Field(description="What comparing the two had given; null where nobody had.")


class Shadow(Answer):
    """What is asked to run beside the model in force."""

    model: str = Field(description="`own`: the models that the product came with. Waits while it is in force itself.")
    since: Moment
    by: Operator


class ModelHistory(Answer):
    """Which model is in force, what runs beside it, and how that came."""

    present: str
    shadow: Shadow | None
    changes: list[Change]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class Statistics(BaseHandler):
    """``/inference/statistics``."""

    @operation(
        "How the models do, day by day",
        audience="staff",
        reach="shared",
        query=DaysQuery,
        answer=InferenceStatistics,
        permission="indicators.view",
    )
    async def get(self, query: DaysQuery) -> InferenceStatistics:
        """Over the whole district: how sure they are, what they answer, how often people disagree."""
        if not 1970 <= query.since.year < 9000 or not timedelta(0) < query.until - query.since <= timedelta(MAX_DAYS):
            raise Invalid(f"统计期间不正确：结束日期应晚于开始日期，且不超过 {MAX_DAYS} 天。", code="BAD_PERIOD")
        days = await self.services[Drift].days(query.since, query.until)
        shadow = await self.services[Drift].shadow_days(query.since, query.until)
        return InferenceStatistics(
            days=[ModelDay(**row) for row in days],
            shadow=[ShadowDay(**row) for row in shadow],
        )


class Models(BaseHandler):
    """``/inference/models``."""

    @operation(
        "Which model is in force, and which was",
        audience="staff",
        reach="shared",
        query=ModelsQuery,
        answer=ModelHistory,
        permission="indicators.view",
    )
    async def get(self, query: ModelsQuery) -> ModelHistory:
        """Models are changed from the command line: `python -m inference promote`."""
        promotions = self.services[Promotions]
        before = int(read_number_mark(query.page)[0]) if query.page is not None else None
        found = await promotions.history(before=before, size=query.size + 1)
        shown, shadow = found[: query.size], await promotions.shadow()
        return ModelHistory(
            present=await promotions.present() or OWN,
            shadow=Shadow(model=shadow["candidate"], since=shadow["since"], by=shadow["by"]) if shadow else None,
            changes=[
                Change(
                    number=record["_id"],
                    before=record["from"] or OWN,
                    after=record["to"] or OWN,
                    forced=record.get("forced", False),
                    figures=record.get("figures"),
                    **{name: record[name] for name in ("action", "at", "by", "reason")},
                )
                for record in shown
            ],
            next_page=number_mark(shown[-1]["_id"], "") if len(found) > len(shown) else None,
        )
