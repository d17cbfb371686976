"""The life of a case: one table says who may do what when, what must be given, and who is told.

The API's open actions, the checks, the tests and ``docs/report-lifecycle.md`` are all made from :data:`TRANSITIONS`;
a new transition is a new row. Source of the stages: the seven stages of digital city management (数字城管), GB/T 30428.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from reports.milestones import Mark


class State(StrEnum):
    """Where a case (案卷) stands."""

    SUBMITTED = "submitted"
    FILED = "filed"
    DISPATCHED = "dispatched"
    ACCEPTED = "accepted"
    HANDLED = "handled"
    REWORK = "rework"
    CLOSED = "closed"
    RATED = "rated"
    VOID = "void"
    WITHDRAWN = "withdrawn"
    MERGED = "merged"


STATE_NAMES: dict[State, str] = {
    State.SUBMITTED: "待受理",
    State.FILED: "已立案",
    State.DISPATCHED: "已派遣",
    State.ACCEPTED: "处置中",
    State.HANDLED: "待核查",
    State.REWORK: "返工中",
    State.CLOSED: "已结案",
    State.RATED: "已评价",
    State.VOID: "已作废",
    State.WITHDRAWN: "已撤回",
    State.MERGED: "已并案",
}

OPEN = (State.SUBMITTED, State.FILED, State.DISPATCHED, State.ACCEPTED, State.HANDLED, State.REWORK)
"""States in which something is still to be done."""

UNMERGED = tuple(s for s in State if s is not State.MERGED)
"""All states of a case that goes its own way."""

HELD_BY_UNIT = (State.DISPATCHED, State.ACCEPTED, State.REWORK)
"""States in which the disposal unit's clock runs."""

Actor = Literal["reporter", "staff", "system"]
Need = Literal["reason", "note", "photos", "unit", "category", "resolved", "score", "into", "children"]
Told = Literal["filed", "dispatched", "closed", "rework"]
"""Notices to the reporter and the followers; each has a subscribe-message template."""

NEED_NAMES: dict[Need, str] = {
    "reason": "理由",
    "note": "说明",
    "photos": "照片",
    "unit": "处置部门",
    "category": "问题类别",
    "resolved": "是否解决",
    "score": "评分",
    "into": "并入的案件编号",
    "children": "拆分出的案件",
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
    "checks": Hindrance("open_checks", "CHECK_OPEN", "现场核查还没有完成，请等采集员反馈，或取消核查后再操作。"),
    "children": Hindrance("open_children", "CHILDREN_OPEN", "拆分出的案件还没有全部办结，请等其办结后再操作。"),
    "absorbed": Hindrance("absorbed", "HAS_ABSORBED", "已有其他人的上报并入这个案件，不能撤回；如已解决，请补充说明。"),
}


@dataclass(frozen=True)
class Transition:
    """One row: in any state of ``origins``, ``actors`` may do ``action``, which leads to ``to``.

    ``to`` None leaves the state as it is. Staff need the permission ``report.<action>`` and the case within reach.
    ``needs`` must be given, ``takes`` may be, of ``some_of`` at least one; nothing else is accepted. What is given is
    kept on the case (its unit, category, rating) or in the timeline; ``clears`` takes something off the case again.
    ``clock`` starts the category's time limit anew, restarts it where it runs, ends it (the unit is done), or cancels
    it. ``says`` is what the timeline tells, in plain Chinese; {unit}, {category}, {reason} and {score} are filled in;
    ``shown`` tells whether citizens see the entry. ``tells`` is the notice owed to the reporter and followers; ``owes``
    is further work for the worker. ``marks`` is what it writes into the case's milestones. ``publishes``: staff who do
    it have read the case and seen its photos, which makes one that a partner handed on public. ``free_of``: what must
    not be on the case, by the names of :data:`HINDRANCES`. ``checks``: it asks for a check on site, or calls off those
    that are open.
    """

    action: str
    label: str
    origins: tuple[State, ...]
    actors: tuple[Actor, ...]
    to: State | None
    says: str
    needs: tuple[Need, ...] = ()
    takes: tuple[Need, ...] = ()
    some_of: tuple[Need, ...] = ()
    clears: tuple[Literal["unit", "category", "rating"], ...] = ()
    clock: Literal["starts", "restarts", "ends", "cancels"] | None = None
    tells: Told | None = None
    owes: tuple[str, ...] = ()
    shown: bool = True
    marks: tuple[Mark, ...] = ()
    publishes: bool = False
    free_of: tuple[str, ...] = ()
    checks: Literal["asks", "cancels"] | None = None

    @property
    def permission(self) -> str:
        """What a member of staff must hold."""
        return f"report.{self.action}"


S = State

