"""The life of a case: one table says who may do what when, what must be given, and who is told.

The API's open actions, the checks, the tests and ``docs/report-lifecycle.md`` are all made from :data:`TRANSITIONS`;
a new transition is a new row. Source of the stages: the seven stages of digital city management (数字城管), GB/T 30428.
"""

from __future__ import annotations

from accounts.models import StaffSession
from reports.facts import Situation, missing, part_of
from reports.vocabulary import (
    HELD_BY_UNIT,
    HINDRANCES,
    NEED_NAMES,
    OPEN,
    STATE_NAMES,
    UNMERGED,
    Actor,
    Need,
    State,
    Told,
    Transition,
)

__all__ = [
    "ACTIONS",
    "DORMANT",
    "HELD_BY_UNIT",
    "HINDRANCES",
    "NEED_NAMES",
    "OPEN",
    "STATE_NAMES",
    "TRANSITIONS",
    "Actor",
    "Need",
    "State",
    "Told",
    "Transition",
    "open_rows",
    "rows",
]

S = State

DORMANT = tuple(state for state in OPEN if state is not S.SUSPENDED)
"""States in which a case that nobody touches is dormant: somebody should be doing something."""

_WORKING = (S.ACCEPTED, S.REWORK)
_OVER = (S.CLOSED, S.RATED)
_BEFORE_DISPATCH = (S.SUBMITTED, S.FILED, S.AT_STREET)

