"""Reading the statistics: counts by group over a period, and the cases that were counted.

Whole days that are over are read from summed rows; today, and what no view sums up, from the facts of the cases, whose
indexes hold all that is needed and lead from day to day to what is asked for. A case counts from its moment on: what is
due later today is not due yet. Of groups that there are thousands of, a page is read; the total, from a smaller view.

A case counts once, for the unit that leads it. Where units or people are asked about, the part of each unit that helps
counts for that one as well; so what units come to is more than the total.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal, TypeVar

from core.clock import now
from core.database import Database
from core.errors import Invalid, Unavailable
from core.paging import page_mark, read_mark
from core.queue.debts import Document
from reports.statistics.indicators import BASES, COUNTS, Basis
from reports.statistics.recount import STATE, STATE_ID, collections
from reports.statistics.rows import (
    BIT,
    DAY_FIELD,
    FORMAT,
    PART,
    PARTS,
    PERSON_FIELD,
    VIEWS,
    Stretch,
    counts_in,
    day_number,
    day_of,
    number_of,
    split,
    summed,
)

By = Literal["unit", "street", "grid", "person", "category"]
NOBODY: Final = "-"
"""As a filter: the cases that have none, such as those that are with no unit."""

_DIGITS = {"street": 9, "grid": 15}
_LEVELS = {6: "district", 9: "street", 15: "grid"}
_UNSUMMED = timedelta(days=124)
"""The longest period of what no view answers: facts are read for it, one by one."""
_DAY = timedelta(days=1)
_WIDER: Final = 2
"""Cases are looked for in the last day of the period, then in so many times as many days before it, and so on."""
_BITS_OF: Final = {basis: sum(1 << BIT[key] for key, c in COUNTS.items() if c.basis == basis) for basis in BASES}
"""The lists of each basis."""
_ROWS_AT_ONCE: Final = 1000
_FEW_UNITS: Final = 8
_NO_PARTS: Final = {"$bitsAllClear": PART}
T = TypeVar("T")

_PAGED: Final = ("grid", "person")
"""What there are thousands of: rows are read in the order of these, by indexes of their own."""

Groups = dict[str | None, dict[str, int]]
Span = tuple[date, date]
"""From a day to another (not in it)."""


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
    """Counts by group, in order; the group None holds the cases that have none and comes last. ``moment`` is when they
    were read, ``more`` whether there are groups after these."""

    groups: Groups
    total: dict[str, int]
    moment: datetime
    counted_to: datetime
    more: bool = False


@dataclass(frozen=True)
class _Page:
    """Which groups: those after ``after`` (None: from the first on), ``size`` of them (None: all)."""

    after: str | None = None
    size: int | None = None

    def of(self, groups: Groups) -> Groups:
        """Those of ``groups`` that are on the page, in order."""
        ordered = sorted(groups, key=_order)
        if self.after is not None:
            last = _order(None if self.after == NOBODY else self.after)
            ordered = [key for key in ordered if _order(key) > last]
        return {key: groups[key] for key in ordered[: self.size]}


def _order(key: str | None) -> tuple[bool, str]:
    return key is None, key or ""


class Statistics:
    """The counts, and the lists behind them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._states = database[STATE]

    async def figures(
        self, selection: Selection, by: By | None, *, after: str | None = None, size: int | None = None
    ) -> Figures:
        """The counts of ``selection``, by group: at most ``size`` of them, those after the group ``after``.

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
            generation = state["generation"]
            if by is None:
                groups = await self._read(generation, selection, None, moment, _Page())
                return Figures(groups, groups.get(None, {}), moment, state["counted_to"])
            # One group more than is wanted tells whether there are more.
            page = _Page(after, None if size is None else size + 1)
            total, groups = await asyncio.gather(
                self._read(generation, selection, None, moment, _Page()),
                self._read(generation, selection, by, moment, page),
            )
            kept = page.of(groups)
            more = size is not None and len(kept) > size
            shown = dict(list(kept.items())[:size])
            return Figures(shown, total.get(None, {}), moment, state["counted_to"], more)

        return await self._of_one_generation(read)

    async def cases(
        self, selection: Selection, count: str, page: str | None, size: int
    ) -> tuple[list[str], str | None]:
        """The numbers of the cases that ``count`` counts, one page, latest first, and the mark of the next page."""
        basis = COUNTS[count].basis
        moment = now()
        conditions = [
            {"bits": {"$bitsAllSet": 1 << BIT[count], **({} if _with_parts(selection, None) else _NO_PARTS)}},
            *_fact_conditions(selection, basis),
        ]
        if page is not None:
            at, number = read_mark(page)
            conditions.append({"$or": [{basis: {"$lt": at}}, {basis: at, "_id": {"$lt": number}}]})
            moment = min(moment, at)

        async def read(state: Document) -> tuple[list[str], str | None]:
            facts, rows = collections(self._database, state["generation"])
            narrowed = await _at_units(rows, selection)
            found: list[Document] = []
            until, days = min(selection.until, day_of(moment) + _DAY), 1
            while until > selection.since and len(found) <= size:
                since = until - min(days * _DAY, until - selection.since)
                within = _on_days(basis, (since, until), moment)
                cursor = facts.find({"$and": [*within, *conditions, *narrowed]}, {basis: 1}).sort(
                    [(basis, -1), ("_id", -1)]
                )
                found += await cursor.limit(size + 1 - len(found)).to_list(None)
                until, days = since, days * _WIDER
            more = page_mark(found[size - 1][basis], found[size - 1]["_id"]) if len(found) > size else None
            return [number_of(f["_id"]) for f in found[:size]], more

        return await self._of_one_generation(read)

    async def _of_one_generation(self, read: Callable[[Document], Awaitable[T]]) -> T:
        """What ``read`` makes of the generation in place; again if another one took its place meanwhile."""
        for _ in range(3):
            state = await self._states.find_one({"_id": STATE_ID})
            if state is None or state.get("generation") is None or state.get("format") != FORMAT:
                break
            answer = await read(state)
            after = await self._states.find_one({"_id": STATE_ID}, {"generation": 1})
            if after is not None and after.get("generation") == state["generation"]:
                return answer
        raise Unavailable("统计数据正在生成，请稍后再试。", code="NOT_COUNTED_YET")

    async def _read(
        self, generation: str, selection: Selection, by: By | None, moment: datetime, page: _Page
    ) -> Groups:
        """The counts by group; of what is paged, at least those of ``page`` are complete."""
        facts, rows = collections(self._database, generation)
        today = day_of(moment)
        over = max(selection.since, min(selection.until, today))  # whole days before this one are over
        view = _view(selection, by)
        read_of_facts = (selection.since if view is None else over, min(selection.until, today + _DAY))
        narrowed = await _at_units(rows, selection) if view is None else []
        readings = [
            _facts_in(facts, basis, [*_on_days(basis, read_of_facts, moment), *narrowed], selection, by, page)
            for basis in BASES
            if read_of_facts[0] < read_of_facts[1]
        ]
        stretches = split(selection.since, over)
        if stretches and view is not None:
            readings.append(_rows_in(rows, view, stretches, selection, by, page))
        groups: dict[str | None, Counter[str]] = {}
        for reading in await asyncio.gather(*readings):
            for group, counts in reading.items():
                groups.setdefault(group, Counter()).update(counts)
        return {group: dict(kept) for group, counts in groups.items() if (kept := +counts)}


def _with_parts(selection: Selection, by: By | None) -> bool:
    """Whether the parts of units that help count: where units or people are asked about."""
    return by in ("unit", "person") or selection.unit is not None or selection.person is not None


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
    if _with_parts(selection, by):
        wanted.add("unit")  # the views that know of parts
    return next((name for name, dimensions in VIEWS.items() if wanted <= set(dimensions)), None)


def _wanted(value: str) -> str | None:
    return None if value == NOBODY else value


def _fact_conditions(selection: Selection, basis: Basis) -> list[Document]:
    conditions: list[Document] = []
    for codes in selection.areas:
        # Codes begin with those of the wider areas, and ":" is what follows the digits.
        within = [{"area": {"$gte": code, "$lt": f"{code}:"}} for code in codes]
        if any(len(code) <= _DIGITS["street"] for code in codes):
            # A pattern that begins with no letter is matched key by key. A range would have MongoDB step from each
            # category, unit and person of each day to the next, which takes twice as long where the area is large.
            within = [{"area": {"$regex": f"^(?:{'|'.join(map(re.escape, codes))})"}}]
        conditions.append(within[0] if len(within) == 1 else {"$or": within})
    if selection.unit is not None:
        conditions.append({"unit": _wanted(selection.unit)})
    if selection.category is not None:
        conditions.append({"category": _wanted(selection.category)})
    if selection.person is not None:
        conditions.append({PERSON_FIELD[basis]: _wanted(selection.person)})
    return conditions


def _on_days(basis: Basis, span: Span, moment: datetime) -> list[Document]:
    """The facts whose moment lies within ``span`` and has come."""
    since, until = span
    return [{DAY_FIELD[basis]: {"$gte": day_number(since), "$lt": day_number(until)}}, {basis: {"$lte": moment}}]


async def _at_units(rows: Any, selection: Selection) -> list[Document]:
    """Which units the cases of the person asked about have been with: their facts lie together unit by unit.

    Whoever works for many, as dispatchers do, is looked for at once.
    """
    if selection.person in (None, NOBODY) or selection.unit is not None:
        return []
    known = {"view": {"$in": ["person", f"person{PARTS}"]}, "person": selection.person}
    units = await rows.distinct("unit", known)
    return [{"unit": {"$in": units}}] if len(units) <= _FEW_UNITS else []


async def _facts_in(
    facts: Any, basis: Basis, among: list[Document], selection: Selection, by: By | None, page: _Page
) -> Groups:
    """What the facts count that are ``among`` those of some days. Only groups that count something, and of these the
    first ones of the page: what is among the first of all bases and rows together is among the first of each."""
    group: Any
    if by is None:
        group = None
    elif by in _DIGITS:
        digits = _DIGITS[by]
        held = {"$gte": [{"$strLenBytes": "$area"}, digits]}
        group = {"$cond": [held, {"$substrBytes": ["$area", 0, digits]}, None]}
    else:
        group = {"$ifNull": [f"${PERSON_FIELD[basis] if by == 'person' else by}", None]}
    bits = {"$bitsAnySet": _BITS_OF[basis], **({} if _with_parts(selection, by) else _NO_PARTS)}
    conditions = [*among, {"bits": bits}, *_fact_conditions(selection, basis)]
    pipeline: list[Document] = [
        {"$match": {"$and": conditions}},
        {"$group": {"_id": {"group": group, "bits": "$bits"}, "n": {"$sum": 1}}},
    ]
    most = None
    if page.size is not None:
        most = page.size + 1  # those that have none come first here
        if page.after not in (None, NOBODY):
            pipeline.append({"$match": {"$or": [{"_id.group": {"$gt": page.after}}, {"_id.group": None}]}})
        pipeline.append({"$sort": {"_id.group": 1}})
    groups: dict[str | None, Counter[str]] = {}
    async with facts.aggregate(pipeline, batchSize=_ROWS_AT_ONCE) as cursor:
        async for row in cursor:
            key = row["_id"]["group"]
            if key not in groups:
                if len(groups) == most:
                    break
                groups[key] = Counter()
            for name in counts_in(row["_id"]["bits"], basis):
                groups[key][name] += row["n"]
    return {key: dict(counts) for key, counts in groups.items()}


async def _rows_in(
    rows: Any, view: str, stretches: list[Stretch], selection: Selection, by: By | None, page: _Page
) -> Groups:
    """What the rows count. Of what is paged, the groups of the page and perhaps some after it."""
    conditions: list[Document] = [{"view": {"$in": [view, view + PARTS] if _with_parts(selection, by) else [view]}}]
    for codes in selection.areas:
        within = [{_LEVELS[len(code)]: code} for code in codes]
        conditions.append(within[0] if len(within) == 1 else {"$or": within})
    for name in ("unit", "category", "person"):
        if (value := getattr(selection, name)) is not None:
            conditions.append({name: _wanted(value)})
    groups: dict[str | None, Counter[str]] = {}

    async def read(some: list[Stretch], condition: Document, *, most: int | None = None) -> None:
        """Read ``some`` months; with ``most`` in the order of the groups, until so many are complete."""
        by_month = {stretch.month: stretch for stretch in some}
        counts = {"n" if stretch.whole else "d" for stretch in some}
        shown = {"_id": 0, **dict.fromkeys(["period", *counts, *([by] if by else [])], 1)}
        cursor = rows.find({"$and": [{"period": {"$in": list(by_month)}}, *conditions, condition]}, shown)
        if most is not None:
            cursor = cursor.sort(by, 1).batch_size(min(2000, len(by_month) * most))
        async for row in cursor:
            group = row[by] if by else None
            if group not in groups:
                if most is not None and _full(groups) >= most:
                    return
                groups[group] = Counter()
            groups[group].update(summed(row, by_month[row["period"]]))

    if by in _PAGED and page.size is not None and getattr(selection, by, None) is None:
        if page.after != NOBODY:
            following = [{by: {"$gt": page.after or ""}}]
            if by == "grid":
                # Those of an area are found at once: their codes begin with the area's. Cases in no grid have none.
                following += [{by: {"$gte": c, "$lt": f"{c}:"}} for c, *others in selection.areas if not others]
            await read(stretches, {"$and": following}, most=page.size)
            if _full(groups) < page.size:
                # Said so, they are found by the index of those that have the field; 14,400 rows were read for 36.
                await read(stretches, {by: {"$eq": None, "$exists": True}})
    else:
        whole = [stretch for stretch in stretches if stretch.whole]
        cut = [stretch for stretch in stretches if not stretch.whole]
        await asyncio.gather(*(read(some, {}) for some in (whole, cut) if some))
    return {group: dict(counts) for group, counts in groups.items()}


def _full(groups: dict[str | None, Counter[str]]) -> int:
    """How many of ``groups`` count anything."""
    return sum(1 for counts in groups.values() if any(counts.values()))
