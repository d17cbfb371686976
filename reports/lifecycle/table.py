"""The life of a case: one table says who may do what when, what must be given, and who is told.

The API's open actions, the checks, the tests and ``docs/report-lifecycle.md`` are all made from :data:`TRANSITIONS`;
a new transition is a new row. Source of the stages: the seven stages of digital city management (数字城管), GB/T 30428.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accounts.models import StaffSession
from core.errors import Conflict
from reports.lifecycle.guards import Situation, part_of, refused, stale_version
from reports.lifecycle.row import HINDRANCES, NEED_NAMES, SAME, Actor, Need, Told, Transition
from reports.states import OPEN, STAFF_STATE_NAMES, STATE_NAMES, UNMERGED, State

__all__ = [
    "ACTIONS",
    "DORMANT",
    "HINDRANCES",
    "NEED_NAMES",
    "NOTE_SHOWN",
    "TRANSITIONS",
    "Actor",
    "Need",
    "Told",
    "Transition",
    "changed",
    "message_of",
    "open_rows",
    "rows",
    "stale_state",
]

S = State

DORMANT = tuple(state for state in OPEN if state is not S.SUSPENDED)
"""States in which a case that nobody touches is dormant: somebody should be doing something."""

_WORKING = (S.ACCEPTED, S.REWORK)
_OVER = (S.CLOSED, S.RATED)
_BEFORE_DISPATCH = (S.SUBMITTED, S.FILED, S.AT_STREET)

# A message has room for twenty characters: what happened. The rest is in the case, which it opens.
_DISPATCHED = "已派遣，处置部门将尽快处置"
_DISPATCHED_AGAIN = "已重新派遣，将尽快处置"
_ASKED = "请补充照片或说明，详见案件"

TRANSITIONS: tuple[Transition, ...] = (
    # Intake and filing
    Transition(
        "file", "立案", (S.SUBMITTED,), ("staff", "system"), S.FILED, "已立案，类别：{category}", SAME,
        needs=("category",), takes=("condition", "note"), clock="starts", tells="filed",
        message="已立案，将尽快派遣处置", owes=("route",), marks=("filed",), publishes=True, free_of=("checks",),
        teaches="category",
    ),
    Transition(
        "recategorise", "改类别", (S.SUBMITTED, S.FILED), ("staff",), None, "类别改为：{category}", SAME,
        needs=("category",), takes=("condition", "reason"), clock="restarts", owes=("route",), teaches="correction",
    ),
    Transition(
        "return_to_intake", "退回受理", (S.FILED,), ("staff",), S.SUBMITTED, "退回重新受理：{reason}", "正在重新受理",
        needs=("reason",), clears=("category",), clock="cancels", teaches="nothing",
    ),
    # The point (定位) of a case of which only an area was known, or of which it was wrong: until the case is handled.
    # Before it is dispatched the rules look at it again; afterwards the unit keeps it, unless it is dispatched anew.
    # The address is the case's own from then on.
    Transition(
        "locate", "定位", _BEFORE_DISPATCH, ("staff",), None, "位置核定为{place}", SAME,
        only=("place_rough",), needs=("location",), takes=("address", "reason"), owes=("route",), shares=("address",),
    ),
    Transition(
        "locate", "定位", _BEFORE_DISPATCH, ("staff",), None, "位置更正为{place}", SAME,
        only=("place_exact",), needs=("location", "reason"), takes=("address",), owes=("route",), shares=("address",),
    ),
    Transition(
        "locate", "定位", (S.DISPATCHED, *_WORKING, S.SUSPENDED), ("staff",), None, "位置核定为{place}", SAME,
        needs=("location", "reason"), takes=("address",), shares=("address",),
    ),
    # Dispatch (派遣): direct, or by way of the street where the district works on two levels
    Transition(
        "dispatch", "派遣", (S.FILED,), ("staff", "system"), S.DISPATCHED, "已派遣至{units}", SAME,
        only=("direct", "first_dispatch"), needs=("unit",), takes=("co_units", "note", "reason"), tells="dispatched",
        message=_DISPATCHED, marks=("dispatched",), teaches="category",
    ),
    Transition(
        "dispatch", "派遣", (S.FILED,), ("staff", "system"), S.DISPATCHED, "重新派遣至{units}", SAME,
        only=("direct", "dispatched_before"), needs=("unit", "reason"), takes=("co_units", "note"), tells="dispatched",
        message=_DISPATCHED_AGAIN, marks=("dispatched",), teaches="category",
    ),
    Transition(
        "send_to_street", "派至街道", (S.FILED,), ("staff", "system"), S.AT_STREET, "已派至{street}", SAME,
        only=("street_first",), takes=("note", "reason"),
    ),
    Transition(
        "pass_on", "街道派遣", (S.AT_STREET,), ("staff",), S.DISPATCHED, "{street}已派遣至{units}", SAME,
        only=("first_dispatch",), needs=("unit",), takes=("co_units", "note", "reason"), tells="dispatched",
        message=_DISPATCHED, marks=("dispatched",), teaches="category",
    ),
    Transition(
        "pass_on", "街道派遣", (S.AT_STREET,), ("staff",), S.DISPATCHED, "{street}重新派遣至{units}", SAME,
        only=("dispatched_before",), needs=("unit", "reason"), takes=("co_units", "note"), tells="dispatched",
        message=_DISPATCHED_AGAIN, marks=("dispatched",), teaches="category",
    ),
    Transition(
        "return_to_district", "退回区中心", (S.AT_STREET,), ("staff",), S.FILED, "{street}退回区中心：{reason}",
        "正在重新派遣", needs=("reason",),
    ),
    Transition(
        "redispatch", "改派", (S.DISPATCHED, *_WORKING), ("staff",), S.DISPATCHED, "改派至{units}：{reason}",
        "改派至{units}", needs=("unit", "reason"), takes=("co_units", "note"), clears=("request",), tells="dispatched",
        message=_DISPATCHED_AGAIN, marks=("dispatched",), teaches="category", repeats=True,
    ),
    # Handling (处置) by the lead unit and its co-units
    Transition(
        "accept", "接收", (S.DISPATCHED,), ("staff",), S.ACCEPTED, "{unit}已接收，正在处置", SAME,
        only=("by_lead",), takes=("note",), marks=("accepted",),
    ),
    Transition(
        "refuse", "退回", (S.DISPATCHED,), ("staff",), S.FILED, "{unit}退回，重新派遣：{reason}", "正在重新派遣",
        only=("by_lead", "not_by_street"), needs=("reason",), clears=("unit",), marks=("refused",),
    ),
    Transition(
        "refuse", "退回", (S.DISPATCHED,), ("staff",), S.AT_STREET, "{unit}退回{street}，重新派遣：{reason}",
        "正在重新派遣", only=("by_lead", "by_street"), needs=("reason",), clears=("unit",), marks=("refused",),
    ),
    Transition(
        "assign", "指派", (S.DISPATCHED, *_WORKING, S.SUSPENDED), ("staff",), None, "{unit}指派{assignee}处置", None,
        only=("by_lead",), needs=("assignee",), takes=("note",),
    ),
    Transition(
        "handle_part", "协办完成", (S.DISPATCHED, *_WORKING), ("staff",), None, "{co_unit}已完成协办部分", SAME,
        only=("by_part",), needs=("note", "photos"), ends_part=True,
    ),
    Transition(
        "refuse_part", "退出协办", (S.DISPATCHED, *_WORKING), ("staff",), None, "{co_unit}退出协办：{reason}",
        "{co_unit}不再协办", only=("by_part",), needs=("reason",), removes_part=True, marks=("refused",),
    ),
    Transition(
        "handle", "处置完成", _WORKING, ("staff",), S.HANDLED, "{unit}已处置，等待核查", SAME,
        only=("by_lead", "parts_done"), needs=("note", "photos"), shares=("note",), clears=("request",), clock="ends",
        marks=("handled",), free_of=("children",),
    ),
    # Extension (延期) and suspension (挂账): the unit asks, the duty chief decides
    Transition(
        "request_extension", "申请延期", _WORKING, ("staff",), None, "{unit}申请延期：{reason}", None,
        only=("by_lead", "in_time", "extension_left", "nothing_asked"), needs=("reason",), takes=("photos",),
        asks="extension",
    ),
    Transition(
        "approve_extension", "批准延期", _WORKING, ("staff",), None, "经批准，处置时限延长一次", SAME,
        only=("extension_asked", "in_time", "extension_left"), takes=("note",), answers="extension", clock="extends",
        marks=("extended",),
    ),
    Transition(
        "reject_extension", "不批准延期", _WORKING, ("staff",), None, "延期申请未批准：{reason}", None,
        only=("extension_asked",), needs=("reason",), answers="extension",
    ),
    Transition(
        "request_suspension", "申请挂账", _WORKING, ("staff",), None, "{unit}申请挂账至{until}：{reason}", None,
        only=("by_lead", "in_time", "nothing_asked"), needs=("reason", "until"), takes=("photos",), asks="suspension",
    ),
    Transition(
        "approve_suspension", "批准挂账", _WORKING, ("staff",), S.SUSPENDED, "经批准挂账至{until}，到期继续处置", SAME,
        only=("suspension_asked", "in_time"), takes=("until", "note"), answers="suspension", clock="stops",
        owes=("resume",), marks=("suspended",),
    ),
    Transition(
        "reject_suspension", "不批准挂账", _WORKING, ("staff",), None, "挂账申请未批准：{reason}", None,
        only=("suspension_asked",), needs=("reason",), answers="suspension",
    ),
    Transition(
        "resume", "恢复处置", (S.SUSPENDED,), ("staff", "system"), S.ACCEPTED, "挂账结束，{unit}继续处置", SAME,
        only=("by_lead",), takes=("note",), clock="resumes", settles=("resume",),
    ),
    # Verification and closing
    Transition(
        "close", "结案", (S.HANDLED,), ("staff",), S.CLOSED, "核查通过，已结案", SAME,
        takes=("note", "photos"), shares=("note",), tells="closed", message="核查通过，已结案", marks=("closed",),
        free_of=("checks", "children"), teaches="category",
    ),
    Transition(
        "rework", "返工", (S.HANDLED,), ("staff",), S.REWORK, "核查未通过，{unit}返工：{reason}",
        "核查未通过，已要求{unit}返工", needs=("reason",), takes=("photos",), clears=("rating", "request", "parts"),
        clock="starts", tells="rework", message="核查未通过，已要求返工", marks=("reworked",),
    ),
    Transition(
        "rework", "返工", _OVER, ("staff",), S.REWORK, "结案后退回返工：{reason}", "结案后退回，已要求{unit}返工",
        needs=("reason",), takes=("photos",), clears=("rating", "request", "parts"), clock="starts", tells="rework",
        message="结案后退回，已要求返工", marks=("reworked",),
    ),
    # After closing: rating by the reporter, reopening, and the unit's appeal against being late (超时申诉)
    Transition(
        "rate", "评价", (S.CLOSED,), ("reporter",), S.RATED, "上报人评价：{score} 分", SAME,
        needs=("resolved", "score"), takes=("note", "photos"),
    ),
    Transition(
        "reopen", "申请复查", _OVER, ("reporter", "follower"), S.HANDLED, "{who}反映问题未解决，重新核查", SAME,
        only=("closed_lately",), needs=("resolved", "reason"), takes=("photos",), outcomes=("partly", "no"),
        clears=("rating", "request"), marks=("reopened",),
    ),
    Transition(
        "appeal", "超时申诉", _OVER, ("staff",), None, "{unit}提出超时申诉：{reason}", None,
        only=("by_lead", "was_late", "never_appealed", "nothing_asked"), needs=("reason",), takes=("photos",),
        asks="appeal", marks=("appealed",),
    ),
    Transition(
        "approve_appeal", "申诉通过", _OVER, ("staff",), None, "超时申诉通过，不计入考核", None,
        only=("appeal_asked",), takes=("note",), answers="appeal", marks=("exempt",),
    ),
    Transition(
        "reject_appeal", "申诉驳回", _OVER, ("staff",), None, "超时申诉驳回：{reason}", None,
        only=("appeal_asked",), needs=("reason",), answers="appeal",
    ),
    # Settled on the spot by the collector who found it (自行处置); the unit is the one that would have had it
    Transition(
        "settle", "自行处置", (S.SUBMITTED,), ("staff",), S.CLOSED, "采集员已自行处置，予以结案", SAME,
        only=("own_finding",), needs=("category", "unit", "note", "photos"), tells="closed",
        message="采集员已自行处置，予以结案", settles=("route",), marks=("filed", "handled", "closed"),
        teaches="category",
    ),
    # Ends without handling. Why, is said to whoever reported it.
    Transition(
        "void", "作废", (S.SUBMITTED,), ("staff",), S.VOID, "不予立案：{reason}", SAME,
        needs=("reason",), shares=("reason",), tells="closed", message="不予立案，原因详见案件", clock="cancels",
        free_of=("children",), teaches="nothing",
    ),
    Transition(
        "void", "作废", (S.FILED, S.AT_STREET), ("staff",), S.VOID, "案件已作废：{reason}", SAME,
        needs=("reason",), shares=("reason",), tells="closed", message="案件已作废，原因详见案件", clock="cancels",
        free_of=("children",), teaches="nothing",
    ),
    Transition(
        "withdraw", "撤回", _BEFORE_DISPATCH, ("reporter",), S.WITHDRAWN, "上报人已撤回", SAME,
        takes=("reason",), clock="cancels", free_of=("absorbed", "children"),
    ),
    # Checks on site (核实 before filing, 核查 before closing), and cases that turn out to be one
    Transition(
        "ask_check", "发起核实", (S.SUBMITTED,), ("staff",), None, "已派采集员现场核实", SAME,
        takes=("reason",), free_of=("checks",), checks="asks",
    ),
    Transition(
        "ask_check", "发起核查", (S.HANDLED,), ("staff",), None, "已派采集员现场核查", SAME,
        takes=("reason",), free_of=("checks",), checks="asks",
    ),
    Transition(
        "cancel_check", "取消核实", (S.SUBMITTED,), ("staff",), None, "取消现场核实：{reason}", "已取消现场核实",
        only=("check_open",), needs=("reason",), checks="cancels",
    ),
    Transition(
        "cancel_check", "取消核查", (S.HANDLED,), ("staff",), None, "取消现场核查：{reason}", "已取消现场核查",
        only=("check_open",), needs=("reason",), checks="cancels",
    ),
    Transition(
        "check_result", "现场反馈", tuple(State), ("system",), None, "现场{check}：{verdict}", SAME,
    ),
    Transition(
        "merge", "并案", OPEN, ("staff",), S.MERGED, "与案件 {into} 反映同一问题，已并入该案办理", SAME,
        needs=("into", "reason"), clears=("request",), clock="cancels", owes=("absorb",), settles=("resume",),
        free_of=("children",),
    ),
    # What is said of each part is the description of a case that citizens read.
    Transition(
        "split", "拆分", (S.FILED, S.AT_STREET, S.DISPATCHED, S.ACCEPTED, S.REWORK), ("staff",), None,
        "拆分为 {children} 分别办理", SAME, only=("splittable",), needs=("children", "reason"), shares=("children",),
        owes=("create_children",), repeats=True,
    ),
    Transition(
        "keep_rest", "遗留问题另行立案", (S.CLOSED, S.RATED), ("staff",), None, "遗留问题另行立案：{children}", SAME,
        only=("splittable",), needs=("children", "reason"), shares=("children",), owes=("create_children",),
        repeats=True,
    ),
    Transition(
        "child_changed", "拆分案件进展", tuple(State), ("system",), None, "拆分出的案件 {case} {state}", SAME,
    ),
    Transition(
        "absorb", "并入", UNMERGED, ("system",), None, "案件 {case} 反映同一问题，已并入本案", SAME,
    ),
    Transition(
        "take_over", "并案材料", UNMERGED, ("system",), None, "案件 {case} 的材料", None,
    ),
    Transition(
        "unmerge", "恢复受理", (S.MERGED,), ("system",), S.SUBMITTED, "本案恢复受理：{reason}", SAME,
        needs=("reason",), clears=("unit",), owes=("route",),
    ),
    # Beside the way
    # The reporter is asked for more: by staff whenever no answer is awaited; by itself once: nobody is pestered.
    Transition(
        "ask_supplement", "请上报人补充", (S.SUBMITTED,), ("staff",), None, "请上报人补充：{reason}", SAME,
        only=("answerable",), needs=("reason",), shares=("reason",), confided=True, tells="supplement", message=_ASKED,
    ),
    Transition(
        "ask_supplement", "请上报人补充", (S.SUBMITTED,), ("system",), None, "请上报人补充：{reason}", SAME,
        only=("answerable", "never_asked"), needs=("reason",), confided=True, tells="supplement", message=_ASKED,
    ),
    Transition(
        "supplement", "补充", OPEN, ("reporter",), None, "上报人补充了情况", SAME,
        some_of=("note", "photos"), owes=("suggest",),
    ),
    Transition(
        "supplement", "补充", (S.MERGED,), ("reporter",), None, "上报人补充了情况，已转至主案件", SAME,
        some_of=("note", "photos"), owes=("absorb",),
    ),
    Transition(
        "urge", "催办", OPEN, ("reporter", "follower"), None, "{who}催办，请尽快处置", SAME,
        only=("not_urged_lately",), takes=("note",), marks=("urged",),
    ),
    Transition(
        "remind", "提醒", DORMANT, ("system",), None, "已{days}天无处置进展", None,
        only=("dormant",),
    ),
    Transition(
        "note", "备注", tuple(State), ("staff",), None, "内部备注", None,
        needs=("note",), takes=("photos",),
    ),
)  # fmt: skip

del S

ACTIONS = frozenset(t.action for t in TRANSITIONS)


def rows(action: str, actor: Actor) -> list[Transition]:
    """The rows that let ``actor`` do ``action``, in the table's order; empty when none does."""
    return [t for t in TRANSITIONS if t.action == action and actor in t.actors]


