"""The four clocks of time limits, by example, by law, and against a slow recount minute by minute."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.clock import SHANGHAI
from worktime.limits import (
    ClockStopped,
    Limit,
    Pause,
    Unit,
    WorkCalendar,
    due_at,
    elapsed,
    elapsed_share,
    reached_at,
    remaining,
)

UNITS: tuple[Unit, ...] = ("urgent_hour", "work_hour", "work_day", "natural_day")

# The holidays and make-up workdays of 2026 as the State Council announced them, and a new year beyond them.
SPRING_FESTIVAL = {date(2026, 2, day) for day in range(15, 24)}
NATIONAL_DAY = {date(2026, 10, day) for day in range(1, 8)}
NEW_YEAR = {date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3), date(2027, 1, 1)}
MAKEUP = {date(2026, 1, 4), date(2026, 2, 14), date(2026, 2, 28), date(2026, 9, 20), date(2026, 10, 10)}

DISTRICT = WorkCalendar(
    holidays=frozenset(SPRING_FESTIVAL | NATIONAL_DAY | NEW_YEAR),
    makeup_workdays=frozenset(MAKEUP),
    first_year=2025,
    last_year=2028,
)
# Days of unequal length: a short Friday, a Saturday morning, an evening shift up to midnight on Mondays.
UNEQUAL = WorkCalendar(
    periods=((time(8), time(12)), (time(14), time(18))),
    weekday_periods={
        0: ((time(9), time(11, 40)), (time(13), time(17)), (time(19), time(0))),
        4: ((time(8, 30), time(11, 37)),),
        5: ((time(9), time(12)),),
    },
    holidays=DISTRICT.holidays,
    makeup_workdays=DISTRICT.makeup_workdays,
    first_year=2025,
    last_year=2028,
)

calendars = st.sampled_from([DISTRICT, UNEQUAL])
limits = st.builds(Limit, value=st.integers(1, 40), unit=st.sampled_from(UNITS))


def _moments(first: datetime, last: datetime) -> st.SearchStrategy[datetime]:
    anywhere = st.datetimes(first, last)
    # The edges of working periods are where mistakes live.
    edges = st.builds(
        lambda day, at, ms: datetime.combine(day, at) + timedelta(milliseconds=ms),
        st.dates(first.date(), last.date()),
        st.sampled_from([time(8), time(8, 30), time(9), time(12), time(14), time(17, 30), time(18), time(0)]),
        st.sampled_from([-1, 0, 1]),
    )
    return (anywhere | edges).map(lambda moment: moment.replace(tzinfo=SHANGHAI))


moments = _moments(datetime.fromisoformat("2025-12-01"), datetime.fromisoformat("2027-01-31"))
spans = st.tuples(moments, st.timedeltas(timedelta(0), timedelta(days=20))).map(lambda p: (p[0], p[0] + p[1]))
pauses_lists: st.SearchStrategy[list[Pause]] = st.lists(spans, max_size=3).map(list)


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI)


def due(start: str, value: int, unit: Unit, calendar: WorkCalendar = DISTRICT, *pauses: Pause) -> str:
    moment = due_at(local(start), Limit(value=value, unit=unit), calendar, pauses)
    return moment.astimezone(SHANGHAI).isoformat(sep=" ", timespec="minutes")[:16]


@pytest.mark.parametrize(
    ("start", "value", "unit", "expected"),
    [
        # 2026-11-13 is a Friday.
        ("2026-11-13 23:00", 2, "urgent_hour", "2026-11-14 01:00"),
        ("2026-02-16 23:00", 2, "urgent_hour", "2026-02-17 01:00"),
        ("2026-11-13 18:00", 3, "natural_day", "2026-11-16 18:00"),
        ("2026-11-13 08:30", 3, "work_hour", "2026-11-13 11:30"),
        ("2026-11-13 09:00", 3, "work_hour", "2026-11-13 12:00"),
        ("2026-11-13 08:30", 4, "work_hour", "2026-11-13 14:30"),
        ("2026-11-13 12:30", 1, "work_hour", "2026-11-13 15:00"),
        ("2026-11-13 16:00", 4, "work_hour", "2026-11-16 11:00"),
        ("2026-11-12 10:00", 2, "work_day", "2026-11-16 10:00"),
        ("2026-11-13 18:00", 1, "work_day", "2026-11-17 08:30"),
        ("2026-11-13 17:30", 1, "work_day", "2026-11-17 08:30"),
        ("2026-11-13 12:00", 1, "work_day", "2026-11-16 14:00"),
        ("2026-11-14 15:00", 2, "work_day", "2026-11-18 08:30"),
        ("2026-12-31 15:00", 1, "work_day", "2027-01-04 15:00"),
        ("2026-12-31 17:00", 1, "work_hour", "2027-01-04 09:00"),
    ],
)
def test_each_unit_is_due_when_its_clock_says(start, value, unit, expected):
    assert due(start, value, unit) == expected


def test_a_makeup_saturday_counts_and_the_long_holiday_after_it_does_not():
    assert due("2026-02-13 10:00", 1, "work_day") == "2026-02-14 10:00"
    assert due("2026-02-14 10:00", 1, "work_day") == "2026-02-24 10:00"
    assert due("2026-02-14 17:00", 1, "work_hour") == "2026-02-24 09:00"
    assert due("2026-02-14 10:00", 1, "work_day", WorkCalendar()) == "2026-02-17 08:30"


def test_a_position_on_a_day_of_another_length_is_the_same_share_of_it():
    # Half way through a full Thursday is noon; half way through the Friday of 187 minutes is 93.5 minutes in.
    assert due("2026-11-12 14:00", 1, "work_day", UNEQUAL) == "2026-11-13 10:03"
    assert due("2026-11-12 14:00", 2, "work_day", UNEQUAL) == "2026-11-14 10:30"


def test_a_working_period_may_close_at_midnight():
    assert due("2026-11-16 23:00", 1, "work_hour", UNEQUAL) == "2026-11-17 00:00"
    assert due("2026-11-16 23:30", 1, "work_hour", UNEQUAL) == "2026-11-17 08:30"


def test_a_pause_moves_the_due_moment_by_the_clock_time_it_covers():
    pause = (local("2026-11-12 11:00"), local("2026-11-12 15:00"))
    assert due("2026-11-12 10:00", 4, "work_hour", DISTRICT, pause) == "2026-11-13 09:00"
    assert due("2026-11-12 10:00", 4, "urgent_hour", DISTRICT, pause) == "2026-11-12 18:00"
    assert due("2026-11-12 11:30", 1, "work_hour", DISTRICT, pause) == "2026-11-12 16:00"
    a_working_day = (local("2026-11-12 14:00"), local("2026-11-13 14:00"))
    assert due("2026-11-12 10:00", 1, "work_day", DISTRICT, a_working_day) == "2026-11-16 10:00"


def test_overlapping_pauses_are_not_counted_twice():
    pauses = [
        (local("2026-11-12 15:00"), local("2026-11-12 16:00")),
        (local("2026-11-12 14:30"), local("2026-11-12 15:30")),
    ]
    assert due("2026-11-12 14:00", 1, "work_hour", DISTRICT, *pauses) == "2026-11-12 16:30"
    assert elapsed(local("2026-11-12 14:00"), local("2026-11-12 17:00"), "work_hour", DISTRICT, pauses) == timedelta(
        hours=1.5
    )


def test_a_pause_after_the_due_moment_changes_nothing():
    assert due("2026-11-12 10:00", 2, "work_hour", DISTRICT, (local("2026-11-12 12:00"), None)) == "2026-11-12 12:00"


def test_a_pause_without_an_end_leaves_no_due_moment_and_stops_the_time_used():
    start, pause = local("2026-11-12 10:00"), (local("2026-11-12 11:00"), None)
    limit = Limit(value=2, unit="work_hour")
    with pytest.raises(ClockStopped):
        due_at(start, limit, DISTRICT, [pause])
    assert remaining(start, local("2026-11-20 11:00"), limit, DISTRICT, [pause]) == timedelta(hours=1)


def test_what_remains_is_told_on_the_limits_own_clock_and_falls_below_zero():
    start = local("2026-11-13 14:00")
    two_days = Limit(value=2, unit="work_day")
    assert remaining(start, local("2026-11-15 03:00"), two_days, DISTRICT) == timedelta(days=1.5)
    assert remaining(start, local("2026-11-18 14:00"), two_days, DISTRICT) == timedelta(days=-1)
    assert remaining(start, local("2026-11-16 09:00"), Limit(value=4, unit="work_hour"), DISTRICT) == timedelta(0)


def test_what_cannot_be_answered_is_refused():
    start, limit = local("2026-11-12 10:00"), Limit(value=1, unit="work_day")
    with pytest.raises(TypeError):
        due_at(start.replace(tzinfo=None), limit, DISTRICT)
    with pytest.raises(ValueError, match="covers the years"):
        due_at(local("2024-12-31 10:00"), limit, DISTRICT)
    with pytest.raises(ValueError, match="covers the years"):
        due_at(local("2028-12-29 10:00"), Limit(value=3, unit="work_day"), DISTRICT)
    with pytest.raises(ValueError, match="covers the years"):
        due_at(local("2028-12-29 10:00"), Limit(value=30, unit="work_hour"), DISTRICT)
    with pytest.raises(ValueError, match="before it begins"):
        due_at(start, limit, DISTRICT, [(start, start - timedelta(hours=1))])
    with pytest.raises(ValueError, match="before the start"):
        elapsed(start, start - timedelta(seconds=1), "work_hour", DISTRICT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"periods": []},
        {"periods": [["12:00", "08:30"]]},
        {"periods": [["08:30", "12:00"], ["11:00", "17:30"]]},
        {"periods": [[510, 720]]},  # what YAML makes of 8:30 and 12:00 without quotes
        {"weekday_periods": {7: [["08:30", "12:00"]]}},
        {"holidays": ["2026-10-01"], "makeup_workdays": ["2026-10-01"]},
        {"weekday_periods": {day: [] for day in range(7)}},
        {"first_year": 2027, "last_year": 2026},
    ],
)
def test_a_calendar_that_contradicts_itself_is_refused(wrong):
    with pytest.raises(ValidationError):
        WorkCalendar.model_validate(wrong)


@pytest.mark.parametrize("wrong", [{"value": 0, "unit": "work_day"}, {"value": 1, "unit": "week"}, {"value": 1}])
def test_a_limit_that_no_clock_can_run_is_refused(wrong):
    with pytest.raises(ValidationError):
        Limit.model_validate(wrong)


def test_a_calendar_reads_from_configuration_text():
    calendar = WorkCalendar.model_validate_json(
        '{"periods": [["08:30", "12:00"], ["14:00", "17:30"]], "holidays": ["2026-10-01"]}'
    )
    assert not calendar.is_working(local("2026-10-01 09:00"))
    assert calendar.is_working(local("2026-09-30 08:30"))
    assert not calendar.is_working(local("2026-09-30 12:00"))


@given(moments, moments, limits, calendars, pauses_lists)
def test_a_later_start_is_never_due_earlier(one, other, limit, calendar, pauses):
    first, second = sorted((one, other))
    assert due_at(first, limit, calendar, pauses) <= due_at(second, limit, calendar, pauses)


@given(moments, limits, calendars, pauses_lists)
def test_a_longer_limit_is_due_later(start, limit, calendar, pauses):
    longer = Limit(value=limit.value + 1, unit=limit.unit)
    due_moment = due_at(start, limit, calendar, pauses)
    assert start < due_moment < due_at(start, longer, calendar, pauses)
    assert due_moment.tzinfo is UTC


@given(moments, st.integers(1, 20), st.integers(1, 20), st.sampled_from(UNITS), pauses_lists)
def test_two_limits_one_after_the_other_are_their_sum(start, a, b, unit, pauses):
    in_two = due_at(
        due_at(start, Limit(value=a, unit=unit), DISTRICT, pauses), Limit(value=b, unit=unit), DISTRICT, pauses
    )
    assert in_two == due_at(start, Limit(value=a + b, unit=unit), DISTRICT, pauses)


@given(moments, st.integers(1, 40), st.sampled_from(["work_hour", "work_day"]), calendars, pauses_lists)
def test_a_working_limit_never_falls_due_outside_working_time(start, value, unit, calendar, pauses):
    due_moment = due_at(start, Limit(value=value, unit=unit), calendar, pauses)
    just_before = due_moment - timedelta(microseconds=1)
    assert calendar.is_working(just_before) or (unit == "work_day" and calendar.is_working(due_moment))


@given(moments, limits, calendars, pauses_lists)
def test_at_the_due_moment_the_limit_is_used_up_exactly(start, limit, calendar, pauses):
    due_moment = due_at(start, limit, calendar, pauses)
    assert elapsed(start, due_moment, limit.unit, calendar, pauses) == limit.clock_time
    assert remaining(start, due_moment, limit, calendar, pauses) == timedelta(0)


def test_the_share_used_up_is_told_on_the_limits_own_clock():
    start, limit = local("2026-11-13 14:00"), Limit(value=4, unit="work_hour")
    shares = [
        (at, elapsed_share(start, limit, DISTRICT, local(at)))
        for at in ("2026-11-13 13:00", "2026-11-13 15:00", "2026-11-15 12:00", "2026-11-16 09:00", "2026-11-16 11:30")
    ]
    assert shares == [
        ("2026-11-13 13:00", 0.0),
        ("2026-11-13 15:00", 0.25),
        ("2026-11-15 12:00", 0.875),
        ("2026-11-16 09:00", 1.0),
        ("2026-11-16 11:30", 1.625),
    ]
    stopped = [(local("2026-11-13 15:00"), None)]
    assert elapsed_share(start, limit, DISTRICT, local("2026-12-24 11:30"), stopped) == 0.25


def test_a_share_of_the_limit_is_reached_when_its_clock_says():
    start = local("2026-11-13 14:00")
    assert reached_at(start, Limit(value=4, unit="work_hour"), 50, DISTRICT) == local("2026-11-13 16:00")
    assert reached_at(start, Limit(value=4, unit="work_hour"), 80, DISTRICT) == local("2026-11-13 17:12")
    assert reached_at(start, Limit(value=2, unit="work_day"), 80, DISTRICT) == local("2026-11-17 09:12")
    assert reached_at(start, Limit(value=10, unit="urgent_hour"), 50, DISTRICT) == local("2026-11-13 19:00")
    assert reached_at(start, Limit(value=10, unit="urgent_hour"), 150, DISTRICT) == local("2026-11-14 05:00")


@given(moments, limits, st.integers(1, 200), calendars, pauses_lists)
def test_at_the_moment_when_a_share_is_reached_that_share_is_used_up(start, limit, percent, calendar, pauses):
    share = elapsed_share(start, limit, calendar, reached_at(start, limit, percent, calendar, pauses), pauses)
    # A part of a limit need not fall on a whole microsecond; the whole limit does.
    assert share == pytest.approx(percent / 100, abs=2e-9)
    assert elapsed_share(start, limit, calendar, due_at(start, limit, calendar, pauses), pauses) == 1.0


@given(moments, limits, calendars, pauses_lists)
def test_shares_are_reached_in_their_order_and_the_last_when_the_case_is_due(start, limit, calendar, pauses):
    reached = [reached_at(start, limit, percent, calendar, pauses) for percent in (1, 50, 80, 100, 101)]
    assert reached == sorted(reached)
    assert reached[3] == due_at(start, limit, calendar, pauses)


@given(moments, moments, moments, limits, calendars, pauses_lists)
def test_the_share_used_up_never_falls(start, one, other, limit, calendar, pauses):
    first, second = sorted((one, other))
    assert elapsed_share(start, limit, calendar, first, pauses) <= elapsed_share(start, limit, calendar, second, pauses)


@given(moments, limits, calendars, spans)
def test_a_pause_moves_the_due_moment_by_exactly_the_clock_time_it_covers(start, limit, calendar, pause):
    paused, plain = due_at(start, limit, calendar, [pause]), due_at(start, limit, calendar)
    covered_from, covered_to = max(pause[0], start), min(pause[1], paused)
    covered = elapsed(covered_from, covered_to, limit.unit, calendar) if covered_from < covered_to else timedelta(0)
    # Both due moments may be rounded up by a part of a microsecond, and what the clock shows is cut to milliseconds.
    assert abs(elapsed(plain, paused, limit.unit, calendar) - covered) <= timedelta(milliseconds=1)


@given(moments, limits, calendars, pauses_lists)
def test_before_the_due_moment_the_case_is_not_overdue(start, limit, calendar, pauses):
    due_moment = due_at(start, limit, calendar, pauses)
    for fraction in (0, 0.25, 0.5, 0.9):
        assert remaining(start, start + fraction * (due_moment - start), limit, calendar, pauses) >= timedelta(0)
    assert remaining(start, due_moment + timedelta(days=30), limit, calendar, pauses) < timedelta(0)


MINUTE = timedelta(minutes=1)


@cache
def _minutes_of(calendar_id: int, day: date) -> frozenset[int]:
    """The working minutes of ``day``, told by hand from the calendar's fields."""
    calendar = (DISTRICT, UNEQUAL)[calendar_id]
    if day in calendar.holidays:
        return frozenset()
    periods = calendar.periods
    if day not in calendar.makeup_workdays:
        periods = calendar.weekday_periods.get(day.weekday(), () if day.weekday() >= 5 else calendar.periods)
    return frozenset(
        minute
        for opens, closes in periods
        for minute in range(opens.hour * 60 + opens.minute, (closes.hour * 60 + closes.minute) or 1440)
    )


