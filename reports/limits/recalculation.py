"""What a change of the calendar does to running cases: their limits, and the centre's own, are counted anew.

A day that becomes a day off or a working day owes ``recount``, which is paid in pieces: first what units have to
handle, then what the centre has to dispatch and to close. Killed anywhere it goes on where it was; what was counted
twice is right the second time. What is late already stays late: that is a fact, and for what was nobody's fault there
is the appeal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

import structlog
from pymongo import ASCENDING, UpdateOne

from core.clock import SHANGHAI, now
from core.database import Database
from core.queue.debts import Amendment, Document, Payment, owe
from reports.lifecycle.guards import Policy
from reports.lifecycle.milestones import milestones
from reports.lifecycle.running_limit import RunningLimit, stored
from reports.lifecycle.timeline import new_entry
from reports.limits.warnings import BY, local
from reports.states import OPEN, State
from worktime.calendar import CalendarService
from worktime.limits import Limit, WorkCalendar, due_at

log = structlog.get_logger(__name__)

_PIECE = 500
_WORKING = ("work_hour", "work_day")
_CLOCK = dict.fromkeys(
    ("state", "limit", "clock", "pauses", "due_at", "handled_at", "created_at", "milestones", "warn_at",
     "warn_percent"), 1
)  # fmt: skip
"""What of a case its clocks are read from."""


@dataclass(frozen=True)
class _Stage:
    """Some of the running cases, in the order in which they are counted, and what puts one right."""

    query: Document
    order: str
    hint: str
    recounted: Callable[[Document, WorkCalendar], UpdateOne | None]


class LimitRecalculation:
    """Counts running limits anew."""

    def __init__(self, database: Database, *, calendar: CalendarService, policy: Policy) -> None:
        self._reports = database["reports"]
        self._calendar = calendar
        self._policy = policy

    async def pay_recount(self, day: Document, debt: Document) -> Payment:
        """Count anew what is due on or after ``day``; a piece each time."""
        stages = self._stages(datetime.combine(date.fromisoformat(day["_id"]), time(), SHANGHAI))
        name = debt.get("stage", "handling")
        stage = stages[name]
        query, order = dict(stage.query), stage.order
        if debt["after"] is not None:
            at, number = debt["after"]
            query["$or"] = [{order: {"$gt": at}}, {order: at, "_id": {"$gt": number}}]
            query[order] = {"$gte": max(at, query[order]["$gte"]) if order in query else at}
        in_order = [(order, ASCENDING), ("_id", ASCENDING)]
        cases = self._reports.find(query, _CLOCK).sort(in_order).hint(stage.hint).limit(_PIECE)
        found = await cases.to_list(_PIECE)
        calendar = await self._calendar.current()
        updates = [update for report in found if (update := stage.recounted(report, calendar)) is not None]
        changed = (await self._reports.bulk_write(updates, ordered=False)).modified_count if updates else 0
        sums = {"counted": debt["counted"] + len(found), "changed": debt["changed"] + changed}
        # Those that were moved on come by again and are then as they should be; none is passed over.
        after = [found[-1][order], found[-1]["_id"]] if len(found) == _PIECE else None
        following = name if after else next(iter(list(stages)[list(stages).index(name) + 1 :]), None)
        amendment = Amendment(set={"recount": {**sums, "done_at": None if following else now()}})
        if following:
            amendment.owe = [owe("recount", stage=following, after=after, **sums)]
        else:
            log.info("day_changes.recounted", day=day["_id"], **sums)
        return Payment(amendment)

    def _stages(self, begins: datetime) -> dict[str, _Stage]:
        # The centre's limits have no index of their own: what waits for it is a small part of all cases.
        future = max(begins, now())
        to_dispatch = {"milestones.dispatched_at": None, "milestones.dispatch_due_at": {"$gte": future}}
        to_close = {"state": State.HANDLED, "milestones.close_due_at": {"$gte": future}}
        dispatching = self._of_the_centre("dispatch_due_at", "filed_at", self._policy.dispatch_limit, "派遣时限")
        closing = self._of_the_centre("close_due_at", "handled_at", self._policy.closing_limit, "结案时限")
        return {
            "handling": _Stage(
                {"late": False, "handled_at": None, "due_at": {"$gte": begins}}, "due_at", "running_due", _recounted
            ),
            "dispatching": _Stage(
                {"state": {"$in": [State.FILED, State.AT_STREET]}, **to_dispatch}, "created_at", "state", dispatching
            ),
            "closing": _Stage(to_close, "created_at", "state", closing),
        }

    @staticmethod
    def _of_the_centre(
        name: str, since: str, limit: Limit, says: str
    ) -> Callable[[Document, WorkCalendar], UpdateOne | None]:
        """What puts the limit ``name`` of a case right, which runs from its milestone ``since``."""

        def recounted(report: Document, calendar: WorkCalendar) -> UpdateOne | None:
            past = milestones(report)
            begun, was = past[since], past[name]
            if begun is None or limit.unit not in _WORKING:
                return None
            due = stored(due_at(begun, limit, calendar))
            # It was counted from a moment that is stored to the millisecond.
            if abs(due - was) < timedelta(seconds=1):
                return None
            path = f"milestones.{name}"
            return _moved(report, says, was, due, {path: due}, {path: was, "state": report["state"]})

        return recounted


def _recounted(report: Document, calendar: WorkCalendar) -> UpdateOne | None:
    """What puts the due time of ``report`` right by ``calendar``, if it is not."""
    running = RunningLimit.of(report)
    if running is None or running.limit.unit not in _WORKING or report["state"] not in OPEN:
        return None
    percent = report.get("warn_percent")
    try:
        due = running.due_at(calendar)
        warn = {} if percent is None else {"warn_at": running.reached_at(percent, calendar)}
    except ValueError:
        log.exception("day_changes.failed", report=report["_id"])
        return None
    if due == report["due_at"]:
        return None
    as_read = {"due_at": report["due_at"], "warn_percent": percent, "late": False, "handled_at": None}
    return _moved(report, "处置时限", report["due_at"], due, {"due_at": due, **warn}, as_read)


def _moved(
    report: Document, name: str, was: datetime, due: datetime, fields: dict[str, Any], as_read: Document
) -> UpdateOne:
    """The update by which a limit moves, with its entry; nothing where the clock has been set otherwise meanwhile."""
    moment, state = now(), State(report["state"])
    says = f"工作日历有调整，{name}由{local(was)}改为{local(due)}"
    entry = new_entry("recount", "时限调整", says, BY, state, state, moment)
    amendment = Amendment(set={**fields, "updated_at": moment}, push={"timeline": [entry]})
    return UpdateOne({"_id": report["_id"], **as_read}, amendment.pipeline())