NOTE_SHOWN = frozenset(t.action for t in TRANSITIONS if "note" in t.shares)
"""Actions of staff whose note citizens read."""


def message_of(entry: Mapping[str, Any]) -> str:
    """The last line of the message that tells of the step which the timeline's ``entry`` is."""
    return next(
        t.message for t in TRANSITIONS if t.action == entry["action"] and entry["from"] in t.origins and t.message
    )


def open_rows(situation: Situation) -> list[Transition]:
    """What the one who acts may do now, one row for each action: the first that nothing stands in the way of.

    Whether the case is within reach is for the caller to see to.
    """
    part, state = part_of(situation), State(situation.report["state"])
    actor = situation.actor
    found: dict[str, Transition] = {}
    for row in TRANSITIONS:
        if part not in row.actors or state not in row.origins or row.action in found:
            continue
        if isinstance(actor, StaffSession) and row.permission not in actor.permissions:
            continue
        if refused(row, situation) is None:
            found[row.action] = row
    return list(found.values())


def changed(situation: Situation) -> Conflict:
    """The refusal of what was done on another version than the present one, with what is open now."""
    return stale_version(situation.report, actions=[row.action for row in open_rows(situation)])


def stale_state(situation: Situation) -> Conflict:
    """The refusal of what no row allows in the state that the case is in, with what is open now."""
    names = STAFF_STATE_NAMES if isinstance(situation.actor, StaffSession) else STATE_NAMES
    state = names[State(situation.report["state"])]
    details = changed(situation).details
    return Conflict(f"案件当前为「{state}」，不能执行此操作，请刷新。", code="STALE_STATE", details=details)
