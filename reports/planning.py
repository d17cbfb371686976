"""What a step does to a case: the row of the table, the case, who acts and what was given make one change.

Nothing is written here: :class:`Planner` gives the :class:`Amendment` that the caller applies, alone or with others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from accounts.models import StaffSession
from accounts.staff import StaffService
from core.audit import origin
from core.clock import now
from core.debts import Amendment, Document, owe
from core.errors import Conflict, Invalid
from core.photos import PhotoService
from reports import family
from reports.calendar import CalendarService
from reports.catalogue import Catalogue
from reports.checks import RequiredChecks
from reports.deadlines import Limit
from reports.milestones import marked
from reports.models import Actor, Category, Child, Given, Reporter, System, published_by_filing
from reports.rules import NEED_NAMES, State, Transition
from reports.running_limit import NO_WARNING, Escalation, RunningLimit
from reports.timeline import new_entry

# Names stand beside their keys, as they were when they were given: a case is read far more often than it changes.
_CLEARED: dict[str, Document] = {
    "unit": {"unit_id": None, "unit_name": None, "units": [], "assignee": None},
    "category": {"category": None, "category_name": None},
    "rating": {"rating": None},
}

# What the audit log tells of a case before and after; the rest of an action is in its timeline entry.
_AUDITED = ("state", "category", "unit_id", "due_at")

MAX_TIMELINE = 500


class Planner:
    """Plans steps."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        staff: StaffService,
        photos: PhotoService,
        calendar: CalendarService,
        checks: RequiredChecks,
        escalation: Escalation,
    ) -> None:
        self._catalogue = catalogue
        self._staff = staff
        self._photos = photos
        self._calendar = calendar
        self._checks = checks
        self._escalation = escalation

    async def plan(
        self, row: Transition, report: Document, actor: Actor, given: Given, *, entry_id: str | None = None
    ) -> tuple[Amendment, Document]:
        """The change that ``row`` makes to ``report`` with what was ``given``, and the timeline entry in it.

        Raises :class:`Invalid` when something is missing, not taken by the row, or unknown.
        """
        _check_given(row, given)
        moment = now()
        target = row.to or State(report["state"])
        category: Category | None = None
        change: Document = {"state": target, "updated_at": moment}
        kept: Document = {}
        if given.category:
            category = await self._catalogue.category(given.category)
            change["category"] = kept["category"] = category.key
            change["category_name"] = category.name
        if given.unit:
            unit = await self._staff.unit(given.unit)
            if unit is None:
                raise Invalid("没有这个处置部门，请重新选择。", code="NO_SUCH_UNIT")
            change["unit_id"] = kept["unit"] = unit.key
            change["unit_name"] = unit.name
            change["units"] = [{"unit_id": unit.key, "name": unit.name, "lead": True, "done": False}]
            change["assignee"] = None
        if given.photos:
            owner_kind = "staff" if isinstance(actor, StaffSession) else "citizen"
            owner_id = actor.staff_id if isinstance(actor, StaffSession) else getattr(actor, "citizen_id", "")
            photos = await self._photos.usable(given.photos, {"kind": owner_kind, "id": owner_id})
            for photo in photos:
                change[f"photo_verdicts.{photo['_id']}"] = photo["check"]["verdict"]
        if given.score is not None:
            rating = {"resolved": given.resolved, "score": given.score, "comment": given.note, "at": moment}
            change["rating"] = kept["rating"] = rating
        if given.into is not None:
            kept["into"] = given.into
        if given.children:
            kept["children"] = await self._children(row, report, given.children)
        for name in row.clears:
            change |= _CLEARED[name]
        # The unit that had the case: a refusal is told in the name of the unit that refuses.
        says = row.says.format(
            unit=change.get("unit_name") or report["unit_name"] or "责任部门",
            category=category.name if category else "",
            reason=given.reason or "",
            score=given.score,
            into=given.into or "",
            children="、".join(child.number for child in given.children),
        )
        entry = new_entry(row.action, row.label, says, actor, report["state"], target, moment)
        entry |= {"reason": given.reason, "note": given.note, "photos": list(given.photos), "given": kept}
        entry["shown"] = row.shown
        if entry_id is not None:
            entry["id"] = entry_id
        change |= await self._clock(row, category, report, moment)
        fields, counts = marked(row.marks, report, _by(actor), moment)
        change |= fields
        if row.publishes and isinstance(actor, StaffSession) and published_by_filing(report):
            change |= _read_by_staff(report, actor)
        if isinstance(actor, Reporter) and (given.note or given.reason):
            change[f"text_verdicts.{entry['id']}"] = {"verdict": "pending"}
        debts = _debts(row, report, actor, given, entry, change)
        if len(report["timeline"]) >= MAX_TIMELINE and row.to is None:
            raise Conflict("这个案件的记录已满，不能再补充。", code="TIMELINE_FULL")
        return Amendment(set=change, push={"timeline": [entry]}, increment={"version": 1, **counts}, owe=debts).also(
            self._checks.beside(row, report, change.get("category", report["category"]), entry)
        ).also(family.beside(row, report, kept.get("children", ()))), entry

    async def _children(self, row: Transition, report: Document, children: Sequence[Child]) -> list[Document]:
        """The parts that the case is split into, as the timeline keeps them. Raises :class:`Invalid`."""
        family.check(row, report, children)
        kept = []
        for child in children:
            key = child.category or report["category"]
            category = await self._catalogue.category(key) if key else None
            if child.unit and await self._staff.unit(child.unit) is None:
                raise Invalid("没有这个处置部门，请重新选择。", code="NO_SUCH_UNIT")
            kept.append({**asdict(child), "category": key, "category_name": category.name if category else None})
        return kept

    async def _clock(self, row: Transition, category: Category | None, report: Document, moment: datetime) -> Document:
        """What the row does to the time limit: the fields of the case that change."""
        if row.clock == "cancels":
            return {"due_at": None, "limit": None, "clock": None, "handled_at": None, "late": False, **NO_WARNING}
        if row.clock == "ends":
            due = report["due_at"]
            return {"handled_at": moment, "late": due is not None and due < moment, **NO_WARNING}
        if row.clock is None or (row.clock == "restarts" and report["due_at"] is None):
            return {}
        category = category or await self._catalogue.category(report["category"])
        condition = category.condition_for(report["answers"])
        limit: Limit = condition.limit
        calendar = await self._calendar.current()
        running = RunningLimit(moment, limit, ())
        return {
            "due_at": running.due_at(calendar),
            "clock": {"started_at": moment, "extensions": 0},
            **running.next_warning(self._escalation.percents, calendar, after=0),
            "handled_at": None,
            "late": False,
            "condition": condition.key,
            "limit": limit.model_dump(),
        }


