"""What happens to running cases by the clock alone: warnings as their limits run out.

A warning is one conditional update of the case: it takes the moment that was waited for (``warn_at``), sets the next
one, adds a timeline entry that citizens do not see, and owes the notice to staff, which has the entry's id. However
many workers look, and wherever one is killed, each warning is given once. Nothing of it is in Redis.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import structlog
from pymongo import ASCENDING
from pymongo.errors import PyMongoError

from core.clock import EPOCH, clock, now, shanghai
from core.database import Database
from core.queue.debts import Amendment, Document, Payment, owe
from core.timekeeper import Timekeeper
from notices.inbox import StaffInbox, role_addresses
from reports.lifecycle.running_limit import Escalation, RunningLimit
from reports.lifecycle.timeline import new_entry
from reports.models import System
from reports.states import OPEN, State
from worktime.calendar import CalendarService
from worktime.limits import WorkCalendar

log = structlog.get_logger(__name__)

_BATCH = 100
_AT_ONCE = 8
_PUT_OFF = timedelta(hours=1)
_CLOCK = dict.fromkeys(
    ("state", "limit", "clock", "pauses", "due_at", "created_at", "milestones.filed_at", "warn_at", "warn_percent"), 1
)
"""What of a case its clock is read from."""

BY = System("按处置时限")


class TimeLimits:
    """Warns of running limits."""

    def __init__(
        self,
        database: Database,
        *,
        calendar: CalendarService,
        escalation: Escalation,
        inbox: StaffInbox,
        timekeeper: Timekeeper,
    ) -> None:
        self._reports = database["reports"]
        self._calendar = calendar
        self._escalation = escalation
        self._inbox = inbox
        self._timekeeper = timekeeper

    async def run(self, seconds: float) -> None:
        """Give the warnings that are due, every ``seconds``, until cancelled. Every worker may.

        None is given while the clocks of this machine and of the database differ.
        """
        while True:
            try:
                if await self._timekeeper.compare() and (given := await self.warn()):
                    log.info("time_limits.warned", count=given)
            except PyMongoError as error:
                log.warning("time_limits.database", error=type(error).__name__)
            await asyncio.sleep(seconds)

    async def warn(self) -> int:
        """Give every warning that is due; how many this call gave."""
        given = 0
        while due := await self._due():
            calendar = await self._calendar.current()
            slots = asyncio.Semaphore(_AT_ONCE)

            async def take(
                report: Document, calendar: WorkCalendar = calendar, slots: asyncio.Semaphore = slots
            ) -> bool:
                async with slots:
                    try:
                        return await self._take(report, calendar)
                    except PyMongoError:
                        raise
                    except Exception:
                        # One case that cannot be counted must not keep the others from being warned of.
                        log.exception("time_limits.failed", report=report["_id"])
                        await self._put_off(report)
                        return False

            given += sum(await asyncio.gather(*map(take, due)))
        return given

    async def _due(self) -> list[Document]:
        # The lower bound is what the partial index is entered by.
        query = {"warn_at": {"$gt": EPOCH, "$lte": now()}}
        found: list[Document] = (
            await self._reports.find(query, _CLOCK).sort("warn_at", ASCENDING).limit(_BATCH).to_list(_BATCH)
        )
        return found

    async def _take(self, report: Document, calendar: WorkCalendar) -> bool:
        """Give the warning that ``report`` waits for, unless another worker has; whether this one did."""
        moment, percent = now(), report["warn_percent"]
        running = RunningLimit.of(report)
        mine = {"_id": report["_id"], "warn_at": report["warn_at"], "warn_percent": percent}
        if running is None or report["state"] not in OPEN:
            await self._reports.update_one(mine, {"$set": {"warn_at": None, "warn_percent": None}})
            return False
        reached = running.reached_at(percent, calendar)
        if reached > moment:
            # What the clock was set by came while another warning was given: this one's turn is later.
            await self._reports.update_one(mine, {"$set": {"warn_at": reached}})
            return False
        amendment = Amendment(set=running.next_warning(self._escalation.percents, calendar, after=percent))
        if percent in self._escalation.percents:
            says = "处置时限已届满" if percent == 100 else f"处置时限已用 {percent}%"
            entry = new_entry("warn", "时限提醒", says, BY, report["state"], State(report["state"]), moment)
            entry["given"] = {"percent": str(percent)}
            amendment.push["timeline"] = [entry]
            amendment.owe = [owe("warn", entry=entry["id"], percent=percent)]
        # What was over when this was worked out may not be over by the database, whose word counts.
        late = {"$or": ["$late", {"$lte": ["$due_at", clock.now_in_database()]}]}
        result = await self._reports.update_one(mine, [*amendment.pipeline(), {"$set": {"late": late}}])
        return bool(result.modified_count and amendment.owe)

    async def take_back(self) -> int:
        """Take the mark from cases that are late by a clock that was ahead: their limit is not over. How many.

        They are warned of again at the shares that lie ahead, as if nothing had been. Called by the timetable.
        """
        wrong = {"late": True, "handled_at": None, "due_at": {"$gt": now()}, "state": {"$in": OPEN}}
        taken_back, left = 0, list[str]()  # left as they are: late by the database, or not to be counted

        async def some() -> list[Document]:
            those = self._reports.find({**wrong, "_id": {"$nin": left}}, _CLOCK)
            return [dict(r) async for r in those.sort("due_at", ASCENDING).limit(_BATCH)]

        while found := await some():
            calendar = await self._calendar.current()
            for report in found:
                done = False
                try:
                    done = await self._take_back(report, calendar)
                except Exception:
                    # One case that cannot be counted, whatever is wrong with it, must not keep the others.
                    log.exception("time_limits.failed", report=report["_id"])
                taken_back += done
                if not done:
                    left.append(report["_id"])
        return taken_back

    async def _take_back(self, report: Document, calendar: WorkCalendar) -> bool:
        moment, running = now(), RunningLimit.of(report)
        amendment = Amendment(set={"late": False})
        if running is not None:
            used = int(running.share(moment, calendar) * 100)
            amendment.set |= running.next_warning(self._escalation.percents, calendar, after=used)
        by = System("此前的时间有误")
        entry = new_entry(
            "not_late", "超时更正", "处置时限未到，取消超时标记", by, report["state"], State(report["state"]), moment
        )
        amendment.push["timeline"] = [entry]
        as_read = {key: report.get(key) for key in ("_id", "state", "due_at", "warn_at", "warn_percent")}
        not_over = {"$expr": {"$gt": ["$due_at", clock.now_in_database()]}}
        result = await self._reports.update_one(
            {**as_read, "late": True, "handled_at": None, **not_over}, amendment.pipeline()
        )
        return bool(result.modified_count)

    async def _put_off(self, report: Document) -> None:
        as_read = {"_id": report["_id"], "warn_at": report["warn_at"]}
        await self._reports.update_one(as_read, {"$set": {"warn_at": now() + _PUT_OFF}})

    async def pay_warn(self, report: Document, debt: Document) -> Payment:
        """Tell the staff. The notice has the entry's id: told twice, it is there once."""
        entry = next(e for e in report["timeline"] if e["id"] == debt["entry"])
        units = [u["unit_id"] for u in report.get("units") or () if not u["done"]]
        if not units and report["unit_id"] is not None:
            units = [report["unit_id"]]
        roles = self._escalation.told(debt["percent"], has_unit=bool(units))
        to = role_addresses(roles, report["areas"], units)
        if person := report.get("assignee"):
            to.append(f"staff:{person['id']}")
        if to:
            await self._inbox.tell(
                entry["id"],
                to,
                kind="time_limit",
                text=_text(report, debt["percent"]),
                report=report["_id"],
                at=entry["at"],
            )
        return Payment()


def _text(report: Document, percent: int) -> str:
    name, due = report["category_name"] or "未分类", local(report["due_at"])
    what = f"案件 {report['_id']}（{name}）"
    step = "处置" if report["unit_id"] else "派遣"
    if percent < 100:
        return f"{what}的处置时限已用 {percent}%，将于{due}届满，请尽快{step}。"
    if percent == 100:
        return f"{what}的处置时限已于{due}届满，请尽快{step}。"
    return f"{what}已超时，用时达处置时限的 {percent}%，请督促{step}。"


def local(moment: datetime) -> str:
    """``moment`` as people are told it: 11月26日10:00."""
    at = shanghai(moment)
    return f"{at.month}月{at.day}日{at:%H:%M}"