TRANSITIONS: tuple[Transition, ...] = (
    Transition(
        "file", "立案", (S.SUBMITTED,), ("staff", "system"), S.FILED, "已立案，类别：{category}",
        needs=("category",), takes=("note",), clock="starts", tells="filed", owes=("route",), marks=("filed",),
        publishes=True, free_of=("checks",),
    ),
    Transition(
        "recategorise", "改类别", (S.SUBMITTED, S.FILED), ("staff",), None, "类别改为：{category}",
        needs=("category",), takes=("reason",), clock="restarts", owes=("route",),
    ),
    Transition(
        "dispatch", "派遣", (S.FILED,), ("staff", "system"), S.DISPATCHED, "已派遣至{unit}",
        needs=("unit",), takes=("note", "reason"), tells="dispatched", marks=("dispatched",),
    ),
    Transition(
        "return_to_intake", "退回受理", (S.FILED,), ("staff",), S.SUBMITTED, "退回重新受理：{reason}",
        needs=("reason",), clears=("category",), clock="cancels",
    ),
    Transition(
        "accept", "接收", (S.DISPATCHED,), ("staff",), S.ACCEPTED, "{unit}已接收，正在处置",
        takes=("note",), marks=("accepted",),
    ),
    Transition(
        "refuse", "拒收", (S.DISPATCHED,), ("staff",), S.FILED, "{unit}退回，重新派遣：{reason}",
        needs=("reason",), clears=("unit",), marks=("refused",),
    ),
    Transition(
        "handle", "处置完成", (S.ACCEPTED, S.REWORK), ("staff",), S.HANDLED, "{unit}已处置，等待核查",
        needs=("note", "photos"), clock="ends", marks=("handled",), free_of=("children",),
    ),
    Transition(
        "close", "结案", (S.HANDLED,), ("staff",), S.CLOSED, "核查通过，已结案",
        takes=("note", "photos"), tells="closed", marks=("closed",), free_of=("checks", "children"),
    ),
    Transition(
        "rework", "返工", (S.HANDLED, S.CLOSED, S.RATED), ("staff",), S.REWORK, "核查未通过，{unit}返工：{reason}",
        needs=("reason",), takes=("photos",), clears=("rating",), clock="starts", tells="rework",
        marks=("reworked",),
    ),
    Transition(
        "rate", "评价", (S.CLOSED,), ("reporter",), S.RATED, "上报人评价：{score} 分",
        needs=("resolved", "score"), takes=("note", "photos"),
    ),
    Transition(
        "void", "作废", (S.SUBMITTED, S.FILED), ("staff",), S.VOID, "不予立案：{reason}",
        needs=("reason",), clock="cancels", free_of=("children",),
    ),
    Transition(
        "withdraw", "撤回", (S.SUBMITTED, S.FILED), ("reporter",), S.WITHDRAWN, "上报人已撤回",
        takes=("reason",), clock="cancels", free_of=("absorbed", "children"),
    ),
    Transition(
        "ask_check", "发起核查", (S.SUBMITTED, S.HANDLED), ("staff",), None, "已请采集员到现场核查",
        takes=("reason",), free_of=("checks",), checks="asks",
    ),
    Transition(
        "cancel_check", "取消核查", (S.SUBMITTED, S.HANDLED), ("staff",), None, "取消现场核查：{reason}",
        needs=("reason",), checks="cancels", shown=False,
    ),
    Transition(
        "check_result", "核查结果", tuple(State), ("system",), None, "现场{check}：{verdict}",
    ),
    Transition(
        "merge", "并案", OPEN, ("staff",), S.MERGED, "与案件 {into} 反映同一问题，已并入该案办理",
        needs=("into", "reason"), clock="cancels", owes=("absorb",), free_of=("children",),
    ),
    Transition(
        "split", "拆分", (S.FILED, S.DISPATCHED, S.ACCEPTED, S.REWORK), ("staff",), None, "拆分为 {children} 分别办理",
        needs=("children", "reason"), owes=("create_children",),
    ),
    Transition(
        "keep_rest", "余项另立", (S.CLOSED, S.RATED), ("staff",), None, "没有解决的部分另立案件 {children}",
        needs=("children", "reason"), owes=("create_children",),
    ),
    Transition(
        "child_changed", "拆分案件进展", tuple(State), ("system",), None, "拆分出的案件 {case} {state}",
    ),
    Transition(
        "absorb", "并入", UNMERGED, ("system",), None, "案件 {case} 反映同一问题，已并入本案",
    ),
    Transition(
        "take_over", "并案材料", UNMERGED, ("system",), None, "案件 {case} 的材料", shown=False,
    ),
    Transition(
        "unmerge", "恢复受理", (S.MERGED,), ("system",), S.SUBMITTED, "本案恢复受理：{reason}",
        needs=("reason",), clears=("unit",), owes=("route",),
    ),
    Transition(
        "supplement", "补充", OPEN, ("reporter",), None, "上报人补充了情况",
        some_of=("note", "photos"),
    ),
    Transition(
        "supplement", "补充", (S.MERGED,), ("reporter",), None, "上报人补充了情况，已转到并入的案件",
        some_of=("note", "photos"), owes=("absorb",),
    ),
    Transition(
        "note", "备注", tuple(State), ("staff",), None, "内部备注",
        needs=("note",), takes=("photos",), shown=False,
    ),
)  # fmt: skip

del S

ACTIONS = frozenset(t.action for t in TRANSITIONS)


def rows(action: str, actor: Actor) -> list[Transition]:
    """The rows that let ``actor`` do ``action``; empty when none does. Their ``origins`` do not overlap."""
    return [t for t in TRANSITIONS if t.action == action and actor in t.actors]


def open_to_reporter(state: State) -> list[Transition]:
    """What the citizen who reported a case in ``state`` may do now."""
    return [t for t in TRANSITIONS if "reporter" in t.actors and state in t.origins]


def open_to_staff(state: State, permissions: frozenset[str]) -> list[Transition]:
    """What staff with ``permissions``, within reach of a case in ``state``, may do now."""
    return [t for t in TRANSITIONS if "staff" in t.actors and state in t.origins and t.permission in permissions]
