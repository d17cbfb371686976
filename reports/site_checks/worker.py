"""How a check on site is offered, to whom, for how long, and how its case is told of the outcome.

A case asks by its own update, which owes ``offer_check``; the worker makes the side task under the id of that step. The
task then widens by itself: first the nearest collectors, then those of the grid, the community, the street and the
district. The case hears of the end by the task's debt ``tell_case``. Each may be done twice and changes nothing then.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta

from pymongo.errors import DuplicateKeyError

from accounts.staff_locations import StaffLocations
from core.clock import now
from core.config_sections import SiteChecks as SideTaskSettings
from core.database import Database
from core.ids import new_id
from core.queue.debts import Amendment, Document, Payment, Postponed, owe
from reports.lifecycle.required_checks import KIND_NAMES
from reports.lifecycle.table import rows
from reports.lifecycle.timeline import new_entry
from reports.models import System
from reports.service import ReportService
from reports.site_checks.tasks import UNFINISHED, VERDICTS, TaskState, given_up_by
from reports.states import State

_TRIES = 8
_MOST_OFFERED = 200


class SiteCheckWorker:
    """Pays what cases owe for their checks, and what the checks owe themselves."""

    def __init__(
        self, database: Database, *, reports: ReportService, positions: StaffLocations, settings: SideTaskSettings
    ) -> None:
        self._tasks = database["side_tasks"]
        self._collection = database["reports"]
        self._reports = reports
        self._positions = positions
        self._settings = settings

    async def pay_offer_check(self, report: Document, debt: Document) -> Payment:
        """Make the side task that the case waits for; a second one with its id cannot be made."""
        if debt["task"] not in report.get("open_checks", ()):
            return Payment()  # nobody waits for it any more
        moment = now()
        over_at = moment + timedelta(hours=self._settings.hours)
        task: Document = {
            "_id": debt["task"],
            "kind": debt["check"],
            "state": TaskState.OFFERED,
            "number": report["_id"],
            "description": report["description"],
            "category_name": report["category_name"],
            **_place_of(report),
            "reason": debt["reason"],
            "asked_by": debt["by"],
            "created_at": moment,
            "due_at": over_at,
            "round": -1,
            "offered_to": [],
            "declined": [],
            "taken_by": None,
            "taken_at": None,
            "verdict": None,
            "note": None,
            "photos": [],
            "metres_away": None,
            "finished_at": None,
            "entry": new_id(),
            "owed": [owe("offer", after=-1), owe("expire", at=over_at)],
        }
        with contextlib.suppress(DuplicateKeyError):  # made before the worker that was at it died
            await self._tasks.insert_one(task)
        return Payment()

    async def pay_cancel_checks(self, report: Document, _debt: Document) -> Payment:
        """Call off the checks of the case that it does not wait for any more."""
        waited_for = report.get("open_checks", [])
        await self._tasks.update_many(
            {"number": report["_id"], "state": {"$in": list(UNFINISHED)}, "_id": {"$nin": waited_for}},
            {"$set": {"state": TaskState.CANCELLED, "finished_at": now()}, "$pull": {"owed": {"kind": {"$in": _ENDS}}}},
        )
        return Payment()

    async def pay_move_checks(self, report: Document, _debt: Document) -> Payment:
        """Take the checks that the case waits for to where it lies now; done twice it changes nothing.

        One that nobody has taken is offered anew from the nearest on; whoever has taken one goes to the new place.
        """
        here = _place_of(report)
        waited_for = {"_id": {"$in": report.get("open_checks", [])}, "state": {"$in": list(UNFINISHED)}}
        async for task in self._tasks.find({**waited_for, "location": {"$ne": here["location"]}}):
            offered = task["state"] == TaskState.OFFERED
            anew = Amendment(set={"round": -1}, settle=["offer"], owe=[owe("offer", after=-1)])
            change = Amendment(set=here).also(anew if offered else Amendment())
            unchanged = {"_id": task["_id"], "state": task["state"], "round": task["round"]}
            if not (await self._tasks.update_one(unchanged, change.pipeline())).matched_count:
                raise Postponed("the check has moved on meanwhile", timedelta(seconds=1))
        return Payment()

    async def pay_offer(self, task: Document, debt: Document) -> Payment:
        """Offer the task to the next circle of collectors in which there is anybody new."""
        if task["state"] != TaskState.OFFERED or task["round"] != debt["after"]:
            return Payment()  # taken, over, or widened already
        case = await self._reports.get(task["number"])
        unchanged = {"state": TaskState.OFFERED, "round": task["round"]}
        if task["_id"] not in case.get("open_checks", ()):
            # The case went on while the task was being made: whatever called its checks off did not see it yet.
            over = Amendment(set={"state": TaskState.CANCELLED, "finished_at": now()}, settle=_ENDS)
            return Payment(over, condition=unchanged)
        # It may have been moved, too.
        here = _place_of(case)
        task = {**task, **here}
        known = {*task["offered_to"], *task["declined"]}
        circles = [None, *reversed(task["areas"])]  # by distance, then the grid and what is around it
        for number in range(task["round"] + 1, len(circles)):
            people = await self._circle(task, circles[number], known)
            if people:
                wider = owe("offer", delay=timedelta(minutes=self._settings.offer_minutes), after=number)
                found = Amendment(set={**here, "round": number}, push={"offered_to": people}, owe=[wider])
                return Payment(found, condition=unchanged)
        # Everybody knows of it: it waits for one of them until it expires.
        return Payment(Amendment(set={**here, "round": len(circles)}), condition=unchanged)

    async def _circle(self, task: Document, area: str | None, known: set[str]) -> list[str]:
        if area is not None:
            return await self._positions.of_area(self._settings.collectors, area, besides=known, limit=_MOST_OFFERED)
        return await self._positions.nearest(
            self._settings.collectors,
            task["areas"],
            task["location"],
            metres=self._settings.metres,
            besides=known,
            limit=self._settings.nearest,
        )

    async def pay_lapse(self, task: Document, debt: Document) -> Payment:
        """Whoever took the task has not answered in time: it goes to others."""
        if task["state"] != TaskState.TAKEN or task["taken_by"]["id"] != debt["staff"]:
            return Payment()
        return Payment(
            given_up_by(task, debt["staff"]),
            condition={"state": TaskState.TAKEN, "taken_by.id": debt["staff"], "offered_to": task["offered_to"]},
        )

    async def pay_expire(self, task: Document, _debt: Document) -> Payment:
        """Nobody has done it within its time: the case waits no longer."""
        if task["state"] not in UNFINISHED:
            return Payment()
        over = Amendment(
            set={"state": TaskState.EXPIRED, "finished_at": now()}, settle=["offer", "lapse"], owe=[owe("tell_case")]
        )
        return Payment(over, condition={"state": task["state"]})

    async def pay_tell_case(self, task: Document, _debt: Document) -> Payment:
        """Write the outcome into the case's timeline, once; the case does not wait for the task any more."""
        row = rows("check_result", "system")[0]
        done = task["state"] == TaskState.DONE
        verdict = VERDICTS[task["kind"]][task["verdict"]] if done else "超时无人完成"
        for _ in range(_TRIES):
            case = await self._reports.get(task["number"])
            if any(e["id"] == task["entry"] for e in case["timeline"]):
                return Payment()
            words = {"check": KIND_NAMES[task["kind"]], "verdict": verdict}
            says, shows = row.says.format(**words), row.to_citizens and row.to_citizens.format(**words)
            state = State(case["state"])
            by = System(f"现场{words['check']}")
            entry = new_entry(row.action, row.label, says, by, state, state, now(), shows=shows)
            entry |= {"id": task["entry"], "note": task["note"], "photos": task["photos"]}
            entry["given"] = {"task": task["_id"], "verdict": task["verdict"] or task["state"]}
            if done:
                entry["by"] = {"kind": "staff", **task["taken_by"], "unit": None}
            outcome = {"id": task["_id"], "kind": task["kind"], "verdict": entry["given"]["verdict"], "at": entry["at"]}
            change = Amendment(
                set={"updated_at": entry["at"], **{f"photo_verdicts.{p}": "pass" for p in task["photos"]}},
                push={"timeline": [entry], "checks": [outcome]},
                increment={"version": 1},
                owe=[owe("attach", photos=task["photos"])] if task["photos"] else [],
            )
            if task["verdict"] == "found" and state is State.SUBMITTED:
                change.owe.append(owe("route"))  # what the rules would have done at once, they do now
            waiting = {"$setDifference": [{"$ifNull": ["$open_checks", []]}, [task["_id"]]]}
            told = await self._collection.update_one(
                {"_id": case["_id"], "state": state, "version": case["version"]},
                [*change.pipeline(), {"$set": {"open_checks": waiting}}],
            )
            if told.matched_count:
                return Payment()
        raise Postponed("the case keeps changing", timedelta(seconds=1))


def _place_of(report: Document) -> Document:
    """What a task knows of where its case lies."""
    place = {name: report[name] for name in ("address", "location", "areas")}
    return {**place, "place_precision": report.get("place_precision", "exact")}


_ENDS = ["offer", "lapse", "expire"]
"""What a task that is over does not owe any more."""
