"""Reading reports: one, lists with keyset paging, and those nearby. Nothing here writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from accounts.models import StaffSession
from accounts.reach import held_by
from core.clock import SHANGHAI
from core.database import Database
from core.errors import NotFound
from core.paging import newest_first
from core.queue.debts import Document
from reports.lifecycle.guards import unit_ids
from reports.search import containing
from reports.states import OPEN, State

# What nobody reads but the search.
_UNREAD = {"grams": 0, "folded": 0}
# What a list leaves out; the timeline and the index's character pairs are most of a document's bytes.
_LISTED = dict.fromkeys(
    (
        *(*_UNREAD, "timeline", "owed", "notices", "given_location", "photo_facts", "answers"),
        *("suggestion", "routing"),
    ),
    0,
)
_WITH_TIMELINE = {name: 0 for name in _LISTED if name != "timeline"}
# What citizens' lists show, and nothing else: reading the rest would cost more than the search for it.
_LINES = dict.fromkeys(
    (
        *("state", "category", "description", "address", "location.coordinates", "created_at"),
        *("reporter.citizen_id", "photos", "photo_verdicts", "photos_blurred", "metres"),
    ),
    1,
)
HIDDEN = (State.VOID, State.WITHDRAWN)
"""States that other citizens do not see."""
CLOSED_IN_GRID: Final = "closed_in_grid"
"""The index of closed cases by grid, moment and category."""
UNLISTED = (*HIDDEN, State.MERGED)
"""States that are in no list for citizens in general: a merged case is found as the one that it went into."""


@dataclass(frozen=True)
class Filters:
    """What staff can list by; None and empty mean any."""

    states: tuple[str, ...] = ()
    category: str | None = None
    unit: str | None = None
    areas: tuple[str, ...] = ()
    channel: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    late: bool | None = None
    text: str | None = None
    number: str | None = None
    external: str | None = None


class ReportQueries:
    """Lists and look-ups over the reports."""

    def __init__(self, database: Database) -> None:
        self._reports = database["reports"]

    async def _page(
        self, query: Document, page: str | None, size: int, fields: Document = _LINES
    ) -> tuple[list[Document], str | None]:
        """One page, newest first, and the mark of the next one. The cost does not grow with the page's number."""
        return await newest_first(self._reports, query, page, size, fields=fields)

    async def mine(
        self, citizen_id: str, states: tuple[str, ...], page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        """The citizen's own reports."""
        query: Document = {"reporter.citizen_id": citizen_id}
        if states:
            query["state"] = {"$in": list(states)}
        return await self._page(query, page, size)

    async def followed(self, citizen_id: str, page: str | None, size: int) -> tuple[list[Document], str | None]:
        """The reports that the citizen follows."""
        return await self._page({"followers": citizen_id}, page, size)

    async def found_by(
        self, staff_id: str, states: Sequence[str], page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        """What a collector has found on patrol, in ``states`` or in any."""
        query: Document = {"reporter.staff_id": staff_id}
        if states:
            query["state"] = {"$in": list(states)}
        return await self._page(query, page, size, _LISTED)

    async def public(self, states: tuple[str, ...], page: str | None, size: int) -> tuple[list[Document], str | None]:
        """What every citizen may see: checked, and neither void nor withdrawn."""
        shown = [s for s in (states or tuple(State)) if s not in UNLISTED]
        return await self._page({"public": True, "state": {"$in": shown}}, page, size)

    async def closed_in_grid(self, report: Document, since: datetime) -> dict[str, int]:
        """How many cases of each category were closed since then in the grid that ``report`` lies in.

        A grid (万米网格) is some 100 m across. Answered from an index alone; empty where the map has no grid.
        """
        grid = report["place"].get("grid")
        if grid is None:
            return {}
        cursor = self._reports.aggregate(closed_by_category(grid["code"], since), hint=CLOSED_IN_GRID)
        return {row["_id"]: row["n"] async for row in cursor if row["_id"] is not None}

    async def published(
        self,
        *,
        numbers: Sequence[str] | None = None,
        categories: Sequence[str] = (),
        states: Sequence[State] = tuple(State),
        since: datetime | None = None,
        until: datetime | None = None,
        partner_id: str | None = None,
        limit: int,
    ) -> list[Document]:
        """Public reports, newest first, with the timeline; a partner also gets all that they handed on themselves.

        ``numbers`` picks some and leaves the other conditions out. ``since`` belongs to the time asked for, ``until``
        does not.
        """
        query: Document = {"public": True, "state": {"$nin": list(UNLISTED)}}
        if partner_id is not None:
            query = {"$or": [query, {"reporter.partner_id": partner_id}]}
        if numbers is not None:
            query = {"$and": [query, {"_id": {"$in": list(numbers)}}]}
        else:
            conditions: Document = {"state": {"$in": list(states)}}
            if categories:
                conditions["category"] = {"$in": list(categories)}
            if since is not None or until is not None:
                bounds = {"$gte": since, "$lt": until}
                conditions["created_at"] = {k: v for k, v in bounds.items() if v is not None}
            query = {"$and": [conditions, query]}
        cursor = self._reports.find(query, _WITH_TIMELINE).sort([("created_at", -1), ("_id", -1)]).limit(limit)
        return [dict(r) async for r in cursor]

    async def near(
        self,
        longitude: float,
        latitude: float,
        *,
        metres: int,
        states: tuple[str, ...] = (),
        category: str | None = None,
        since: datetime | None = None,
        limit: int = 20,
    ) -> list[Document]:
        """Public reports around a WGS-84 point, nearest first; each has ``metres`` (float) added."""
        query: Document = {"public": True, "state": {"$in": [s for s in (states or tuple(State)) if s not in UNLISTED]}}
        if category is not None:
            query["category"] = category
        if since is not None:
            query["created_at"] = {"$gte": since}
        nearest: Document = {
            "near": {"type": "Point", "coordinates": [longitude, latitude]},
            "key": "location",
            "distanceField": "metres",
            "query": query,
        }
        found: list[Document] = []
        # MongoDB looks at nearly all that lies in the circle, however few are wanted. Where much is reported a small
        # one holds enough, and whoever is nearest in it is nearest in the large one; where little is, it costs little.
        for reach in (metres / 4, metres):
            within: list[Document] = [
                {"$geoNear": {**nearest, "maxDistance": reach}},
                {"$limit": limit},
                {"$project": _LINES},
            ]
            found = [dict(r) async for r in self._reports.aggregate(within)]
            if len(found) == limit:
                break
        return found

    async def for_citizen(self, number: str, citizen_id: str) -> Document:
        """A case that the citizen may see: their own, or a public one. Raises :class:`NotFound`."""
        found = await self._reports.find_one({"_id": number}, _UNREAD)
        if found is None or not (
            found["reporter"]["citizen_id"] == citizen_id or (found["public"] and found["state"] not in HIDDEN)
        ):
            raise NotFound("没有找到这个案件，请核对编号。", code="NO_SUCH_REPORT")
        return dict(found)

    async def end_of(self, report: Document) -> Document:
        """The case that ``report`` has been merged into, at the end of the chain; ``report`` itself if it has not."""
        while report["state"] == State.MERGED:
            found = await self._reports.find_one({"_id": report["merged_into"]}, _LISTED)
            if found is None:
                raise NotFound("没有找到这个案件，请核对编号。", code="NO_SUCH_REPORT")
            report = dict(found)
        return report

    async def related(self, report: Document) -> list[tuple[str, str, State]]:
        """The cases that ``report`` was merged into or split from, was split into, or took in: (how, number, state).

        How is ``merged_into``, ``parent``, ``child`` or ``absorbed``, in that order. One that is not made yet is left
        out. Whoever reads the case learns of each how it stands and nothing else.
        """
        named = [(how, report.get(how)) for how in ("merged_into", "parent")]
        named += [("child", number) for number in report.get("children", ())]
        named += [("absorbed", number) for number in report.get("absorbed", ())]
        numbers = [number for _, number in named if number is not None]
        if not numbers:
            return []
        found = self._reports.find({"_id": {"$in": numbers}}, {"state": 1})
        states = {other["_id"]: State(other["state"]) async for other in found}
        return [(how, number, states[number]) for how, number in named if number is not None and number in states]

    async def for_staff(self, number: str, staff: StaffSession) -> Document:
        """A case within the staff member's reach. Raises :class:`NotFound`."""
        found = await self._reports.find_one({"_id": number}, _UNREAD)
        if found is None or not staff.reaches(found["areas"], *unit_ids(found)):
            raise NotFound("没有找到这个案件，请核对编号。", code="NO_SUCH_REPORT")
        return dict(found)

    async def numbered(self, numbers: Sequence[str], staff: StaffSession) -> list[Document]:
        """The cases ``numbers`` in their order; those that are out of the staff member's reach are left out."""
        found = await self.listed(numbers)
        return [r for n in numbers if (r := found.get(n)) and staff.reaches(r["areas"], *unit_ids(r))]

    async def lines(self, numbers: Sequence[str]) -> dict[str, Document]:
        """By number, the cases ``numbers`` as citizens' lists show them, whoever asks."""
        return {r["_id"]: dict(r) async for r in self._reports.find({"_id": {"$in": list(numbers)}}, _LINES)}

    async def listed(self, numbers: Sequence[str]) -> dict[str, Document]:
        """By number, the cases ``numbers`` as lists show them, whoever asks."""
        return {r["_id"]: dict(r) async for r in self._reports.find({"_id": {"$in": list(numbers)}}, _LISTED)}

    async def staff_list(
        self, staff: StaffSession, filters: Filters, page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        """The cases within reach that pass ``filters``."""
        return await self._page(staff_query(staff, filters), page, size, _LISTED)

    async def staff_count(self, staff: StaffSession, filters: Filters, limit: int) -> int:
        """How many cases within reach pass ``filters``; counting ends at ``limit``."""
        return int(await self._reports.count_documents(staff_query(staff, filters), limit=limit))


def closed_by_category(grid: str, since: datetime) -> list[Document]:
    """The pipeline over reports, with the index :data:`CLOSED_IN_GRID`, of :meth:`ReportQueries.closed_in_grid`."""
    return [
        {"$match": {"place.grid.code": grid, "milestones.closed_at": {"$gte": since}}},
        {"$group": {"_id": "$category", "n": {"$sum": 1}}},
    ]


def staff_query(staff: StaffSession, filters: Filters) -> Document:
    """The query for what ``filters`` leave of the cases within the staff member's reach."""
    conditions: list[Document] = []
    conditions += [{"areas": code} for code in filters.areas]
    conditions += staff.reach.conditions(units="units")
    if filters.unit is not None:
        conditions.append(held_by(filters.unit, "units"))
    if filters.states:
        conditions.append({"state": {"$in": list(filters.states)}})
    if filters.category is not None:
        conditions.append({"category": filters.category})
    if filters.channel is not None:
        conditions.append({"channel": filters.channel})
    if filters.since is not None:
        conditions.append({"created_at": {"$gte": filters.since}})
    if filters.until is not None:
        conditions.append({"created_at": {"$lt": filters.until}})
    if filters.late is not None:
        conditions.append({"late": filters.late})
    if filters.number is not None:
        conditions += _numbered(filters.number)
    if filters.external is not None:
        conditions.append({"external.number": filters.external})
    if filters.text is not None:
        conditions += containing(filters.text)
    return {"$and": conditions} if conditions else {}


def _numbered(digits: str) -> list[Document]:
    """The cases whose numbers begin with ``digits``."""
    if len(digits) == 20:
        return [{"_id": digits}, *_numbered_between(digits)]
    begin = re.escape(digits)
    between = _numbered_between(digits)
    if not between or len(digits) >= 14:
        return [{"_id": {"$regex": f"^{begin}"}}, *between]
    # Of a year or month, cases are met at once but for those of the week after it. A pattern in brackets has these read
    # in a row, where a bare one has MongoDB step from each to the next; the bounds tell at once where there are none.
    division = digits[:6]
    return [{"_id": {"$gte": division, "$lt": f"{division}:", "$regex": f"^(?:{begin})"}}, *between]


def _numbered_between(digits: str) -> list[Document]:
    """When cases were submitted whose numbers begin with ``digits``: the year, month or day that they hold.

    A number alone would have the newest cases read until some fit, or all that fit be sorted.
    """
    year, month, day = digits[6:10], digits[10:12], digits[12:14]
    try:
        if len(day) == 2:
            begin = datetime(int(year), int(month), int(day), tzinfo=SHANGHAI)
            end = begin + timedelta(days=1)
        elif len(month) == 2:
            begin = datetime(int(year), int(month), 1, tzinfo=SHANGHAI)
            end = (begin + timedelta(days=31)).replace(day=1)
        elif len(year) == 4:
            begin, end = (datetime(int(year) + more, 1, 1, tzinfo=SHANGHAI) for more in (0, 1))
        else:
            return []
    except (ValueError, OverflowError):
        return []  # no such day: the number says so by itself
    # The number is not taken at the very moment of submission (a child's is promised before it is made), and it alone
    # decides: a wide margin costs some keys more.
    return [{"created_at": {"$gte": begin - timedelta(days=1), "$lt": end + timedelta(days=7)}}]


def is_late(report: dict[str, Any], moment: datetime) -> bool:
    """Whether the case is, or was, past its time limit. The mark in the document lags by up to a minute."""
    due = report["due_at"]
    running = due is not None and report["handled_at"] is None and report["state"] in OPEN
    return bool(report["late"]) or (running and due < moment)
