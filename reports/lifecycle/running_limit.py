"""The time limit of one case as it runs, and the warnings on the way: pure, from what the case's document holds.

On a case: ``limit`` is the filing condition's, ``clock`` is {started_at, extensions}, ``pauses`` are its suspensions;
``due_at`` follows from these. ``warn_percent`` is the share of the limit that it is warned of next and ``warn_at`` the
moment of that; both are None when nothing runs or all has been said. They are written in the update that sets the
clock, so that a case without its next warning does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from reports.lifecycle.milestones import milestones
from worktime.limits import Limit, Pause, WorkCalendar, due_at, elapsed_share, reached_at

Document = dict[str, Any]

NO_WARNING: Document = {"warn_at": None, "warn_percent": None}


@dataclass(frozen=True)
class RunningLimit:
    """Since when a case's limit runs, how long it is with its extensions, and when it stood still."""

    started_at: datetime
    limit: Limit
    pauses: tuple[Pause, ...]

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Self | None:
        """That of ``report``, whenever it was written; None where no limit was set."""
        if report.get("limit") is None or report["due_at"] is None:
            return None
        clock = report.get("clock") or {}
        limit = Limit(**report["limit"])
        # Not checked again: three times the longest limit that a condition may have is longer than one may be.
        whole = limit.model_copy(update={"value": limit.value * (1 + clock.get("extensions", 0))})
        return cls(cls.started(report), whole, tuple((p["from"], p["until"]) for p in report.get("pauses") or ()))

    @staticmethod
    def started(report: Mapping[str, Any]) -> datetime:
        """Since when the limit of ``report`` runs, whenever it was written."""
        clock = report.get("clock") or {}
        started: datetime = clock.get("started_at") or milestones(report)["filed_at"] or report["created_at"]
        return started

    def due_at(self, calendar: WorkCalendar) -> datetime:
        """When the case is due; as :func:`worktime.limits.due_at`, to the millisecond that is stored."""
        return stored(due_at(self.started_at, self.limit, calendar, self.pauses))

    def reached_at(self, percent: int, calendar: WorkCalendar) -> datetime:
        """When ``percent`` of the limit are used up."""
        return stored(reached_at(self.started_at, self.limit, percent, calendar, self.pauses))

    def share(self, at: datetime, calendar: WorkCalendar) -> float:
        """The share of the limit that is used up at ``at``."""
        return elapsed_share(self.started_at, self.limit, calendar, at, self.pauses)

    def paused(self, at: datetime) -> bool:
        """Whether the clock stands still by a suspension."""
        return any(begin <= at and (end is None or at < end) for begin, end in self.pauses)

    def next_warning(self, percents: Sequence[int], calendar: WorkCalendar, *, after: int) -> Document:
        """The fields of the case that name the warning after the one of ``after`` percent."""
        following = next((p for p in percents if p > after), None)
        if following is None:
            return dict(NO_WARNING)
        return {"warn_at": self.reached_at(following, calendar), "warn_percent": following}


def stored(moment: datetime) -> datetime:
    """``moment`` cut to milliseconds, as MongoDB stores it."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@dataclass(frozen=True)
class WarningStep:
    """At ``percent`` of the limit the staff with one of ``roles`` are told, within reach of the case."""

    percent: int
    roles: tuple[str, ...]


@dataclass(frozen=True)
class Escalation:
    """Who is told when, and who in the unit's place while no unit has the case."""

    steps: tuple[WarningStep, ...] = ()
    without_unit: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ``ValueError`` unless the steps rise."""
        if list(self.percents) != sorted(set(self.percents)):
            raise ValueError("the warnings' percentages must rise from one to the next")

    @property
    def percents(self) -> tuple[int, ...]:
        """The shares that are warned of, rising."""
        return tuple(step.percent for step in self.steps)

    def told(self, percent: int, *, has_unit: bool) -> tuple[str, ...]:
        """The roles that are told at ``percent``; nobody where the district no longer warns of it."""
        roles = next((step.roles for step in self.steps if step.percent == percent), ())
        return roles if has_unit or not roles else tuple(dict.fromkeys([*roles, *self.without_unit]))
