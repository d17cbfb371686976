"""Hot topics: what many people report of late, and their cases."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from admin.reports.cases import CaseHandler, CaseLine, CasePage
from handlers.models import Answer, Moment, Query
from handlers.operations import operation
from handlers.report_views import Location, location_of
from reports.topics.ranking import HotTopic, Topics


class TopicsQuery(Query):
    """Which topics. Most reports first."""

    period: Literal["day", "week", "month"] = Field(default="week", description="The last 24 hours, 7 or 30 days.")
    category: Annotated[str | None, Field(max_length=40, description="As the reports came in.")] = None
    area: Annotated[
        str | None,
        Field(pattern=r"^[0-9]{6}(?:[0-9]{3}){0,3}$", description="An area's code, with what is inside."),
    ] = None
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class CasesQuery(Query):
    """Which page of a topic's cases."""

    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class Extent(Answer):
    """The rectangle in which the reports lie."""

    south_west: Location
    north_east: Location


class TopicView(Answer):
    """A topic; its figures count what is within the reach of whoever asks."""

    topic: str
    title: str = Field(description="From the words of its most typical report.")
    category: str | None
    count: int = Field(description="Reports of the period.")
    last_day: int = Field(description="Reports of the last 24 hours.")
    daily_before: float = Field(description="Reports a day on average, in the seven days before those.")
    trend: Literal["new", "rising", "steady", "falling"]
    extent: Extent
    first_at: Moment
    last_at: Moment


class TopicPage(Answer):
    """One page of topics."""

    topics: list[TopicView]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class DayCount(Answer):
    """The reports of one day in Asia/Shanghai."""

    day: str
    count: int


class TopicDetail(TopicView):
    """A topic of the last 30 days, by day; days without a report are left out."""

    days: list[DayCount]


class TopicRanking(CaseHandler):
    """``/topics``."""

    @operation(
        "Hot topics", audience="staff", reach="limited", query=TopicsQuery, answer=TopicPage, permission="topic.view"
    )
    async def get(self, query: TopicsQuery) -> TopicPage:
        """What at least two people have reported in the period within the areas of whoever asks."""
        found, following = await self.services[Topics].hot(
            self.staff,
            period=query.period,
            category=query.category,
            area=query.area,
            page=query.page,
            size=query.size,
        )
        return TopicPage(topics=[TopicView(**_shown(t)) for t in found], next_page=following)


class Topic(CaseHandler):
    """``/topics/{topic_id}``."""

    @operation("A hot topic", audience="staff", reach="limited", answer=TopicDetail, permission="topic.view")
    async def get(self, topic_id: str) -> TopicDetail:
        """Its figures of the last 30 days, by day."""
        topic, days = await self.services[Topics].one(topic_id, self.staff)
        return TopicDetail(**_shown(topic), days=[DayCount(day=day, count=count) for day, count in days])


class TopicCases(CaseHandler):
    """``/topics/{topic_id}/reports``."""

    @operation(
        "The cases of a topic",
        audience="staff",
        reach="limited",
        query=CasesQuery,
        answer=CasePage,
        permission="topic.view",
    )
    async def get(self, topic_id: str, query: CasesQuery) -> CasePage:
        """Within reach, newest first."""
        found, following = await self.services[Topics].cases(topic_id, self.staff, query.page, query.size)
        return CasePage(reports=[CaseLine(**self.line(r)) for r in found], next_page=following)


def _shown(topic: HotTopic) -> dict[str, object]:
    west, south, east, north = topic.box
    return {
        "topic": topic.document["_id"],
        "title": topic.document["title"],
        "category": topic.document["category"],
        "count": topic.count,
        "last_day": topic.last_day,
        "daily_before": round(topic.before, 2),
        "trend": topic.direction,
        "extent": Extent(south_west=location_of(west, south), north_east=location_of(east, north)),
        "first_at": topic.first_at,
        "last_at": topic.last_at,
    }
