"""What a case has been through (里程碑), kept on the case so that figures are read and not gathered from timelines.

A row of the table says by its ``marks`` which of it it writes; the update that takes the step carries it.

``milestones`` on a case: moments (``filed_at``, ``dispatched_at`` the first time, ``dispatch_due_at``,
``accepted_at``, ``handled_at`` and ``closed_at`` the last time, ``close_due_at``, ``reopened_at``), who did it
(``filed_by`` and so on: the id of a member of staff, or "system"), counts (``refusals``, ``redispatches``, ``reworks``,
``extensions``, ``suspensions``, ``urges``, ``reopenings``, ``appeals``), and ``exempt``: being late is left out of the
figures, as an appeal has been granted. Cases written before these were kept lack some or all of it:
:func:`milestones` gives what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from worktime.limits import Limit, WorkCalendar, due_at

Document = dict[str, Any]

Mark = Literal[
    "filed", "dispatched", "accepted", "handled", "closed", "refused", "reworked", "reopened",
    "extended", "suspended", "urged", "appealed", "exempt",
]  # fmt: skip

_MOMENTS: dict[Mark, tuple[str, ...]] = {
    "filed": ("filed_at", "filed_by"),
    "dispatched": ("dispatched_at", "dispatched_by"),
    "accepted": ("accepted_at",),
    "handled": ("handled_at", "handled_by"),
    "closed": ("closed_at", "closed_by"),
    "reopened": ("reopened_at",),
}
_COUNTS: dict[Mark, str] = {
    "refused": "refusals",
    "reworked": "reworks",
    "reopened": "reopenings",
    "extended": "extensions",
    "suspended": "suspensions",
    "urged": "urges",
    "appealed": "appeals",
}


def no_milestones() -> Document:
    """Those of a case that was just submitted."""
    moments: Document = dict.fromkeys(
        [*(name for names in _MOMENTS.values() for name in names), "dispatch_due_at", "close_due_at"]
    )
    return {**moments, **dict.fromkeys([*_COUNTS.values(), "redispatches"], 0), "exempt": False}


def milestones(report: Mapping[str, Any]) -> Document:
    """Those of ``report``, whenever it was written."""
    return {**no_milestones(), **(report.get("milestones") or {})}


def judged_by(
    marks: Iterable[Mark],
    report: Mapping[str, Any],
    moment: datetime,
    calendar: WorkCalendar,
    *,
    dispatch: Limit,
    closing: Limit,
) -> Document:
    """Until when the centre has to dispatch a case that is filed, and to close one that is handled, by their paths.

    What has been dispatched once is not judged a second time.
    """
    limits: Document = {}
    if "filed" in marks and milestones(report)["dispatched_at"] is None:
        limits["milestones.dispatch_due_at"] = due_at(moment, dispatch, calendar)
    if "handled" in marks:
        limits["milestones.close_due_at"] = due_at(moment, closing, calendar)
    return limits


def marked(
    marks: Iterable[Mark], report: Mapping[str, Any], by: str | None, moment: datetime
) -> tuple[Document, dict[str, int]]:
    """What ``marks`` write on ``report``: (fields to set, fields to count up), by their paths.

    The first dispatch stays as it was: what comes after it counts as dispatching again.
    """
    present, fields, counts = milestones(report), Document(), {}
    for mark in marks:
        if mark == "dispatched" and present["dispatched_at"] is not None:
            counts["milestones.redispatches"] = 1
            continue
        fields |= {f"milestones.{name}": by if name.endswith("_by") else moment for name in _MOMENTS.get(mark, ())}
        if mark in _COUNTS:
            counts[f"milestones.{_COUNTS[mark]}"] = 1
        if mark == "exempt":
            fields["milestones.exempt"] = True
    return fields, counts
