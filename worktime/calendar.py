"""The working days of the district (工作日历): those of the State Council, and the district's own on top of them.

The State Council's days off and make-up days (调休) come with the package `chinesecalendar`, from its yearly notice
(国务院办公厅关于部分节假日安排的通知). A year whose notice the package does not hold knows only weekends, until the
district enters the days itself: an own day of either kind goes before a published one. Days are documents of
``calendar_days``: ``_id`` the date (2026-10-01), ``kind``, ``name``; one that was taken back has no kind.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal, get_args

import structlog
from chinese_calendar import Holiday
from chinese_calendar.constants import holidays as _days_off
from chinese_calendar.constants import workdays as _makeup_days
from pymongo.errors import DuplicateKeyError, PyMongoError

from accounts.models import StaffSession
from core.audit import owe_audit
from core.clock import now, shanghai
from core.database import Database
from core.errors import Conflict, Invalid, NotFound
from core.queue.debts import OWED_INDEX, Amendment, Document, owe
from core.versions import changes_between, version_of
from worktime.limits import WorkCalendar

log = structlog.get_logger(__name__)

Kind = Literal["holiday", "workday"]

INDEXES = {"calendar_days": [OWED_INDEX]}

FIRST_YEAR = min(_days_off).year
LAST_PUBLISHED = max(_days_off).year
_YEARS_AHEAD = 12
"""The longest limit is some five years of working time, and a suspension lasts at most one."""

FRESH_SECONDS = 3.0
"""For how long a process goes by what it has read: until then it may not know of a change made by another one."""
RECOUNT_AFTER = timedelta(seconds=20)
"""When running cases are counted anew after a change: no process goes by the old days any more, nor is it still writing
what it has counted by them."""
_LOOK_AHEAD = timedelta(days=45)


@dataclass(frozen=True)
class CalendarDay:
    """A day whose working time is not what its weekday says. ``own``: the district's, not the State Council's."""

    day: date
    kind: Kind
    name: str
    own: bool


def _published() -> dict[date, CalendarDay]:
    names = {holiday.value: holiday.chinese for holiday in Holiday}
    found = {}
    for kind, days in (("holiday", _days_off), ("workday", _makeup_days)):
        for day, name in days.items():
            says = names.get(name, name) + ("" if kind == "holiday" else "调休")
            found[day] = CalendarDay(day, "holiday" if kind == "holiday" else "workday", says, own=False)
    return found


PUBLISHED = _published()


class CalendarService:
    """The work calendar in force, and the district's changes to it."""

    def __init__(self, database: Database, hours: WorkCalendar) -> None:
        """``hours`` has the working periods of the week; its days off are not looked at."""
        self._days = database["calendar_days"]
        self._hours = hours
        self._calendar = hours
        self._counted_from: tuple[int, dict[date, CalendarDay]] | None = None
        self._fresh_until = 0.0
        self._reading = asyncio.Lock()
        self._told: set[int] = set()
        self._catching_up: asyncio.Task[None] | None = None

    async def current(self) -> WorkCalendar:
        """The calendar in force; a change made by another process is in it after :data:`FRESH_SECONDS`."""
        if time.monotonic() >= self._fresh_until:
            async with self._reading:
                if time.monotonic() >= self._fresh_until:
                    await self._read()
        return self._calendar

    @property
    def latest(self) -> WorkCalendar:
        """The calendar as it was last read, for what cannot wait; where that was too long ago it is read again."""
        if time.monotonic() >= self._fresh_until and self._catching_up is None:
            self._catching_up = asyncio.create_task(self._catch_up())
        return self._calendar

    async def _catch_up(self) -> None:
        try:
            await self.current()
        except PyMongoError as error:
            log.warning("calendar.database", error=type(error).__name__)
        finally:
            self._catching_up = None

    async def _read(self) -> None:
        asked = time.monotonic()
        own = await self._own()
        year = shanghai(now()).year
        if (year, own) != self._counted_from:
            # Some tens of milliseconds of arithmetic: requests go on meanwhile.
            self._calendar = await asyncio.to_thread(self._count, year, own)
            self._counted_from = year, own
        self._fresh_until = asked + FRESH_SECONDS
        for missing in self._unpublished(own):
            if missing not in self._told:
                self._told.add(missing)
                log.warning("calendar.not_published", year=missing)

    def _count(self, year: int, own: dict[date, CalendarDay]) -> WorkCalendar:
        days = PUBLISHED | own
        return WorkCalendar(
            periods=self._hours.periods,
            weekday_periods=self._hours.weekday_periods,
            holidays=frozenset(day for day, about in days.items() if about.kind == "holiday"),
            makeup_workdays=frozenset(day for day, about in days.items() if about.kind == "workday"),
            first_year=FIRST_YEAR,
            last_year=year + _YEARS_AHEAD,
        )

    async def _own(self) -> dict[date, CalendarDay]:
        found = {}
        async for stored in self._days.find({"kind": {"$in": get_args(Kind)}}, {"kind": 1, "name": 1}):
            day = date.fromisoformat(stored["_id"])
            found[day] = CalendarDay(day, stored["kind"], stored["name"], own=True)
        return found

    async def unpublished(self) -> list[int]:
        """The years that limits reach now, or within some weeks, of which neither the package nor the district knows
        any day: they count plain weekdays."""
        await self.current()
        return self._unpublished(self._counted_from[1] if self._counted_from else {})

    @staticmethod
    def _unpublished(own: dict[date, CalendarDay]) -> list[int]:
        today: datetime = shanghai(now())
        known = {day.year for day in own}
        return [y for y in sorted({today.year, (today + _LOOK_AHEAD).year}) if y > LAST_PUBLISHED and y not in known]

    async def year(self, year: int) -> list[CalendarDay]:
        """The days of ``year`` that are not what their weekday says, in order."""
        days = PUBLISHED | await self._own()
        return [days[day] for day in sorted(days) if day.year == year]

    async def put(self, day: date, kind: Kind, name: str, by: StaffSession) -> CalendarDay:
        """Make ``day`` a day off or a working day of the district; running cases are counted anew.

        Raises :class:`Invalid` for a day that the calendar does not reach.
        """
        _check_within_reach(day)
        before = await self._days.find_one({"_id": day.isoformat()})
        if before is None or (before["kind"], before["name"]) != (kind, name):
            await self._change(day, before, {"kind": kind, "name": name}, "calendar.put", by)
        return CalendarDay(day, kind, name, own=True)

    async def withdraw(self, day: date, by: StaffSession) -> None:
        """Take the district's own day back, so that what was published counts again, or the weekday.

        Raises :class:`NotFound` where the district has said nothing about the day.
        """
        before = await self._days.find_one({"_id": day.isoformat()})
        if before is None or before["kind"] is None:
            raise NotFound("本区没有设置这一天，不需要删除。", code="NO_SUCH_DAY")
        # The document stays: it owes what follows from the change.
        await self._change(day, before, {"kind": None, "name": None}, "calendar.delete", by)

    async def _change(
        self, day: date, before: Document | None, fields: Document, action: str, by: StaffSession
    ) -> None:
        key = day.isoformat()
        version = version_of(before) if before else 0
        amendment = Amendment(
            set={**fields, "version": version + 1, "changed_at": now(), "changed_by": by.named()},
            owe=[
                owe("recount", delay=RECOUNT_AFTER, after=None, counted=0, changed=0),
                owe_audit(
                    action,
                    subject=by.named(),
                    object_={"kind": "calendar_day", "id": key},
                    changes=changes_between(before or {}, fields, ("kind", "name")),
                ),
            ],
            settle=["recount"],  # one that is still owed would count what the new one counts too
        )
        condition: Document = {"_id": key, "version": version}
        try:
            result = await self._days.update_one(condition, amendment.pipeline(), upsert=before is None)
        except DuplicateKeyError:
            raise _changed_meanwhile() from None
        if not (result.matched_count or result.upserted_id):
            raise _changed_meanwhile()
        self._fresh_until = 0.0


def _changed_meanwhile() -> Conflict:
    return Conflict("这一天刚刚被别人修改过，请刷新后再试。", code="STALE")


def _check_within_reach(day: date) -> None:
    last = shanghai(now()).year + _YEARS_AHEAD
    if not FIRST_YEAR <= day.year <= last:
        problem = f"应在 {FIRST_YEAR} 年到 {last} 年之间"
        raise Invalid(
            f"日期不对，{problem}。",
            code="DAY_OUT_OF_RANGE",
            details={"fields": [{"field": "day", "problem": problem}]},
        )
