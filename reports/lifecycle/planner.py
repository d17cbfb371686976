"""What a step does to a case: the row of the table, the case, who acts and what was given make one change.

Nothing is written here: :class:`Planner` gives the :class:`Amendment` that the caller applies, alone or with others.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Self

from accounts.models import StaffSession, Unit
from accounts.staff import StaffService
from core.audit import origin
from core.clock import now, shanghai
from core.errors import Invalid
from core.queue.debts import Amendment, Document, owe
from photos.service import PhotoService
from reports.catalogue.categories import Catalogue
from reports.lifecycle import family
from reports.lifecycle.case_clock import clock_after, end_of
from reports.lifecycle.dispatch_outcome import routed
from reports.lifecycle.guards import Policy, units_of
from reports.lifecycle.milestones import judged_by, marked
from reports.lifecycle.row import TOLD_REPORTER
from reports.lifecycle.running_limit import Escalation
from reports.lifecycle.table import DORMANT, NEED_NAMES, Need, Transition
from reports.lifecycle.timeline import new_entry
from reports.lifecycle.training_labels import lessons
from reports.location import Place, Placing, before_and_after, moved
from reports.models import (
    Actor,
    Category,
    Child,
    Condition,
    Given,
    Reporter,
    System,
    is_reporter,
    published_by_filing,
)
from reports.states import State
from worktime.calendar import CalendarService

# Names stand beside their keys, as they were when they were given: a case is read far more often than it changes.
_CLEARED: dict[str, Document] = {
    "unit": {"unit_id": None, "unit_name": None, "units": [], "assignee": None},
    "category": {"category": None, "category_name": None, "condition": None},
    "rating": {"rating": None},
    "request": {"request": None},
}

# What the audit log tells of a case before and after; the rest of an action is in its timeline entry.
_AUDITED = ("state", "category", "condition", "unit_id", "assignee", "due_at", "location", "areas", "place_precision")

# What of what was given the timeline keeps in fields of its own, or in words of its own.
_KEPT_ELSEWHERE = {"reason", "note", "photos", "children", "location"}

MAX_CO_UNITS = 9

_VERBS: dict[Need, str] = {
    **dict.fromkeys(("unit", "category", "assignee", "until", "resolved", "score", "location"), "选择"),
    "photos": "上传",
    "children": "列出",
}
"""What is done to give what is not written."""


@dataclass
class _Named:
    """What the keys in what was given stand for."""

    category: Category | None = None
    condition: Condition | None = None
    unit: Unit | None = None
    co_units: list[Unit] = field(default_factory=list)
    assignee: Document | None = None
    photos: list[Document] = field(default_factory=list)
    place: Place | None = None


class Planner:
    """Plans steps."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        staff: StaffService,
        photos: PhotoService,
        placing: Placing,
        calendar: CalendarService,
        escalation: Escalation,
        policy: Policy,
    ) -> None:
        self._catalogue = catalogue
        self._staff = staff
        self._photos = photos
        self._placing = placing
        self._calendar = calendar
        self._escalation = escalation
        self._policy = policy

    def under(self, policy: Policy) -> Self:
        """The same planner, for a district that works as ``policy`` says."""
        other = copy(self)
        other._policy = policy
        return other

    async def plan(
        self, row: Transition, report: Document, actor: Actor, given: Given, *, entry_id: str | None = None
    ) -> tuple[Amendment, Document]:
        """The change that ``row`` makes to ``report`` with what was ``given``, and the timeline entry in it.

        That the row is open is for the caller to see to. Raises :class:`Invalid` when something is missing, not taken
        by the row, or unknown.
        """
        moment = now()
        _check_given(row, given)
        until = _until(row, report, given)
        self._check_until(until, moment)
        named = await self._look_up(row, report, actor, given)
        target = row.to or State(report["state"])
        words = self._words(row, report, actor, given, named)
        says, shows = row.says.format(**words), row.to_citizens and row.to_citizens.format(**words)
        entry = new_entry(row.action, row.label, says, actor, report["state"], target, moment, shows=shows)
        entry |= {"reason": given.reason, "note": given.note, "photos": list(given.photos)}
        entry["given"] = _told(given)
        if given.children:
            entry["given"]["children"] = await self._children(row, report, given.children)
        if named.place is not None:
            entry["given"] |= before_and_after(report, named.place)
        if entry_id is not None:
            entry["id"] = entry_id
        if isinstance(actor, Reporter) and not is_reporter(report, actor):
            entry["by"] |= {"kind": "follower", "name": "关注人"}
        change: Document = {"state": target, "updated_at": moment, "remind_at": self.remind_at(target, moment)}
        change |= _kept(row, actor, given, named, entry)
        if named.place is not None:
            change |= moved(report, named.place, given.address)
        change |= _units(row, report, actor, named, moment)
        if row.clock is not None:
            change |= clock_after(
                row,
                report,
                moment,
                await self._calendar.current(),
                self._escalation.percents,
                condition=named.condition,
                until=until,
            )
        fields, counts = marked(row.marks, report, _by(actor), moment)
        change |= fields
        if row.marks:
            change |= judged_by(
                row.marks,
                report,
                moment,
                await self._calendar.current(),
                dispatch=self._policy.dispatch_limit,
                closing=self._policy.closing_limit,
            )
        change |= routed(row, report, actor, change, moment)
        if row.publishes and isinstance(actor, StaffSession) and published_by_filing(report):
            change |= _read_by_staff(report, actor)
        if isinstance(actor, Reporter) and (given.note or given.reason):
            change[f"text_verdicts.{entry['id']}"] = {"verdict": "pending"}
        amendment = Amendment(
            set=change,
            push={"timeline": [entry]},
            increment={"version": 1, **counts},
            owe=_debts(row, report, actor, given, entry, change, until),
            settle=list(row.settles),
        )
        if "follower" in row.actors and isinstance(actor, Reporter):
            amendment.push["acted"] = [{"citizen_id": actor.citizen_id, "action": row.action, "at": moment}]
        beside = self._policy.checks.beside(row, report, change.get("category", report["category"]), entry)
        related = family.beside(row, report, entry["given"].get("children", ()))
        return amendment.also(beside).also(related), entry

    def remind_at(self, state: State, moment: datetime) -> datetime | None:
        """When a case that was touched at ``moment`` counts as dormant; None where it never does."""
        return moment + timedelta(days=self._policy.dormant_days) if state in DORMANT else None

    def _check_until(self, until: date | None, moment: datetime) -> None:
        if until is None:
            return
        today = shanghai(moment).date()
        if not today <= until <= today + timedelta(days=self._policy.max_suspension_days):
            problem = f"应在今天起 {self._policy.max_suspension_days} 天以内"
            raise Invalid(
                f"挂账截止日期{problem}。",
                code="UNTIL_OUT_OF_RANGE",
                details={"fields": [{"field": "until", "problem": problem}]},
            )

    async def _look_up(self, row: Transition, report: Document, actor: Actor, given: Given) -> _Named:
        """What the keys in what was given stand for. Raises :class:`Invalid` for what is unknown."""
        found = _Named()
        if given.category:
            found.category = await self._catalogue.category(given.category)
        elif given.condition or (row.clock in ("starts", "restarts") and report["category"]):
            found.category = await self._catalogue.category(report["category"])
        if found.category is not None:
            asks = "condition" in row.takes and isinstance(actor, StaffSession)
            found.condition = _condition(found.category, report, given, asks=asks)
        if given.unit:
            found.unit = await self._unit(given.unit)
            for key in given.co_units:
                found.co_units.append(await self._unit(key))
            if len({given.unit, *given.co_units}) != 1 + len(given.co_units) or len(given.co_units) > MAX_CO_UNITS:
                raise Invalid(
                    f"协办部门最多 {MAX_CO_UNITS} 个，不能重复，也不能是主办部门。",
                    code="CO_UNITS_REPEATED",
                    details={"fields": [{"field": "co_units", "problem": "不能重复，也不能是主办部门"}]},
                )
        if given.assignee:
            found.assignee = await self._staff.colleague(given.assignee, report["unit_id"])
            if found.assignee is None:
                raise Invalid("处置部门没有这位工作人员，请重新选择。", code="NO_SUCH_ASSIGNEE")
        if given.photos:
            owner_kind = "staff" if isinstance(actor, StaffSession) else "citizen"
            owner_id = actor.staff_id if isinstance(actor, StaffSession) else getattr(actor, "citizen_id", "")
            found.photos = await self._photos.usable(given.photos, {"kind": owner_kind, "id": owner_id})
        if given.location is not None:
            found.place = await self._placing.find(report, actor, given.location)
        return found

    async def _children(self, row: Transition, report: Document, children: Sequence[Child]) -> list[Document]:
        """The parts that the case is split into, as the timeline keeps them. Raises :class:`Invalid`."""
        family.check(row, report, children)
        kept = []
        for child in children:
            key = child.category or report["category"]
            category = await self._catalogue.category(key) if key else None
            if child.unit:
                await self._unit(child.unit)
            kept.append({**asdict(child), "category": key, "category_name": category.name if category else None})
        return kept

    async def _unit(self, key: str) -> Unit:
        unit = await self._staff.unit(key)
        if unit is None:
            raise Invalid("没有这个处置部门，请重新选择。", code="NO_SUCH_UNIT")
        return unit

    def _words(
        self, row: Transition, report: Document, actor: Actor, given: Given, named: _Named
    ) -> dict[str, str | int]:
        """What the row's sentence is filled in with. The unit is the one that has the case, or had it until now."""
        mine = actor.unit_id if isinstance(actor, StaffSession) else None
        unit = named.unit.name if named.unit else report["unit_name"] or "处置部门"
        until = _until(row, report, given)
        return {
            "unit": unit,
            "units": "、".join([unit, *(f"{u.name}（协办）" for u in named.co_units)]),
            "co_unit": next((u["name"] for u in units_of(report) if u["unit_id"] == mine), "协办部门"),
            "street": (report["place"].get("street") or {}).get("name", "街道"),
            "assignee": named.assignee["name"] if named.assignee else "",
            "category": named.category.name if named.category else "",
            "until": f"{until:%Y-%m-%d}" if until else "",
            "reason": given.reason or "",
            "into": given.into or "",
            "place": named.place.named if named.place else "",
            "children": "、".join(child.number for child in given.children),
            "score": given.score or "",
            "days": self._policy.dormant_days,
            "who": "关注人" if isinstance(actor, Reporter) and not is_reporter(report, actor) else "上报人",
        }


