"""Reading the statistics: counts by group over a period, and the cases that were counted.

Whole days that are over are read from summed rows; today, and what no view sums up, from the facts of the cases, whose
indexes hold all that is needed. A case counts from its moment on: what is due later today is not due yet.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal, TypeVar

from core.clock import now
from core.database import Database
from core.debts import Document
from core.errors import Invalid, Unavailable
from core.paging import page_mark, read_mark
from reports.indicators import BASES, COUNTS, Basis
from reports.recount import STATE, STATE_ID, collections
from reports.statistics_rows import BIT, PERSON_FIELD, VIEWS, counts_in, day_of, split, start_of

By = Literal["unit", "street", "grid", "person", "category"]
NOBODY: Final = "-"
"""As a filter: the cases that have none, such as those that are with no unit."""

_DIGITS = {"street": 9, "grid": 15}
_LEVELS = {6: "district", 9: "street", 15: "grid"}
_UNSUMMED = timedelta(days=124)
"""The longest period of what no view answers: facts are read for it, one by one."""
_INSTANT = timedelta(milliseconds=1)
T = TypeVar("T")

Span = tuple[datetime, datetime, int]
"""From a moment to another (not in it), and 1 to count what lies between in, -1 to count it out."""


@dataclass(frozen=True)
class Selection:
    """Which cases: all conditions must hold. ``areas`` are alternatives within each of its tuples.

    ``since`` is the first day, ``until`` the first day after it (Asia/Shanghai). None means any, "-" those without.
    """

    since: date
    until: date
    areas: tuple[tuple[str, ...], ...] = ()
    unit: str | None = None
    category: str | None = None
    person: str | None = None


@dataclass(frozen=True)
class Figures:
    """Counts by group; the group None holds the cases that have none. ``moment`` is when they were read."""

    groups: dict[str | None, dict[str, int]]
    moment: datetime
    counted_to: datetime

    @property
    def total(self) -> dict[str, int]:
        """All groups together: a case is in one of them only."""
        total: Counter[str] = Counter()
        for counts in self.groups.values():
            total.update(counts)
        return dict(total)


class Statistics:
    """The counts, and the lists behind them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._states = database[STATE]

    async def figures(self, selection: Selection, by: By | None) -> Figures:
        """The counts of ``selection``, by group.

        Raises :class:`Invalid` (``PERIOD_TOO_LONG``) for a long period of what no view answers, and
        :class:`Unavailable` until the reports were first counted.
        """
        moment = now()
        if selection.until - selection.since > _UNSUMMED and _view(selection, by) is None and not _is_local(selection):
            raise Invalid(
                f"这样组合的统计一次最多查询 {_UNSUMMED.days} 天，请缩短统计期间，或减少筛选条件。",
                code="PERIOD_TOO_LONG",
                details={"max_days": _UNSUMMED.days},
            )

        async def read(state: Document) -> Figures:
            groups = await self._read(state["generation"], selection, by, moment)
            return Figures(groups, moment, state["counted_to"])

        return await self._of_one_generation(read)

    async def cases(
        self, selection: Selection, count: str, page: str | None, size: int
    ) -> tuple[list[str], str | None]:
        """The numbers of the cases that ``count`` counts, one page, latest first, and the mark of the next page."""
        basis = COUNTS[count].basis
        moment = now()
        conditions = [
            {basis: {"$gte": start_of(selection.since), "$lt": min(start_of(selection.until), moment + _INSTANT)}},
            {"bits": {"$bitsAllSet": 1 << BIT[count]}},
            *_fact_conditions(selection, basis),
        ]
        if page is not None:
            at, number = read_mark(page)
            conditions += [
                {basis: {"$lte": at}},
                {"$or": [{basis: {"$lt": at}}, {basis: at, "_id": {"$lt": number}}]},
            ]

        async def read(state: Document) -> tuple[list[str], str | None]:
            facts, _ = collections(self._database, state["generation"])
            cursor = facts.find({"$and": conditions}, {basis: 1}).sort([(basis, -1), ("_id", -1)]).limit(size + 1)
            found = await cursor.to_list(size + 1)
            more = page_mark(found[size - 1][basis], found[size - 1]["_id"]) if len(found) > size else None
            return [f["_id"] for f in found[:size]], more

        return await self._of_one_generation(read)

    async def _of_one_generation(self, read: Callable[[Document], Awaitable[T]]) -> T:
        """What ``read`` makes of the generation in place; again if another one took its place meanwhile."""
        for _ in range(3):
            state = await self._states.find_one({"_id": STATE_ID})
            if state is None or state.get("generation") is None:
                break
            answer = await read(state)
            after = await self._states.find_one({"_id": STATE_ID}, {"generation": 1})
            if after is not None and after.get("generation") == state["generation"]:
                return answer
        raise Unavailable("统计数据正在生成，请稍后再试。", code="NOT_COUNTED_YET")

    async def _read(
        self, generation: str, selection: Selection, by: By | None, moment: datetime
    ) -> dict[str | None, dict[str, int]]:
        facts, rows = collections(self._database, generation)
        today = day_of(moment)
        over = max(selection.since, min(selection.until, today))  # whole days before this one are over
        view = _view(selection, by)
        month = today.replace(day=1)
        following = (month + timedelta(days=32)).replace(day=1)
        spans: list[Span] = []
        if view is None:
            found, left = list[str](), [(selection.since, over)]
        elif not VIEWS[view].by_day and selection.since <= month and selection.until > today:
            # The month so far is the whole month without what comes after this moment, which is far less to read.
            found, left = split(selection.since, month, by_day=False)
            found.append(month.isoformat()[:7])
            spans.append((moment + _INSTANT, start_of(following), -1))
        else:
            found, left = split(selection.since, over, by_day=VIEWS[view].by_day)
        if selection.since <= today < selection.until and not spans:
            left.append((today, today + timedelta(days=1)))
        # Moments are whole milliseconds, so the present one is let in by the next.
        spans += [(start_of(first), min(start_of(end), moment + _INSTANT), 1) for first, end in _joined(left)]
        readings = [_facts_in(facts, basis, span, selection, by) for span in spans for basis in BASES]
        if found and view is not None:
            readings.append(_rows_in(rows, view, found, selection, by))
        groups: dict[str | None, Counter[str]] = {}
        for reading in await asyncio.gather(*readings):
            for group, key, number in reading:
                groups.setdefault(group, Counter())[key] += number
        return {group: dict(+counts) for group, counts in groups.items() if +counts}


