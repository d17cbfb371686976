"""When a case is due: time limits (处置时限) on the four clocks of urban management, as pure functions.

A limit runs on the clock of its unit:

``urgent_hour`` (紧急工作时)
    Continuous: nights, weekends and holidays count.
``natural_day`` (自然日)
    Continuous, 24 hours each.
``work_hour`` (工作时)
    Runs in the working periods of working days only. Due at the *earliest* moment at which the limit is used up, so it
    may fall on the end of a period, never after it: four hours from 08:30 with a break from 12:00 to 14:00 are due at
    14:30; three hours from 09:00, at 12:00.
``work_day`` (工作日)
    Runs in the working periods too. Due at the same position N working days later: Thursday 10:00 and two working days
    give Monday 10:00. A start outside working time counts from the next working moment: Friday 18:00 and one working
    day give Tuesday 08:30.

Where working days differ in length, a position is the share of the day's working time that has passed: half way through
a full Friday plus one day is half way through a short Saturday. The N-th working day is thus always the one on which a
case is due.

A pause (挂账, suspension) stops the clock. Source of the units: the time limits of digital urban management
(数字化城市管理); which limit goes with which filing condition is configuration, see ``reports/data/categories.yaml``.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from math import lcm
from typing import Annotated, Literal, NamedTuple, Protocol, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from core.clock import EPOCH, SHANGHAI

Unit = Literal["urgent_hour", "work_hour", "work_day", "natural_day"]
Pause = tuple[datetime, datetime | None]
"""From when until when the clock stands still; ``None`` where the end is not known yet."""

_MICROSECOND = timedelta(microseconds=1)
_HOUR = 3_600_000_000  # microseconds, as everything below
_DAY = 24 * _HOUR
_NEVER = 1 << 63
_SHARES = 10**9


class ClockStopped(ValueError):
    """A pause without an end begins before the limit is used up: there is no due moment until it ends."""


class Limit(BaseModel):
    """A time limit: so many hours or days on the clock of ``unit``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: int = Field(ge=1, le=8784)  # the hours of a leap year: anything longer is a slip of the pen
    unit: Unit

    @property
    def clock_time(self) -> timedelta:
        """The limit as its clock shows it; ``timedelta(days=1)`` is one working day for ``work_day``."""
        return timedelta(hours=self.value) if self.unit.endswith("_hour") else timedelta(days=self.value)


def _quoted(value: object) -> object:
    # YAML 1.1 reads an unquoted 14:00 as the number 840, which would pass for fourteen minutes past midnight.
    if isinstance(value, int | float):
        raise ValueError('a time of day is a text in quotes, such as "14:00"')
    return value


TimeOfDay = Annotated[time, BeforeValidator(_quoted)]
Periods = tuple[tuple[TimeOfDay, TimeOfDay], ...]


class UnitClock(Protocol):
    """What a unit counts: never falling as moments pass, still while the unit does not run."""

    one: int
    """How far the clock moves in one unit."""

    def read(self, moment: int) -> int:
        """What the clock shows at ``moment`` (microseconds since 1970, UTC)."""

    def when(self, reading: int) -> int:
        """A moment at which the clock shows ``reading``."""


class _Continuous:
    def __init__(self, one: int) -> None:
        self.one = one

    def read(self, moment: int) -> int:
        return moment

    def when(self, reading: int) -> int:
        return reading


class _Stretch(NamedTuple):
    """One working period of one day."""

    begin: int  # since 1970, UTC
    length: int
    worked: int  # working time of the calendar before ``begin``
    worked_today: int  # of that, on this day
    days: int  # working days before this one
    day_length: int  # working time of this day


class _Stretches:
    """The stretches of a calendar in columns: those of some decades as tuples would take ten megabytes a process."""

    def __init__(self, stretches: Iterable[_Stretch]) -> None:
        self._columns = tuple(array("q") for _ in _Stretch._fields)
        for stretch in stretches:
            for column, value in zip(self._columns, stretch, strict=True):
                column.append(value)
        self.begins = self._columns[0]

    def __len__(self) -> int:
        return len(self.begins)

    def __getitem__(self, at: int) -> _Stretch:
        begin, length, worked, worked_today, days, day_length = self._columns
        return _Stretch(begin[at], length[at], worked[at], worked_today[at], days[at], day_length[at])

    def __iter__(self) -> Iterator[_Stretch]:
        return map(_Stretch, *self._columns)