def _condition(category: Category, report: Document, given: Given, *, asks: bool) -> Condition:
    """The filing condition in force: the one chosen now, the one chosen before, or the one that the answers select.

    Where they leave several, the one who acts is asked (``asks``): each has a time limit of its own. A rule takes the
    category's first, as nobody can be asked. Raises :class:`Invalid` (``NO_SUCH_CONDITION``, ``CONDITION_REQUIRED``).
    """
    if given.condition:
        chosen = category.condition(given.condition)
        if chosen is None:
            raise Invalid("这个类别没有这个立案条件，请重新选择。", code="NO_SUCH_CONDITION")
        return chosen
    before = category.condition(report.get("condition") or "") if category.key == report["category"] else None
    if before is not None:
        return before
    fitting = category.fitting(report["answers"])
    if asks and len(fitting) > 1:
        problem = f"该类别有 {len(fitting)} 条立案条件，时限不同，请选择其中一条"
        raise Invalid(
            f"{problem}。",
            code="CONDITION_REQUIRED",
            details={
                "fields": [{"field": "condition", "problem": problem}],
                "conditions": [{"key": c.key, "text": c.text, "limit": c.limit.model_dump()} for c in fitting],
            },
        )
    return category.condition_for(report["answers"])


def _until(row: Transition, report: Document, given: Given) -> date | None:
    """Until when a case is to be suspended: what is given now, or else what the unit asked for."""
    if given.until is not None:
        return given.until
    asked = (report.get("request") or {}).get("until") if row.clock == "stops" else None
    return date.fromisoformat(asked) if asked else None


