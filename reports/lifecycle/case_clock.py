"""What a step does to the time limit (处置时限) of a case: the one place where the clock of a case is set.

What is kept of it on the case, and how ``due_at`` follows from that, is in :mod:`reports.lifecycle.running_limit`;
``handled_at`` and ``late`` say how it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

from core.clock import SHANGHAI
from reports.lifecycle.row import Transition
from reports.lifecycle.running_limit import NO_WARNING, RunningLimit
from reports.models import Condition
from worktime.limits import WorkCalendar

Document = dict[str, Any]


def end_of(day: date) -> datetime:
    """The midnight that closes ``day`` in Asia/Shanghai."""
    return datetime.combine(day + timedelta(days=1), time(), SHANGHAI)


def clock_after(
    row: Transition,
    report: Document,
    moment: datetime,
    calendar: WorkCalendar,
    percents: Sequence[int],
    *,
    condition: Condition | None,
    until: date | None,
) -> Document:
    """The fields of the case that ``row`` changes.

    ``condition`` is in force where the limit starts anew; ``percents`` are the shares of the limit that are warned of.
    """
    pauses = list(report.get("pauses") or ())
    match row.clock:
        case "restarts" if report["due_at"] is None:
            return {}
        case "starts" | "restarts" if condition is not None:
            running = RunningLimit(moment, condition.limit, ())
            return {
                "condition": condition.key,
                "limit": condition.limit.model_dump(),
                "clock": {"started_at": moment, "extensions": 0},
                "due_at": running.due_at(calendar),
                **running.next_warning(percents, calendar, after=0),
                "handled_at": None,
                "late": False,
            }
        case "extends":
            extensions = (report.get("clock") or {}).get("extensions", 0) + 1
            clock = {"started_at": RunningLimit.started(report), "extensions": extensions}
            longer = _running({**report, "clock": clock})
            # Of the longer limit less is used up: it is warned of again at the shares that lie ahead now.
            used = int(longer.share(moment, calendar) * 100)
            warn = longer.next_warning(percents, calendar, after=used)
            return {"clock": clock, "due_at": longer.due_at(calendar), **warn}
        case "stops" if until is not None:
            return _reckoned(report, {"pauses": [*pauses, {"from": moment, "until": end_of(until)}]}, calendar)
        case "resumes":
            return _reckoned(report, {"pauses": _ended(pauses, moment)}, calendar)
        case "ends":
            due = report["due_at"]
            return {"handled_at": moment, "late": due is not None and due < moment, **NO_WARNING}
        case "cancels":
            gone = {"due_at": None, "limit": None, "clock": None, "handled_at": None, "late": False}
            return {**gone, "pauses": _ended(pauses, moment), **NO_WARNING}
        case _:
            return {}


def _ended(pauses: list[Document], moment: datetime) -> list[Document]:
    """The pauses with the last one over by ``moment``."""
    return [{**pause, "until": min(moment, pause["until"] or moment)} for pause in pauses]


def _running(report: Document) -> RunningLimit:
    running = RunningLimit.of(report)
    assert running is not None, "a clock that does not run is neither extended nor stopped"  # noqa: S101
    return running


def _reckoned(report: Document, change: Document, calendar: WorkCalendar) -> Document:
    """``change``, with when the case is due and warned of by it."""
    running = _running({**report, **change})
    percent = report.get("warn_percent")
    warn = {"warn_at": running.reached_at(percent, calendar)} if percent is not None else {}
    return {**change, "due_at": running.due_at(calendar), **warn}