class _WorkingTime:
    """Working time since the calendar began. ``when`` is the earliest moment."""

    one = _HOUR

    def __init__(self, stretches: _Stretches, first_year: int, last_year: int) -> None:
        self._stretches = stretches
        self._begins = stretches.begins
        self._readings = [self._reading(stretch, 0) for stretch in stretches]
        self._years = f"the work calendar covers the years {first_year} to {last_year} only"
        self._first = _micros(datetime(first_year, 1, 1, tzinfo=SHANGHAI))
        self._end = _micros(datetime(last_year + 1, 1, 1, tzinfo=SHANGHAI))

    def read(self, moment: int) -> int:
        if not self._first <= moment < self._end:
            raise ValueError(self._years)
        stretch = self._stretches[max(bisect_right(self._begins, moment) - 1, 0)]
        # Below zero on the free days before the first stretch of all.
        return self._reading(stretch, max(0, min(moment - stretch.begin, stretch.length)))

    def when(self, reading: int) -> int:
        stretch = self._stretches[max(bisect_left(self._readings, reading) - 1, 0)]
        return self._covered(stretch, reading - stretch.worked)

    def _reading(self, stretch: _Stretch, past: int) -> int:
        return stretch.worked + past

    def _covered(self, stretch: _Stretch, past: int) -> int:
        # Only of the last stretch of all can more be asked than it has.
        if past > stretch.length:
            raise ValueError(self._years)
        return stretch.begin + past