def _read_by_staff(report: Document, staff: StaffSession) -> Document:
    """What makes a partner's case public: whoever files it has read it and seen its photos."""
    read = {"verdict": "pass", "label": f"staff:{staff.staff_id}"}
    return {
        "public": True,
        f"text_verdicts.{report['timeline'][0]['id']}": read,
        **{f"photo_verdicts.{photo_id}": "pass" for photo_id in report["photos"]},
    }


def _debts(
    row: Transition, report: Document, actor: Actor, given: Given, entry: Document, change: Document
) -> list[Document]:
    """What follows from the step and is the worker's to do."""
    debts = [owe(kind) for kind in row.owes]
    if isinstance(actor, StaffSession):
        changes = {
            name: {"before": report[name], "after": change[name]}
            for name in _AUDITED
            if name in change and change[name] != report[name]
        }
        debts.append(owe("audit", entry=entry["id"], changes=changes, asked=origin().stored()))
    if given.photos:
        debts.append(owe("attach", photos=list(given.photos)))
    if isinstance(actor, Reporter) and (given.note or given.reason):
        debts.append(owe("check_text", entry=entry["id"]))
    if row.tells is not None:
        people = dict.fromkeys([report["reporter"]["citizen_id"], *report["followers"]])
        debts += [owe("notify", event=row.tells, entry=entry["id"], citizen=p) for p in people if p]
    return debts


def _by(actor: Actor) -> str | None:
    """Who that is in the milestones."""
    return actor.staff_id if isinstance(actor, StaffSession) else "system" if isinstance(actor, System) else None


def _check_given(row: Transition, given: Given) -> None:
    names = given.names()
    accepted = {*row.needs, *row.takes, *row.some_of}
    problems = [{"field": n, "problem": f"必填：{NEED_NAMES[n]}"} for n in row.needs if n not in names]
    problems += [{"field": n, "problem": f"「{row.label}」不接受这一项"} for n in sorted(names - accepted)]
    if row.some_of and names.isdisjoint(row.some_of):
        wanted = "或".join(NEED_NAMES[n] for n in row.some_of)
        problems.append({"field": row.some_of[0], "problem": f"请填写{wanted}"})
    if problems:
        raise Invalid(f"请检查填写的内容。{problems[0]['problem']}", details={"fields": problems})