TRANSITIONS: tuple[Transition, ...] = (
    # Intake and filing
    Transition(
        "file", "立案", (S.SUBMITTED,), ("staff", "system"), S.FILED, "已立案，类别：{category}",
        needs=("category",), takes=("condition", "note"), clock="starts", tells="filed", owes=("route",),
        marks=("filed",), publishes=True, free_of=("checks",), teaches="category",
    ),
    Transition(
        "recategorise", "改类别", (S.SUBMITTED, S.FILED), ("staff",), None, "类别改为：{category}",
        needs=("category",), takes=("condition", "reason"), clock="restarts", owes=("route",), teaches="correction",
    ),
    Transition(
        "return_to_intake", "退回受理", (S.FILED,), ("staff",), S.SUBMITTED, "退回重新受理：{reason}",
        needs=("reason",), clears=("category",), clock="cancels", teaches="nothing",
    ),
    # The point (定位) of a case of which only an area was known, or of which it was wrong: until the case is handled.
    # Before it is dispatched the rules look at it again; afterwards the unit keeps it, unless it is dispatched anew.
    Transition(
        "locate", "定位", _BEFORE_DISPATCH, ("staff",), None, "位置核定在{place}",
        only=("place_rough",), needs=("location",), takes=("address", "reason"), owes=("route",),
    ),
    Transition(
        "locate", "定位", _BEFORE_DISPATCH, ("staff",), None, "位置更正为{place}",
        only=("place_exact",), needs=("location", "reason"), takes=("address",), owes=("route",),
    ),
    Transition(
        "locate", "定位", (S.DISPATCHED, *_WORKING, S.SUSPENDED), ("staff",), None, "位置核定在{place}",
        needs=("location", "reason"), takes=("address",),
    ),
    # Dispatch (派遣): direct, or by way of the street where the district works on two levels
    Transition(
        "dispatch", "派遣", (S.FILED,), ("staff", "system"), S.DISPATCHED, "已派遣至{units}",
        only=("direct", "first_dispatch"), needs=("unit",), takes=("co_units", "note", "reason"), tells="dispatched",
        marks=("dispatched",), teaches="category",
    ),
    Transition(
        "dispatch", "派遣", (S.FILED,), ("staff", "system"), S.DISPATCHED, "重新派遣至{units}",
        only=("direct", "dispatched_before"), needs=("unit", "reason"), takes=("co_units", "note"), tells="dispatched",
        marks=("dispatched",), teaches="category",
    ),
    Transition(
        "send_to_street", "交办街道", (S.FILED,), ("staff", "system"), S.AT_STREET, "已交办{street}",
        only=("street_first",), takes=("note", "reason"),
    ),
    Transition(
        "pass_on", "街道派遣", (S.AT_STREET,), ("staff",), S.DISPATCHED, "{street}已派遣至{units}",
        only=("first_dispatch",), needs=("unit",), takes=("co_units", "note", "reason"), tells="dispatched",
        marks=("dispatched",), teaches="category",
    ),
    Transition(
        "pass_on", "街道派遣", (S.AT_STREET,), ("staff",), S.DISPATCHED, "{street}重新派遣至{units}",
        only=("dispatched_before",), needs=("unit", "reason"), takes=("co_units", "note"), tells="dispatched",
        marks=("dispatched",), teaches="category",
    ),
    Transition(
        "return_to_district", "退回区中心", (S.AT_STREET,), ("staff",), S.FILED, "{street}退回区中心：{reason}",
        needs=("reason",),
    ),
    Transition(
        "redispatch", "改派", (S.DISPATCHED, *_WORKING), ("staff",), S.DISPATCHED, "改派至{units}：{reason}",
        needs=("unit", "reason"), takes=("co_units", "note"), clears=("request",), tells="dispatched",
        marks=("dispatched",), teaches="category", repeats=True,
    ),
    # Handling (处置) by the lead unit and its co-units
    Transition(
        "accept", "接收", (S.DISPATCHED,), ("staff",), S.ACCEPTED, "{unit}已接收，正在处置",
        only=("by_lead",), takes=("note",), marks=("accepted",),
    ),
    Transition(
        "refuse", "拒收", (S.DISPATCHED,), ("staff",), S.FILED, "{unit}退回，重新派遣：{reason}",
        only=("by_lead", "not_by_street"), needs=("reason",), clears=("unit",), marks=("refused",),
    ),
    Transition(
        "refuse", "拒收", (S.DISPATCHED,), ("staff",), S.AT_STREET, "{unit}退回{street}，重新派遣：{reason}",
        only=("by_lead", "by_street"), needs=("reason",), clears=("unit",), marks=("refused",),
    ),
    Transition(
        "assign", "指派", (S.DISPATCHED, *_WORKING, S.SUSPENDED), ("staff",), None, "{unit}指派{assignee}处置",
        only=("by_lead",), needs=("assignee",), takes=("note",), shown=False,
    ),
    Transition(
        "handle_part", "协办完成", (S.DISPATCHED, *_WORKING), ("staff",), None, "{co_unit}已完成协办部分",
        only=("by_part",), needs=("note", "photos"), ends_part=True,
    ),
    Transition(
        "refuse_part", "退出协办", (S.DISPATCHED, *_WORKING), ("staff",), None, "{co_unit}退出协办：{reason}",
        only=("by_part",), needs=("reason",), removes_part=True, marks=("refused",),
    ),
    Transition(
        "handle", "处置完成", _WORKING, ("staff",), S.HANDLED, "{unit}已处置，等待核查",
        only=("by_lead", "parts_done"), needs=("note", "photos"), clears=("request",), clock="ends", marks=("handled",),
        free_of=("children",),
    ),
    # Extension (延期) and suspension (挂账): the unit asks, the duty chief decides
    Transition(
        "request_extension", "申请延期", _WORKING, ("staff",), None, "{unit}申请延期：{reason}",
        only=("by_lead", "in_time", "extension_left", "nothing_asked"), needs=("reason",), takes=("photos",),
        asks="extension", shown=False,
    ),
    Transition(
        "approve_extension", "批准延期", _WORKING, ("staff",), None, "经批准，处置时限延长一次",
        only=("extension_asked", "in_time", "extension_left"), takes=("note",), answers="extension", clock="extends",
        marks=("extended",),
    ),
    Transition(
        "reject_extension", "不批准延期", _WORKING, ("staff",), None, "延期申请未批准：{reason}",
        only=("extension_asked",), needs=("reason",), answers="extension", shown=False,
    ),
    Transition(
        "request_suspension", "申请挂账", _WORKING, ("staff",), None, "{unit}申请挂账至{until}：{reason}",
        only=("by_lead", "in_time", "nothing_asked"), needs=("reason", "until"), takes=("photos",),
        asks="suspension", shown=False,
    ),
    Transition(
        "approve_suspension", "批准挂账", _WORKING, ("staff",), S.SUSPENDED, "经批准挂账至{until}，到期继续处置",
        only=("suspension_asked", "in_time"), takes=("until", "note"), answers="suspension", clock="stops",
        owes=("resume",), marks=("suspended",),
    ),
    Transition(
        "reject_suspension", "不批准挂账", _WORKING, ("staff",), None, "挂账申请未批准：{reason}",
        only=("suspension_asked",), needs=("reason",), answers="suspension", shown=False,
    ),
    Transition(
        "resume", "恢复处置", (S.SUSPENDED,), ("staff", "system"), S.ACCEPTED, "挂账结束，{unit}继续处置",
        only=("by_lead",), takes=("note",), clock="resumes", settles=("resume",),
    ),
    # Verification and closing
    Transition(
        "close", "结案", (S.HANDLED,), ("staff",), S.CLOSED, "核查通过，已结案",
        takes=("note", "photos"), tells="closed", marks=("closed",), free_of=("checks", "children"), teaches="category",
    ),
    Transition(
        "rework", "返工", (S.HANDLED, *_OVER), ("staff",), S.REWORK, "核查未通过，{unit}返工：{reason}",
        needs=("reason",), takes=("photos",), clears=("rating", "request", "parts"), clock="starts", tells="rework",
        marks=("reworked",),
    ),
    # After closing: rating by the reporter, reopening, and the unit's appeal against being late (超时申诉)
    Transition(
        "rate", "评价", (S.CLOSED,), ("reporter",), S.RATED, "上报人评价：{score} 分",
        needs=("resolved", "score"), takes=("note", "photos"),
    ),
    Transition(
        "reopen", "重新打开", _OVER, ("reporter", "follower"), S.HANDLED, "群众反映没有解决，重新核查",
        only=("closed_lately",), needs=("resolved", "reason"), takes=("photos",), outcomes=("partly", "no"),
        clears=("rating", "request"), marks=("reopened",),
    ),
    Transition(
        "appeal", "超时申诉", _OVER, ("staff",), None, "{unit}提出超时申诉：{reason}",
        only=("by_lead", "was_late", "never_appealed", "nothing_asked"), needs=("reason",), takes=("photos",),
        asks="appeal", marks=("appealed",), shown=False,
    ),
    Transition(
        "approve_appeal", "申诉通过", _OVER, ("staff",), None, "超时申诉通过，不计入考核",
        only=("appeal_asked",), takes=("note",), answers="appeal", marks=("exempt",), shown=False,
    ),
    Transition(
        "reject_appeal", "申诉驳回", _OVER, ("staff",), None, "超时申诉驳回：{reason}",
        only=("appeal_asked",), needs=("reason",), answers="appeal", shown=False,
    ),
    # Settled on the spot by the collector who found it (自行处置); the unit is the one that would have had it
    Transition(
        "settle", "自行处置", (S.SUBMITTED,), ("staff",), S.CLOSED, "采集员已现场处置，结案",
        only=("own_finding",), needs=("category", "unit", "note", "photos"), tells="closed", settles=("route",),
        marks=("filed", "handled", "closed"), teaches="category",
    ),
    # Ends without handling
    Transition(
        "void", "作废", _BEFORE_DISPATCH, ("staff",), S.VOID, "不予立案：{reason}",
        needs=("reason",), clock="cancels", free_of=("children",), teaches="nothing",
    ),
    Transition(
        "withdraw", "撤回", _BEFORE_DISPATCH, ("reporter",), S.WITHDRAWN, "上报人已撤回",
        takes=("reason",), clock="cancels", free_of=("absorbed", "children"),
    ),
    # Checks on site, and cases that turn out to be one
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
        needs=("into", "reason"), clears=("request",), clock="cancels", owes=("absorb",), settles=("resume",),
        free_of=("children",),
    ),
    Transition(
        "split", "拆分", (S.FILED, S.AT_STREET, S.DISPATCHED, S.ACCEPTED, S.REWORK), ("staff",), None,
        "拆分为 {children} 分别办理", needs=("children", "reason"), owes=("create_children",), repeats=True,
    ),
    Transition(
        "keep_rest", "余项另立", (S.CLOSED, S.RATED), ("staff",), None, "没有解决的部分另立案件 {children}",
        needs=("children", "reason"), owes=("create_children",), repeats=True,
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
    # Beside the way
    # More is asked for (请补充): by staff whenever no answer is awaited; by itself once, so that nobody is pestered.
    Transition(
        "ask_supplement", "请补充", (S.SUBMITTED,), ("staff",), None, "请补充：{reason}",
        only=("answerable",), needs=("reason",), tells="supplement",
    ),
    Transition(
        "ask_supplement", "请补充", (S.SUBMITTED,), ("system",), None, "请补充：{reason}",
        only=("answerable", "never_asked"), needs=("reason",), tells="supplement",
    ),
    Transition(
        "supplement", "补充", OPEN, ("reporter",), None, "上报人补充了情况",
        some_of=("note", "photos"), owes=("suggest",),
    ),
    Transition(
        "supplement", "补充", (S.MERGED,), ("reporter",), None, "上报人补充了情况，已转到并入的案件",
        some_of=("note", "photos"), owes=("absorb",),
    ),
    Transition(
        "urge", "催办", OPEN, ("reporter", "follower"), None, "群众催办，请尽快办理",
        only=("not_urged_lately",), takes=("note",), marks=("urged",),
    ),
    Transition(
        "remind", "提醒", DORMANT, ("system",), None, "已 {days} 天没有人办理，请尽快办理",
        only=("dormant",), shown=False,
    ),
    Transition(
        "note", "备注", tuple(State), ("staff",), None, "内部备注",
        needs=("note",), takes=("photos",), shown=False,
    ),
)  # fmt: skip

del S

ACTIONS = frozenset(t.action for t in TRANSITIONS)


def rows(action: str, actor: Actor) -> list[Transition]:
    """The rows that let ``actor`` do ``action``, in the table's order; empty when none does."""
    return [t for t in TRANSITIONS if t.action == action and actor in t.actors]


def open_rows(situation: Situation) -> list[Transition]:
    """What the one who acts may do now, one row for each action: the first whose state and facts are right.

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
        if missing(row, situation) is None:
            found[row.action] = row
    return list(found.values())
