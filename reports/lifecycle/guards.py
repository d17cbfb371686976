"""What has to be so, besides the state, for a row of the table to be open: each fact with its test and its refusal.

A fact is about the case, about who acts (of which of the case's units, when last), or about how the district works
(:class:`Policy`). No input and no output: the update that takes a step holds for the version that was looked at.

What is offered and what is refused are one thing: :func:`refused` is asked for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, get_args

from accounts.models import StaffSession
from core.errors import Conflict
from reports.lifecycle.milestones import milestones
from reports.lifecycle.required_checks import RequiredChecks
from reports.lifecycle.row import HINDRANCES, Ask, Fact, Transition
from reports.lifecycle.row import Actor as Part
from reports.models import Actor, Reporter, System
from reports.states import State
from worktime.limits import Limit

Document = Mapping[str, Any]

MAX_TIMELINE = 500
MAX_CHILDREN = 50


@dataclass(frozen=True)
class Policy:
    """How a district works. ``two_level``: a case goes to its street's centre first, which passes it to the unit.

    ``checks`` says which categories are checked on site. ``dispatch_limit`` runs from filing to the first dispatch,
    ``closing_limit`` from handling to closing.

    Sources: at most two extensions, a suspension of at most a year, one appeal: the practice of digital city management
    (数字城管). The rest is the district's own.
    """

    two_level: bool = False
    dispatch_limit: Limit = field(default_factory=partial(Limit, value=2, unit="work_hour"))
    closing_limit: Limit = field(default_factory=partial(Limit, value=1, unit="work_day"))
    max_extensions: int = 2
    max_suspension_days: int = 365
    reopen_days: int = 15
    urge_hours: int = 24
    dormant_days: int = 7
    checks: RequiredChecks = field(default_factory=RequiredChecks)


@dataclass(frozen=True)
class Situation:
    """A case at a moment, and who would act on it."""

    report: Document
    actor: Actor
    moment: datetime
    policy: Policy

    @property
    def unit_id(self) -> str | None:
        """The unit of who acts; None for everybody who belongs to none."""
        return self.actor.unit_id if isinstance(self.actor, StaffSession) else None


def units_of(report: Document) -> list[dict[str, Any]]:
    """The units that have the case, the lead first, whenever it was written."""
    if found := report.get("units"):
        return list(found)
    if report["unit_id"] is None:
        return []
    return [{"unit_id": report["unit_id"], "name": report["unit_name"], "lead": True, "done": False}]


def unit_ids(report: Document) -> list[str]:
    """The keys of the units that have the case."""
    return [unit["unit_id"] for unit in units_of(report)]


def suspended_until(report: Document) -> datetime | None:
    """Until when a case is suspended; None where it is not."""
    return report["pauses"][-1]["until"] if report["state"] == State.SUSPENDED else None


def _last_of(report: Document, actions: Iterable[str]) -> str | None:
    return next((e["action"] for e in reversed(report["timeline"]) if e["action"] in actions), None)


def _by_lead(s: Situation) -> bool:
    # Of the command centre, whoever has the permission may act for a unit that is not connected.
    return s.unit_id in (None, s.report["unit_id"])


def _by_part(s: Situation) -> bool:
    return any(u["unit_id"] == s.unit_id and not u["lead"] and not u["done"] for u in units_of(s.report))


def _parts_done(s: Situation) -> bool:
    return all(u["done"] for u in units_of(s.report) if not u["lead"])


def _street_first(s: Situation) -> bool:
    return s.policy.two_level and bool(s.report["place"].get("street"))


def _direct(s: Situation) -> bool:
    # What its street has sent back, the district's dispatchers dispatch themselves.
    return not _street_first(s) or _last_of(s.report, ("return_to_district",)) is not None


def _by_street(s: Situation) -> bool:
    return _last_of(s.report, ("dispatch", "redispatch", "pass_on")) == "pass_on"


def _dispatched_before(s: Situation) -> bool:
    return milestones(s.report)["dispatched_at"] is not None


def _in_time(s: Situation) -> bool:
    due = s.report["due_at"]
    return due is not None and not s.report["late"] and s.moment <= due


def _asked(kind: Ask) -> Callable[[Situation], bool]:
    return lambda s: (s.report.get("request") or {}).get("kind") == kind


def _not_urged_lately(s: Situation) -> bool:
    since = s.moment - timedelta(hours=s.policy.urge_hours)
    person = s.actor.citizen_id if isinstance(s.actor, Reporter) else None
    acted = s.report.get("acted") or ()
    return not any(a["action"] == "urge" and a["citizen_id"] == person and a["at"] > since for a in acted)


def closed_at(report: Document) -> datetime | None:
    """When the case was closed last, whenever it was written."""
    found: datetime | None = milestones(report)["closed_at"]
    return found or next((e["at"] for e in reversed(report["timeline"]) if e["action"] == "close"), None)


def _closed_lately(s: Situation) -> bool:
    closed = closed_at(s.report)
    return closed is not None and s.moment <= closed + timedelta(days=s.policy.reopen_days)


def _dormant(s: Situation) -> bool:
    remind_at = s.report.get("remind_at")
    return remind_at is not None and remind_at <= s.moment


def _own_finding(s: Situation) -> bool:
    return isinstance(s.actor, StaffSession) and s.report["reporter"].get("staff_id") == s.actor.staff_id


def _place_exact(s: Situation) -> bool:
    return bool(s.report.get("place_precision", "exact") == "exact")


def _answerable(s: Situation) -> bool:
    return s.report["reporter"]["citizen_id"] is not None and wanted(s.report) is None


def _never_asked(s: Situation) -> bool:
    return not any(entry["action"] == "ask_supplement" for entry in s.report["timeline"])


@dataclass(frozen=True)
class FactRule:
    """A fact: its test, how the document says it, and how it is refused where it does not hold.

    ``message`` may name what :class:`Policy` says: {urge_hours}.
    """

    holds: Callable[[Situation], bool]
    text: str
    code: str
    message: str


FACTS: dict[Fact, FactRule] = {
    "by_lead": FactRule(
        _by_lead, "the lead unit's staff, or the centre's", "NOT_THE_LEAD", "您的部门是协办部门，该操作由主办部门进行。"
    ),
    "by_part": FactRule(
        _by_part, "staff of a co-unit that is not done yet", "NO_PART", "您的部门在本案中没有未完成的协办任务。"
    ),
    "parts_done": FactRule(
        _parts_done, "every co-unit is done", "PARTS_OPEN", "还有协办部门尚未完成，请待其完成后再反馈。"
    ),
    "direct": FactRule(
        _direct,
        "direct dispatch, or no street, or its street sent it back",
        "STREET_FIRST",
        "本区实行区、街道两级派遣，请先派至街道，由街道派遣至处置部门。",
    ),
    "street_first": FactRule(
        _street_first,
        "dispatch on two levels, and the place has a street",
        "NO_STREET_LEVEL",
        "本案不经街道派遣，请直接派遣至处置部门。",
    ),
    "by_street": FactRule(_by_street, "passed on by a street", "NOT_BY_STREET", "本案不是街道派遣的，请退回派遣员。"),
    "not_by_street": FactRule(
        lambda s: not _by_street(s), "not passed on by a street", "BY_STREET", "本案由街道派遣，请退回街道。"
    ),
    "first_dispatch": FactRule(
        lambda s: not _dispatched_before(s),
        "not dispatched before",
        "DISPATCHED_BEFORE",
        "本案已派遣过，请填写理由。",
    ),
    "dispatched_before": FactRule(_dispatched_before, "dispatched before", "NEVER_DISPATCHED", "本案尚未派遣过。"),
    "in_time": FactRule(_in_time, "not overdue", "OVERDUE", "案件已超时，不能再申请或批准延期、挂账，请尽快处置。"),
    "extension_left": FactRule(
        lambda s: milestones(s.report)["extensions"] < s.policy.max_extensions,
        "extended fewer times than the district allows (2)",
        "NO_EXTENSION_LEFT",
        "每个案件最多延期 {max_extensions} 次，不能再延期。",
    ),
    "nothing_asked": FactRule(
        lambda s: s.report.get("request") is None,
        "nothing else is being asked for",
        "REQUEST_PENDING",
        "本案有一项申请尚未批复，请待批复后再申请。",
    ),
    "extension_asked": FactRule(
        _asked("extension"), "an extension was asked for", "NOTHING_ASKED", "本案没有待批复的延期申请。"
    ),
    "suspension_asked": FactRule(
        _asked("suspension"), "a suspension was asked for", "NOTHING_ASKED", "本案没有待批复的挂账申请。"
    ),
    "appeal_asked": FactRule(_asked("appeal"), "an appeal was lodged", "NOTHING_ASKED", "本案没有待批复的超时申诉。"),
    "was_late": FactRule(
        lambda s: bool(s.report["late"]), "it was handled late", "NOT_LATE", "本案没有超时，无需申诉。"
    ),
    "never_appealed": FactRule(
        lambda s: milestones(s.report)["appeals"] == 0,
        "no appeal before",
        "APPEALED_BEFORE",
        "每个案件只能申诉一次，本案已申诉过。",
    ),
    "not_urged_lately": FactRule(
        _not_urged_lately,
        "this person has not urged within the district's hours (24)",
        "URGED_LATELY",
        "您已催办；{urge_hours} 小时内不能重复催办。",
    ),
    "closed_lately": FactRule(
        _closed_lately,
        "closed within the district's days (15)",
        "CLOSED_TOO_LONG",
        "结案已超过 {reopen_days} 天，不能再申请复查，请重新上报。",
    ),
    "dormant": FactRule(
        _dormant,
        "nobody has touched it for the district's days (7)",
        "NOT_DORMANT",
        "本案 {dormant_days} 天内有处置进展。",
    ),
    "own_finding": FactRule(
        _own_finding, "the collector's own finding", "NOT_YOUR_FINDING", "只能自行处置您本人巡查上报的案件。"
    ),
    "place_rough": FactRule(
        lambda s: not _place_exact(s),
        "only an area is known, in whose middle it is drawn",
        "PLACE_EXACT",
        "本案已有准确位置，更正位置请填写理由。",
    ),
    "answerable": FactRule(
        _answerable,
        "a citizen reported it, and owes no answer",
        "NOBODY_TO_ASK",
        "无可联系的上报人，或已请其补充、尚未答复。",
    ),
    "never_asked": FactRule(
        _never_asked, "the reporter has not been asked before", "ASKED_BEFORE", "已请上报人补充过。"
    ),
    "place_exact": FactRule(_place_exact, "its point is known", "PLACE_ROUGH", "本案尚无准确位置。"),
    "check_open": FactRule(
        lambda s: bool(s.report.get("open_checks")),
        "a check on site is open",
        "NO_CHECK_OPEN",
        "本案没有进行中的现场核实或核查，无需取消。",
    ),
    "splittable": FactRule(
        lambda s: len(s.report.get("children", ())) < MAX_CHILDREN,
        f"split into fewer than {MAX_CHILDREN} cases",
        "TOO_MANY_CHILDREN",
        f"一个案件最多拆分为 {MAX_CHILDREN} 件。",
    ),
}

assert FACTS.keys() == set(get_args(Fact))  # noqa: S101 - a fact without a meaning must not pass for one that holds


def told(rule: FactRule, policy: Policy) -> str:
    """How a fact that does not hold is refused, in a district that works by ``policy``."""
    return rule.message.format_map(vars(policy))


def missing(row: Transition, situation: Situation) -> FactRule | None:
    """The first fact of ``row`` that does not hold."""
    return next((FACTS[name] for name in row.only if not FACTS[name].holds(situation)), None)


def stale_version(report: Document, **more: Any) -> Conflict:
    """The refusal of what was done on another version than the present one."""
    details = {"state": State(report["state"]), "version": report["version"], **more}
    return Conflict("案件有新的进展，请刷新后再操作。", code="STALE_VERSION", details=details)


@dataclass(frozen=True)
class Refusal:
    """Why a row is not open now; ``details`` for whoever wants to do something about it."""

    code: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)


TIMELINE_FULL = Refusal("TIMELINE_FULL", "本案的流转记录已满，不能再补充。")


def refused(row: Transition, situation: Situation) -> Refusal | None:
    """What stands in the way of ``row``, whatever comes with the step; None where nothing does."""
    report = situation.report
    if (fact := missing(row, situation)) is not None:
        return Refusal(fact.code, told(fact, situation.policy))
    for hindrance in (HINDRANCES[name] for name in row.free_of):
        if present := report.get(hindrance.field):
            return Refusal(hindrance.code, hindrance.message, {hindrance.field: present})
    if "category" not in row.needs and (lacking := situation.policy.checks.lacking(row, report, report["category"])):
        return Refusal("CHECK_REQUIRED", lacking)
    if row.to is None and len(report["timeline"]) >= MAX_TIMELINE:
        return TIMELINE_FULL
    return None


def part_of(situation: Situation) -> Part | None:
    """What the one who acts is to the case; None: a citizen who has nothing to do with it."""
    actor, report = situation.actor, situation.report
    if isinstance(actor, StaffSession):
        return "staff"
    if isinstance(actor, System):
        return "system"
    if report["reporter"]["citizen_id"] == actor.citizen_id:
        return "reporter"
    return "follower" if actor.citizen_id in report["followers"] else None


def wanted(report: Document) -> str | None:
    """What the reporter has been asked for and has not answered yet, while nobody has gone on without it."""
    steps = [e for e in report["timeline"] if e["action"] in ("ask_supplement", "supplement")]
    waits = report["state"] == State.SUBMITTED and bool(steps) and steps[-1]["action"] == "ask_supplement"
    return str(steps[-1]["reason"]) if waits else None