class Walk:
    """The time limit counted by walking minute after minute; all moments are whole minutes, local, naive."""

    def __init__(self, unit: Unit, calendar_id: int, pauses: list[tuple[datetime, datetime]]) -> None:
        self._unit = unit
        self._calendar_id = calendar_id
        self._pauses = pauses

    def _works(self, minute: datetime) -> bool:
        return minute.hour * 60 + minute.minute in _minutes_of(self._calendar_id, minute.date())

    def _used_in(self, minute: datetime) -> Fraction:
        """The part of one unit that passes in the minute that begins at ``minute``."""
        if any(begin <= minute < end for begin, end in self._pauses):
            return Fraction(0)
        if self._unit in {"work_hour", "work_day"} and not self._works(minute):
            return Fraction(0)
        if self._unit == "work_day":
            return Fraction(1, len(_minutes_of(self._calendar_id, minute.date())))
        return Fraction(1, 60 if self._unit.endswith("_hour") else 1440)

    def due(self, start: datetime, value: int) -> datetime:
        """When ``value`` units are used up."""
        at, used = start, Fraction(0)
        while used < value:
            step = self._used_in(at)
            if used + step > value:
                return at + float((value - used) / step) * MINUTE
            used += step
            at += MINUTE
        if self._unit == "work_day":  # the same position N days later: never the end of a period, nor within a pause
            while not self._works(at) or any(begin < at < end for begin, end in self._pauses):
                at += MINUTE
        return at

    def used(self, start: datetime, end: datetime) -> Fraction:
        """How many units pass from ``start`` to ``end``."""
        minutes = range(int((end - start) / MINUTE))
        return sum((self._used_in(start + minute * MINUTE) for minute in minutes), Fraction(0))


