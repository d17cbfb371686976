"""A case's limit as its document holds it: extensions, suspensions, warnings, and cases of earlier versions."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import SHANGHAI
from reports.lifecycle.running_limit import NO_WARNING, Escalation, RunningLimit, WarningStep
from worktime.limits import WorkCalendar

CALENDAR = WorkCalendar(first_year=2026, last_year=2027)
PERCENTS = (50, 80, 100)


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI)


def case(**fields: Any) -> dict[str, Any]:
    """A case whose limit of four working hours began on a Friday afternoon."""
    begun = local("2026-11-13 14:00")
    return {
        "limit": {"value": 4, "unit": "work_hour"},
        "clock": {"started_at": begun, "extensions": 0},
        "pauses": [],
        "due_at": begun,
        "created_at": begun,
        **fields,
    }


def running(**fields: Any) -> RunningLimit:
    found = RunningLimit.of(case(**fields))
    assert found is not None
    return found


def test_an_extension_adds_the_original_limit_once_more():
    assert running().due_at(CALENDAR) == local("2026-11-16 09:00")
    extended = running(clock={"started_at": local("2026-11-13 14:00"), "extensions": 2})
    assert extended.due_at(CALENDAR) == local("2026-11-17 10:00")
    assert extended.share(local("2026-11-13 17:00"), CALENDAR) == 0.25


def test_a_suspension_moves_the_due_moment_and_the_warnings_and_stops_the_share():
    stopped = running(pauses=[{"from": local("2026-11-13 15:00"), "until": local("2026-11-17 00:00")}])
    assert stopped.due_at(CALENDAR) == local("2026-11-17 11:30")
    assert stopped.reached_at(50, CALENDAR) == local("2026-11-17 09:30")
    assert stopped.share(local("2026-11-16 17:00"), CALENDAR) == 0.25
    assert [stopped.paused(local(at)) for at in ("2026-11-13 14:59", "2026-11-13 15:00", "2026-11-17 00:00")] == [
        False,
        True,
        False,
    ]


def test_a_case_without_a_limit_has_nothing_running():
    assert RunningLimit.of(case(limit=None)) is None
    assert RunningLimit.of(case(due_at=None)) is None
    assert RunningLimit.of({"due_at": None, "created_at": local("2026-11-13 14:00")}) is None


def test_a_case_of_before_clocks_were_kept_runs_since_its_filing_or_its_coming_in():
    old = case()
    for name in ("clock", "pauses"):
        del old[name]
    found = RunningLimit.of(old)
    assert found is not None
    assert found.started_at == old["created_at"]
    filed = RunningLimit.of({**old, "milestones": {"filed_at": local("2026-11-13 15:00")}})
    assert filed is not None
    assert filed.started_at == local("2026-11-13 15:00")


def test_the_warnings_come_in_their_order_and_end():
    limit, waiting = running(), dict[str, Any]()
    order = []
    for _ in range(4):
        waiting = limit.next_warning(PERCENTS, CALENDAR, after=waiting.get("warn_percent") or 0)
        if waiting == NO_WARNING:
            break
        order.append((waiting["warn_percent"], waiting["warn_at"]))
    assert [percent for percent, _ in order] == [50, 80, 100]
    assert [at for _, at in order] == sorted(at for _, at in order)
    assert order[-1][1] == limit.due_at(CALENDAR)


@given(
    st.integers(1, 30),
    st.sampled_from(["urgent_hour", "work_hour", "work_day", "natural_day"]),
    st.integers(0, 2),
    st.integers(0, 20_000),
    st.integers(1, 20_000),
)
def test_what_is_stored_survives_the_database_and_the_share_agrees_with_it(value, unit, extensions, begin, length):
    begun = local("2026-03-02 08:00")
    pause = begun + timedelta(minutes=begin)
    limit = running(
        limit={"value": value, "unit": unit},
        clock={"started_at": begun, "extensions": extensions},
        pauses=[{"from": pause, "until": pause + timedelta(minutes=length)}],
    )
    due = limit.due_at(CALENDAR)
    assert due.microsecond % 1000 == 0
    assert limit.share(due, CALENDAR) == pytest.approx(1.0, abs=1e-6)
    assert limit.share(limit.reached_at(50, CALENDAR), CALENDAR) == pytest.approx(0.5, abs=1e-6)


def test_who_is_told_is_what_the_district_says():
    escalation = Escalation((WarningStep(50, ("unit",)), WarningStep(100, ("unit", "chief"))), ("dispatcher",))
    assert escalation.told(50, has_unit=True) == ("unit",)
    assert escalation.told(50, has_unit=False) == ("unit", "dispatcher")
    assert escalation.told(100, has_unit=True) == ("unit", "chief")
    assert escalation.told(80, has_unit=False) == ()