def _told(given: Given) -> Document:
    """What was given, as the timeline keeps it."""
    told = {name: getattr(given, name) for name in given.names() - _KEPT_ELSEWHERE}
    if "until" in told:
        told["until"] = told["until"].isoformat()
    if "co_units" in told:
        told["co_units"] = list(told["co_units"])
    return told


def _kept(row: Transition, actor: Actor, given: Given, named: _Named, entry: Document) -> Document:
    """What the case keeps of what was given, and what is taken off it."""
    change: Document = {}
    if named.category is not None and given.category:
        change |= {"category": named.category.key, "category_name": named.category.name}
        change["condition"] = named.condition.key if named.condition else None
    for photo in named.photos:
        change[f"photo_verdicts.{photo['_id']}"] = photo["check"]["verdict"]
    if given.score is not None:
        rating = {"resolved": given.resolved, "score": given.score, "comment": given.note, "at": entry["at"]}
        change["rating"] = rating
    if named.assignee is not None:
        change["assignee"] = named.assignee
    if row.asks is not None:
        change["request"] = {
            "kind": row.asks,
            "entry": entry["id"],
            "at": entry["at"],
            "by": entry["by"]["name"],
            "unit": actor.unit_id if isinstance(actor, StaffSession) else None,
            "reason": given.reason,
            "until": given.until.isoformat() if given.until else None,
        }
    if row.answers is not None:
        change["request"] = None
    for name in row.clears:
        change |= _CLEARED.get(name, {})
    return change