@given(st.data())
def test_a_slow_recount_minute_by_minute_agrees(data):
    calendar_id = data.draw(st.sampled_from([0, 1]))
    calendar = (DISTRICT, UNEQUAL)[calendar_id]
    # Around the new year, and the spring festival with its make-up days.
    first = datetime.fromisoformat(data.draw(st.sampled_from(["2025-12-30", "2026-02-12", "2026-12-30"])))
    minutes = st.integers(0, 6 * 1440)
    start = first + data.draw(minutes) * MINUTE
    unit = data.draw(st.sampled_from(UNITS))
    limit = Limit(value=data.draw(st.integers(1, 14 if unit.endswith("_hour") else 3)), unit=unit)
    begins = data.draw(st.lists(st.tuples(minutes, st.integers(1, 2 * 1440)), max_size=2))
    pauses = [(first + begin * MINUTE, first + (begin + length) * MINUTE) for begin, length in begins]
    aware: list[Pause] = [(begin.replace(tzinfo=SHANGHAI), end.replace(tzinfo=SHANGHAI)) for begin, end in pauses]
    answer = due_at(start.replace(tzinfo=SHANGHAI), limit, calendar, aware)
    walk = Walk(unit, calendar_id, pauses)
    expected = walk.due(start, limit.value).replace(tzinfo=SHANGHAI)
    # On a day of another length the recount rounds to the nearest microsecond, due_at to the next.
    assert timedelta(0) <= answer - expected <= timedelta(microseconds=1 if calendar is UNEQUAL else 0)
    at = start + data.draw(minutes) * MINUTE
    share = elapsed_share(start.replace(tzinfo=SHANGHAI), limit, calendar, at.replace(tzinfo=SHANGHAI), aware)
    assert share == pytest.approx(float(walk.used(start, at) / limit.value), abs=2e-9)