class _WorkingDays(_WorkingTime):
    """Working days since the calendar began. ``when`` is the latest moment, in working time.

    One working day is the least common multiple of all day lengths, so that every reading is exact. Only a moment on a
    day of another length may fall between two microseconds; it is rounded up.
    """

    def __init__(self, stretches: _Stretches, first_year: int, last_year: int) -> None:
        self.one = lcm(*{stretch.day_length for stretch in stretches})
        super().__init__(stretches, first_year, last_year)

    def when(self, reading: int) -> int:
        stretch = self._stretches[bisect_right(self._readings, reading) - 1]
        worked_today = -((stretch.days * self.one - reading) * stretch.day_length // self.one)
        return self._covered(stretch, worked_today - stretch.worked_today)

    def _reading(self, stretch: _Stretch, past: int) -> int:
        return stretch.days * self.one + (stretch.worked_today + past) * (self.one // stretch.day_length)


class WorkCalendar(BaseModel):
    """The working time of a district, in Asia/Shanghai.

    ``periods`` are the hours of an ordinary working day, in order; an end of 00:00 is the midnight that closes the day.
    ``weekday_periods`` gives weekdays (Monday 0) other hours; unless it says otherwise, Saturday and Sunday have none.
    ``holidays`` have no hours; ``makeup_workdays`` (调休) have those of an ordinary day whatever their weekday. Both
    come from the State Council's yearly notice (国务院办公厅关于部分节假日安排的通知): a year whose notice is missing
    here knows only weekends.

    The calendar reaches from ``first_year`` to ``last_year``; beyond, the working clocks raise ``ValueError``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    periods: Periods = ((time(8, 30), time(12)), (time(14), time(17, 30)))
    weekday_periods: dict[Annotated[int, Field(ge=0, le=6)], Periods] = Field(default_factory=dict)
    holidays: frozenset[date] = frozenset()
    makeup_workdays: frozenset[date] = frozenset()
    first_year: int = Field(default=2020, ge=1992)  # China kept summer time until 1991; since then it is UTC+8
    last_year: int = Field(default=2045, le=2200)

    _clocks: dict[Unit, UnitClock] = PrivateAttr()

    @model_validator(mode="after")
    def _wind_up(self) -> Self:
        if both := self.holidays & self.makeup_workdays:
            raise ValueError(f"both a holiday and a make-up workday: {min(both)}")
        if not self.periods:
            raise ValueError("an ordinary working day needs at least one period")
        stretches = _Stretches(self._stretches())
        if not len(stretches):
            raise ValueError("the calendar has no working day")
        years = self.first_year, self.last_year
        self._clocks = {
            "urgent_hour": _Continuous(_HOUR),
            "natural_day": _Continuous(_DAY),
            "work_hour": _WorkingTime(stretches, *years),
            "work_day": _WorkingDays(stretches, *years),
        }
        return self

    def clock(self, unit: Unit) -> UnitClock:
        """The clock that ``unit`` runs on."""
        return self._clocks[unit]

    def is_working(self, moment: datetime) -> bool:
        """Whether ``moment`` lies in a working period, its beginning included and its end not."""
        clock, at = self._clocks["work_hour"], _micros(moment)
        return clock.read(at + 1) > clock.read(at)

    def _stretches(self) -> Iterator[_Stretch]:
        ordinary = _spans(self.periods)
        by_weekday = [ordinary] * 5 + [[], []]
        for weekday, periods in self.weekday_periods.items():
            by_weekday[weekday] = _spans(periods)
        midnight = _micros(datetime(self.first_year, 1, 1, tzinfo=SHANGHAI))
        worked = days = 0
        for ordinal in range(date(self.first_year, 1, 1).toordinal(), date(self.last_year + 1, 1, 1).toordinal()):
            day = date.fromordinal(ordinal)
            if day in self.makeup_workdays:
                spans = ordinary
            else:
                spans = [] if day in self.holidays else by_weekday[day.weekday()]
            day_length = sum(length for _, length in spans)
            worked_today = 0
            for opening, length in spans:
                yield _Stretch(midnight + opening, length, worked + worked_today, worked_today, days, day_length)
                worked_today += length
            worked += day_length
            days += bool(spans)
            midnight += _DAY


def due_at(start: datetime, limit: Limit, calendar: WorkCalendar, pauses: Sequence[Pause] = ()) -> datetime:
    """The moment (UTC) until which a case that began at ``start`` is in time.

    ``pauses`` may overlap, touch, come in any order and cover ``start``. Raises :class:`ClockStopped` where a pause
    without an end comes first, ``ValueError`` where a pause ends before it begins or the calendar does not reach, and
    ``TypeError`` for a moment without a time zone.
    """
    return reached_at(start, limit, 100, calendar, pauses)


def reached_at(
    start: datetime, limit: Limit, percent: int, calendar: WorkCalendar, pauses: Sequence[Pause] = ()
) -> datetime:
    """The moment (UTC) at which ``percent`` of the limit are used up: for 100, when the case is due.

    Found by the rules of :func:`due_at`, rounded up to a microsecond of the clock, and raising as it does.
    """
    clock = calendar.clock(limit.unit)
    cursor = _micros(start)
    left = -(-limit.value * clock.one * percent // 100)
    for pause_begin, pause_end in _merged(pauses) if pauses else ():
        if pause_end <= cursor:
            continue
        if pause_begin > cursor:
            due = clock.when(clock.read(cursor) + left)
            if due <= pause_begin:
                return _moment(due)
            left -= clock.read(pause_begin) - clock.read(cursor)
        if pause_end == _NEVER:
            raise ClockStopped("the clock is stopped and no end of the pause is known")
        cursor = pause_end
    return _moment(clock.when(clock.read(cursor) + left))


def elapsed(
    start: datetime, end: datetime, unit: Unit, calendar: WorkCalendar, pauses: Sequence[Pause] = ()
) -> timedelta:
    """How far the clock of ``unit`` ran from ``start`` to ``end``, in whole milliseconds, pauses left out.

    For ``work_day`` a ``timedelta(days=1)`` is one working day. At the due moment it equals
    :attr:`Limit.clock_time`. Raises ``ValueError`` if ``end`` is before ``start``, and as :func:`due_at` does.
    """
    clock, begin, finish = calendar.clock(unit), _micros(start), _micros(end)
    if finish < begin:
        raise ValueError("the end is before the start")
    shown_as = _HOUR if unit.endswith("_hour") else _DAY
    # Cut, not rounded: a due moment on a day of another length was rounded up, and that much is not time used.
    return timedelta(milliseconds=_run(clock, begin, finish, pauses) * shown_as // clock.one // 1000)


def elapsed_share(
    start: datetime, limit: Limit, calendar: WorkCalendar, at: datetime, pauses: Sequence[Pause] = ()
) -> float:
    """The share of ``limit`` that is used up at ``at``, pauses left out: 0.0 at the start, above 1.0 when overdue.

    Cut to nine decimals: below 1.0 as long as any of the limit is left, and exactly 1.0 at :func:`due_at`. A limit in
    working time stays at 1.0 until working time goes on. Before the start it is 0.0, since the clocks of two machines
    differ. Raises as :func:`elapsed` does.
    """
    clock, begin, finish = calendar.clock(limit.unit), _micros(start), _micros(at)
    if finish <= begin:
        return 0.0
    return _run(clock, begin, finish, pauses) * _SHARES // (limit.value * clock.one) / _SHARES


def remaining(
    start: datetime, now: datetime, limit: Limit, calendar: WorkCalendar, pauses: Sequence[Pause] = ()
) -> timedelta:
    """What is left of ``limit`` at ``now`` on its own clock; below zero when overdue. Raises as :func:`elapsed`."""
    return limit.clock_time - elapsed(start, now, limit.unit, calendar, pauses)


def _run(clock: UnitClock, begin: int, finish: int, pauses: Sequence[Pause]) -> int:
    """How far ``clock`` ran from ``begin`` to ``finish``, not counting the pauses."""
    total = clock.read(finish) - clock.read(begin)
    for pause_begin, pause_end in _merged(pauses) if pauses else ():
        paused_from, paused_to = max(pause_begin, begin), min(pause_end, finish)
        if paused_from < paused_to:
            total -= clock.read(paused_to) - clock.read(paused_from)
    return total


def _micros(moment: datetime) -> int:
    return (moment - EPOCH) // _MICROSECOND


def _moment(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def _merged(pauses: Iterable[Pause]) -> list[tuple[int, int]]:
    """The pauses in order, those that overlap or touch made one, empty ones left out."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted((_micros(b), _NEVER if e is None else _micros(e)) for b, e in pauses):
        if end < begin:
            raise ValueError("a pause ends before it begins")
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        elif begin < end:
            merged.append((begin, end))
    return merged


def _spans(periods: Periods) -> list[tuple[int, int]]:
    """Working periods of a day as (opening, length) in microseconds since midnight."""
    spans: list[tuple[int, int]] = []
    closed = 0
    for opens, closes in periods:
        opening, closing = _of_day(opens), _of_day(closes) or _DAY
        if not closed <= opening < closing:
            raise ValueError(f"the working period {opens} to {closes} is empty or out of order")
        spans.append((opening, closing - opening))
        closed = closing
    return spans


def _of_day(t: time) -> int:
    return ((t.hour * 60 + t.minute) * 60 + t.second) * 1_000_000 + t.microsecond