def _units(row: Transition, report: Document, actor: Actor, named: _Named, moment: datetime) -> Document:
    """Who has the case after the step: the lead unit first, and how far each has come."""
    if named.unit is not None:
        units = [_part(named.unit, lead=True), *(_part(unit, lead=False) for unit in named.co_units)]
        return {"unit_id": named.unit.key, "unit_name": named.unit.name, "units": units, "assignee": None}
    units, mine = units_of(report), actor.unit_id if isinstance(actor, StaffSession) else None
    if row.ends_part:
        done = {"done": True, "done_at": moment, "done_by": _by(actor)}
        return {"units": [u | done if u["unit_id"] == mine else u for u in units]}
    if row.removes_part:
        return {"units": [u for u in units if u["unit_id"] != mine]}
    if row.clock == "ends":
        return {"units": [u | {"done": True} for u in units]}
    if "parts" in row.clears:
        return {"units": [u | {"done": False, "done_at": None, "done_by": None} for u in units]}
    return {}


def _part(unit: Unit, *, lead: bool) -> Document:
    return {"unit_id": unit.key, "name": unit.name, "lead": lead, "done": False}


def _read_by_staff(report: Document, staff: StaffSession) -> Document:
    """What makes a partner's case public: whoever files it has read it and seen its photos."""
    read = {"verdict": "pass", "label": f"staff:{staff.staff_id}"}
    return {
        "public": True,
        f"text_verdicts.{report['timeline'][0]['id']}": read,
        **{f"photo_verdicts.{photo_id}": "pass" for photo_id in report["photos"]},
    }


def _debts(
    row: Transition,
    report: Document,
    actor: Actor,
    given: Given,
    entry: Document,
    change: Document,
    until: date | None,
) -> list[Document]:
    """What follows from the step and is the worker's to do."""
    debts = [owe(kind, at=end_of(until) if kind == "resume" and until else None) for kind in row.owes]
    if isinstance(actor, StaffSession):
        changes = {
            name: {"before": report.get(name), "after": change[name]}
            for name in _AUDITED
            if name in change and change[name] != report.get(name)
        }
        debts.append(owe("audit", entry=entry["id"], changes=changes, asked=origin().stored()))
    debts += lessons(row, actor, entry, change.get("category", report["category"]))
    if given.photos:
        debts.append(owe("attach", photos=list(given.photos)))
    if isinstance(actor, Reporter) and (given.note or given.reason):
        debts.append(owe("check_text", entry=entry["id"], openid=actor.openid))
    if row.tells is not None:
        followers = [] if row.tells in TOLD_REPORTER else report["followers"]
        people = dict.fromkeys([report["reporter"]["citizen_id"], *followers])
        debts += [owe("notify", event=row.tells, entry=entry["id"], citizen=p) for p in people if p]
    return debts


def _by(actor: Actor) -> str | None:
    """Who that is in the milestones."""
    return actor.staff_id if isinstance(actor, StaffSession) else "system" if isinstance(actor, System) else None


def _check_given(row: Transition, given: Given) -> None:
    names = given.names()
    accepted = {*row.needs, *row.takes, *row.some_of}
    problems = [
        {"field": n, "problem": f"请{_VERBS.get(n, '填写')}{NEED_NAMES[n]}"} for n in row.needs if n not in names
    ]
    problems += [
        {"field": n, "problem": f"「{row.label}」无需填写此项（{NEED_NAMES[n]}）"}
        for n in NEED_NAMES
        if n in names - accepted
    ]
    if row.some_of and names.isdisjoint(row.some_of):
        wanted = "或".join(f"{_VERBS.get(n, '填写')}{NEED_NAMES[n]}" for n in row.some_of)
        problems.append({"field": row.some_of[0], "problem": f"请{wanted}"})
    if row.outcomes and given.resolved and given.resolved not in row.outcomes:
        problems.append({"field": "resolved", "problem": f"「{row.label}」不能选择此项"})
    if problems:
        raise Invalid(f"请检查填写的内容。{problems[0]['problem']}", details={"fields": problems})
