"""Hot topics (热点): what many people report of late, as far as whoever asks can reach it. Nothing here writes.

Every figure is a sum over the members within reach, worked out when it is asked for from an index that holds all it
takes: nothing that is stored can be wrong, and a street's staff see the street's own figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from accounts.models import StaffSession
from accounts.reach import Reach
from core.clock import now
from core.database import Database
from core.errors import Forbidden, NotFound
from core.paging import newest_first, number_mark, read_number_mark
from core.queue.debts import Document
from reports.queries import ReportQueries
from reports.topics.keeper import STATE, STATE_ID, collections

Period = Literal["day", "week", "month"]
Direction = Literal["new", "rising", "steady", "falling"]
DAYS: Final[dict[Period, int]] = {"day": 1, "week": 7, "month": 30}
LEAST: Final = 2
"""Reports that make a topic: one person alone is none."""
RANKING: Final = "ranking"
"""The index that a ranking is read from, and nothing else."""
_BEFORE_DAYS: Final = 7
_SERIES_DAYS: Final = 30


@dataclass(frozen=True)
class HotTopic:
    """A topic and its figures within reach.

    ``count`` is of the period, ``last_day`` of the last 24 hours, ``before`` of a day of the seven before those on
    average. ``box``: west, south, east, north in WGS-84 degrees. ``document`` is what is stored of it.
    """

    document: Document
    count: int
    last_day: int
    before: float
    box: tuple[float, float, float, float]
    first_at: datetime
    last_at: datetime

    @property
    def direction(self) -> Direction:
        """The last day against a day before: half as much again is rising, half is falling."""
        if self.before == 0:
            return "new"
        share = self.last_day / self.before
        return "rising" if share >= 1.5 else "falling" if share <= 0.5 else "steady"


class Topics:
    """Lists topics and their cases."""

    def __init__(self, database: Database, queries: ReportQueries) -> None:
        self._database = database
        self._queries = queries

    async def hot(
        self,
        staff: StaffSession,
        *,
        period: Period,
        category: str | None,
        area: str | None,
        page: str | None,
        size: int,
    ) -> tuple[list[HotTopic], str | None]:
        """The topics of the period with the most reports within reach, most first, and the mark of the next page."""
        kept, members = await self._collections()
        if kept is None:
            return [], None
        moment = now()
        stages = ranking(staff, period=period, category=category, area=area, page=page, size=size, moment=moment)
        within: Document = stages[0]["$match"]
        rows = [row async for row in members.aggregate(stages, hint=RANKING)]
        more = number_mark(rows[size - 1]["count"], rows[size - 1]["_id"]) if len(rows) > size else None
        rows = rows[:size]
        ids = [row["_id"] for row in rows]
        documents = {t["_id"]: t async for t in kept.find({"_id": {"$in": ids}}, {"terms": 0})}
        period_of = {**within, "at": {"$gte": moment - timedelta(days=DAYS[period])}, "topic": {"$in": ids}}
        extents = {e["_id"]: e async for e in members.aggregate([{"$match": period_of}, _EXTENT], hint="topic")}
        return [
            HotTopic(
                documents[row["_id"]],
                row["count"],
                row["last_day"],
                row["before"] / _BEFORE_DAYS,
                *_extent(extents[row["_id"]]),
            )
            for row in rows
            if row["_id"] in documents and row["_id"] in extents
        ], more

    async def one(self, topic_id: str, staff: StaffSession) -> tuple[HotTopic, list[tuple[str, int]]]:
        """A topic with its figures of the last 30 days within reach, and how many came on each of those days.

        Days are of Asia/Shanghai. Raises :class:`NotFound` where nothing of it is in reach.
        """
        kept, members = await self._collections()
        moment = now()
        since, day, week = (moment - timedelta(days=d) for d in (_SERIES_DAYS, 1, 1 + _BEFORE_DAYS))
        topic = await kept.find_one({"_id": topic_id}, {"terms": 0}) if kept is not None else None
        if topic is None:
            raise _no_such_topic()
        theirs: Document = {"topic": topic_id, "counted": True, "$and": [_within(staff, None)]}
        (extent,) = [e async for e in members.aggregate([{"$match": theirs}, _EXTENT], hint="topic")] or [None]
        if extent is None:
            raise _no_such_topic()
        local = {"$dateToString": {"date": "$at", "format": "%Y-%m-%d", "timezone": "Asia/Shanghai"}}
        stages = [
            {"$match": {**theirs, "at": {"$gte": since}}},
            {"$group": {"_id": local, "n": {"$sum": 1}}},
            {"$sort": {"_id": 1}},
        ]
        series = [(row["_id"], row["n"]) async for row in members.aggregate(stages, hint="topic")]
        last_day = await members.count_documents({**theirs, "at": {"$gte": day}})
        before = await members.count_documents({**theirs, "at": {"$gte": week, "$lt": day}})
        count = sum(n for _, n in series)
        return HotTopic(topic, count, last_day, before / _BEFORE_DAYS, *_extent(extent)), series

    async def cases(
        self, topic_id: str, staff: StaffSession, page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        """The cases of a topic within reach, newest first. Raises :class:`NotFound` where nothing of it is in reach."""
        _, members = await self._collections()
        if members is None:
            raise _no_such_topic()
        conditions: list[Document] = [{"topic": topic_id, "counted": True}, _within(staff, None)]
        query: Document = {"$and": conditions}
        rows, more = await newest_first(members, query, page, size, by="at", fields={"at": 1}, hint="topic")
        if not rows and page is None:
            raise _no_such_topic()
        return await self._queries.numbered([row["_id"] for row in rows], staff), more

    async def _collections(self) -> tuple[Any, Any]:
        """The topics and members that are in place; None before there are any."""
        state = await self._database[STATE].find_one({"_id": STATE_ID}, {"generation": 1})
        if state is None or state.get("generation") is None:
            return None, None
        return collections(self._database, state["generation"])


def ranking(
    staff: StaffSession,
    *,
    period: Period,
    category: str | None,
    area: str | None,
    page: str | None,
    size: int,
    moment: datetime,
) -> list[Document]:
    """The pipeline over members, with the index :data:`RANKING`, of :meth:`Topics.hot` as of ``moment``.

    One row more than ``size`` tells that there are more. The first stage has which members count, also of the days
    before the period that the trend is taken from.
    """
    since, day, week = (moment - timedelta(days=d) for d in (DAYS[period], 1, 1 + _BEFORE_DAYS))
    within: Document = {
        "at": {"$gte": min(since, week)},
        "counted": True,
        "$and": [_within(staff, area)],
        **({"category": category} if category is not None else {}),
    }
    return [
        {"$match": within},
        {
            "$group": {
                "_id": "$topic",
                "count": {"$sum": {"$cond": [{"$gte": ["$at", since]}, 1, 0]}},
                "last_day": {"$sum": {"$cond": [{"$gte": ["$at", day]}, 1, 0]}},
                "before": {"$sum": {"$cond": [{"$and": [{"$lt": ["$at", day]}, {"$gte": ["$at", week]}]}, 1, 0]}},
            }
        },
        {"$match": {"count": {"$gte": LEAST}, **_after(page)}},
        {"$sort": {"count": -1, "_id": 1}},
        {"$limit": size + 1},
    ]


_EXTENT: Final[Document] = {
    "$group": {
        "_id": "$topic",
        **{
            name: {f"${name[:3]}": {"$arrayElemAt": ["$location", axis]}}
            for name, axis in (("min_x", 0), ("min_y", 1), ("max_x", 0), ("max_y", 1))
        },
        "first_at": {"$min": "$at"},
        "last_at": {"$max": "$at"},
    }
}


def _extent(row: Document) -> tuple[tuple[float, float, float, float], datetime, datetime]:
    return (row["min_x"], row["min_y"], row["max_x"], row["max_y"]), row["first_at"], row["last_at"]


def _within(staff: StaffSession, area: str | None) -> Document:
    """The condition for members in the staff member's areas, and in ``area``: codes are prefixes of those inside.

    Raises :class:`Forbidden` for a unit's own staff, whose reach is by case and not by place.
    """
    if staff.unit_id is not None:
        raise Forbidden("仅指挥中心可查看热点。", code="CENTRE_ONLY")
    own = staff.reach.inside("area")
    return {"$and": [own, Reach((area,)).inside("area")]} if area is not None else own


def _after(page: str | None) -> Document:
    if page is None:
        return {}
    count, topic_id = read_number_mark(page)
    return {"$or": [{"count": {"$lt": count}}, {"count": count, "_id": {"$gt": topic_id}}]}


def _no_such_topic() -> NotFound:
    return NotFound("没有找到这个热点，可能已经过去，请刷新列表。", code="NO_SUCH_TOPIC")
