"""The words that the table of transitions is written in: states, who acts, what is given, and what a row may say.

The rows themselves are in :mod:`reports.lifecycle.table`; what each fact means is in :mod:`reports.lifecycle.guards`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from reports.lifecycle.milestones import Mark
from reports.states import State

Actor = Literal["reporter", "follower", "staff", "system"]
Need = Literal[
    "reason", "note", "photos", "unit", "co_units", "category", "condition", "assignee", "until", "resolved", "score",
    "into", "children", "location", "address",
]  # fmt: skip
Told = Literal["filed", "dispatched", "closed", "rework", "supplement"]
"""Notices to the reporter and the followers; each has a subscribe-message template."""

TOLD_REPORTER: frozenset[Told] = frozenset({"supplement"})
"""Those that ask for what the reporter alone can give: followers get none."""

Ask = Literal["extension", "suspension", "appeal"]
"""What a unit may ask for and somebody else decides: 延期, 挂账, 超时申诉."""

Clears = Literal["unit", "category", "rating", "request", "parts"]
Clock = Literal["starts", "restarts", "extends", "stops", "resumes", "ends", "cancels"]

Fact = Literal[
    "by_lead", "by_part", "parts_done", "direct", "street_first", "by_street", "not_by_street", "first_dispatch",
    "dispatched_before", "in_time", "extension_left", "nothing_asked", "extension_asked", "suspension_asked",
    "appeal_asked", "was_late", "never_appealed", "not_urged_lately", "closed_lately", "dormant",
    "own_finding", "place_rough", "place_exact", "answerable", "never_asked", "check_open", "splittable",
]  # fmt: skip

TYPED: frozenset[Need] = frozenset({"reason", "note", "address", "children"})
"""What is given in words of one's own."""

NEED_NAMES: dict[Need, str] = {
    "reason": "理由",
    "note": "说明",
    "photos": "照片",
    "unit": "处置部门",
    "co_units": "协办部门",
    "category": "问题类别",
    "condition": "立案条件",
    "assignee": "处置人员",
    "until": "挂账截止日期",
    "resolved": "是否解决",
    "score": "评分",
    "into": "主案件编号",
    "children": "拆分出的案件",
    "location": "位置坐标",
    "address": "地址",
}


@dataclass(frozen=True)
class Hindrance:
    """Something that must not be on a case for a step to be taken: ``field``, a list on the case, has to be empty.

    The condition is part of the update that takes the step, so that nothing comes between the look and the step.
    """

    field: str
    code: str
    message: str


HINDRANCES: dict[str, Hindrance] = {
    "checks": Hindrance("open_checks", "CHECK_OPEN", "现场核实或核查尚未完成，请待采集员反馈，或取消后再操作。"),
    "children": Hindrance("open_children", "CHILDREN_OPEN", "拆分出的案件尚未全部结案，请待其结案后再操作。"),
    "absorbed": Hindrance("absorbed", "HAS_ABSORBED", "已有其他人的上报并入本案，不能撤回；如已解决，请补充说明。"),
}


SAME: Final = "{says}"
"""Citizens read what staff read."""


@dataclass(frozen=True)
class Transition:
    """One row: in any state of ``origins``, ``actors`` may do ``action``, which leads to ``to``.

    ``to`` None leaves the state as it is. Staff need the permission ``report.<action>`` and the case within reach.
    ``only`` are facts (:mod:`reports.lifecycle.guards`) that must hold besides; an action may have several rows for one
    state, told apart by them, and the first that holds is taken.

    ``needs`` must be given, ``takes`` may be, of ``some_of`` at least one; nothing else is accepted. ``outcomes`` is
    what ``resolved`` may be, where not everything. What is given is kept on the case (its unit, category, rating) or in
    the timeline; ``clears`` takes something off the case again ("parts": what the units have done). A ``location``
    moves the case: its areas follow from it in the same update.

    ``clock`` starts the time limit of the filing condition anew, restarts it where it runs, adds the original limit
    once more, stops it until a date, lets it go on, ends it (the unit is done), or cancels it. ``asks`` puts a request
    on the case, which a row with ``answers`` takes off; ``removes_part`` and ``ends_part`` are for the acting co-unit.

    ``says`` is what the timeline tells staff, ``shows`` what it tells citizens (:data:`SAME`, or None: they do not see
    the step); see :meth:`reports.lifecycle.planner.Planner._words` for what is filled in. Of the words that staff type
    with it (:data:`TYPED`) citizens read, there or beside it, those that it ``shares``, and no others. What is
    ``confided`` goes to the reporter alone: other citizens read the step's ``label`` in its place.

    ``tells`` is the notice owed to the reporter and followers, and ``message`` its last line, of at most 20 characters;
    ``owes`` is further work for the worker, "resume" on the date until which the clock stops; ``settles`` is what is
    owed no more. ``marks`` is what it writes into the case's milestones. ``publishes``: staff who do it have read the
    case and seen its photos, which makes one that a partner handed on public. ``free_of``: what must not be on the
    case, by the names of :data:`HINDRANCES`. ``checks``: it asks for a check on site, or calls off those that are open.
    ``teaches``: what a member of staff who does it has said of the case: that it is of its category, that it was taken
    for another, or that what was said before of its category holds no more. ``repeats``: taken again it happens again,
    to others as well, and the case stands no different in between: staff give the version that they saw, or a key.
    """

    action: str
    label: str
    origins: tuple[State, ...]
    actors: tuple[Actor, ...]
    to: State | None
    says: str
    shows: str | None
    only: tuple[Fact, ...] = ()
    needs: tuple[Need, ...] = ()
    takes: tuple[Need, ...] = ()
    some_of: tuple[Need, ...] = ()
    outcomes: tuple[Literal["yes", "partly", "no"], ...] = ()
    clears: tuple[Clears, ...] = ()
    clock: Clock | None = None
    asks: Ask | None = None
    answers: Ask | None = None
    ends_part: bool = False
    removes_part: bool = False
    tells: Told | None = None
    owes: tuple[str, ...] = ()
    settles: tuple[str, ...] = ()
    shares: tuple[Need, ...] = ()
    confided: bool = False
    message: str | None = None
    marks: tuple[Mark, ...] = ()
    publishes: bool = False
    free_of: tuple[str, ...] = ()
    checks: Literal["asks", "cancels"] | None = None
    teaches: Literal["category", "correction", "nothing"] | None = None
    repeats: bool = False

    @property
    def to_citizens(self) -> str | None:
        """What citizens read, still to be filled in."""
        return self.says if self.shows == SAME else self.shows

    @property
    def permission(self) -> str:
        """What a member of staff must hold."""
        return f"report.{self.action}"