def _is_local(selection: Selection) -> bool:
    """Whether a community or a grid narrows it, of which the index by area finds the few cases that there are."""
    return any(all(len(code) > _DIGITS["street"] for code in codes) for codes in selection.areas)


def _view(selection: Selection, by: By | None) -> str | None:
    """The smallest view that knows every dimension of the question; None where none does."""
    wanted: set[str] = {by} if by is not None else set()
    for codes in selection.areas:
        for code in codes:
            wanted.add(_LEVELS.get(len(code), "community"))
    for name in ("unit", "category", "person"):
        if getattr(selection, name) is not None:
            wanted.add(name)
    return next((name for name, view in VIEWS.items() if wanted <= set(view.dimensions)), None)


def _joined(ranges: list[tuple[date, date]]) -> list[tuple[date, date]]:
    joined: list[tuple[date, date]] = []
    for first, end in ranges:
        if first >= end:
            continue
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((first, end))
    return joined


def _wanted(value: str) -> str | None:
    return None if value == NOBODY else value


def _fact_conditions(selection: Selection, basis: Basis) -> list[Document]:
    conditions: list[Document] = []
    for codes in selection.areas:
        # Codes begin with those of the wider areas, and ":" is what follows the digits.
        within = [{"area": {"$gte": code, "$lt": f"{code}:"}} for code in codes]
        conditions.append(within[0] if len(within) == 1 else {"$or": within})
    if selection.unit is not None:
        conditions.append({"unit": _wanted(selection.unit)})
    if selection.category is not None:
        conditions.append({"category": _wanted(selection.category)})
    if selection.person is not None:
        conditions.append({PERSON_FIELD[basis]: _wanted(selection.person)})
    return conditions


async def _facts_in(
    facts: Any, basis: Basis, span: Span, selection: Selection, by: By | None
) -> list[tuple[str | None, str, int]]:
    group: Any
    if by is None:
        group = None
    elif by in _DIGITS:
        digits = _DIGITS[by]
        held = {"$gte": [{"$strLenBytes": "$area"}, digits]}
        group = {"$cond": [held, {"$substrBytes": ["$area", 0, digits]}, None]}
    else:
        group = {"$ifNull": [f"${PERSON_FIELD[basis] if by == 'person' else by}", None]}
    since, until, sign = span
    pipeline: list[Document] = [
        {"$match": {"$and": [{basis: {"$gte": since, "$lt": until}}, *_fact_conditions(selection, basis)]}},
        {"$group": {"_id": {"group": group, "bits": "$bits"}, "n": {"$sum": 1}}},
    ]
    return [
        (row["_id"]["group"], key, sign * row["n"])
        async for row in facts.aggregate(pipeline)
        for key in counts_in(row["_id"]["bits"], basis)
    ]


async def _rows_in(
    rows: Any, view: str, found: list[str], selection: Selection, by: By | None
) -> list[tuple[str | None, str, int]]:
    conditions: list[Document] = [{"view": view, "period": {"$in": found}}]
    for codes in selection.areas:
        within = [{_LEVELS[len(code)]: code} for code in codes]
        conditions.append(within[0] if len(within) == 1 else {"$or": within})
    for name in ("unit", "category", "person"):
        if (value := getattr(selection, name)) is not None:
            conditions.append({name: _wanted(value)})
    pipeline: list[Document] = [
        {"$match": {"$and": conditions}},
        {"$group": {"_id": f"${by}" if by else None, **{key: {"$sum": f"$n.{key}"} for key in COUNTS}}},
    ]
    return [(row["_id"], key, row[key]) async for row in rows.aggregate(pipeline) for key in COUNTS if row[key]]
