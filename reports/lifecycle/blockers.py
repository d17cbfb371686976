"""What one case is to another: earlier, merged into it; and what must not be on a case when a step is written."""

from __future__ import annotations

from core.errors import Conflict, Invalid, PreconditionRequired
from core.queue.debts import Amendment, Document
from reports.lifecycle.guards import MAX_CHILDREN, MAX_TIMELINE
from reports.lifecycle.table import HINDRANCES, Transition
from reports.models import Given
from reports.states import OPEN, STAFF_STATE_NAMES, State


def free_of(row: Transition) -> Document:
    """The condition, for the update that takes the step, that nothing stands in its way."""
    return {f"{HINDRANCES[name].field}.0": {"$exists": False} for name in row.free_of}


def room_for(row: Transition, given: Given) -> Document:
    """The condition, for the update that takes the step, that the case still holds what the step adds to it."""
    room: Document = {f"children.{MAX_CHILDREN - len(given.children)}": {"$exists": False}} if given.children else {}
    if row.to is None:
        room[f"timeline.{MAX_TIMELINE - 1}"] = {"$exists": False}
    return room


def check_told_apart(row: Transition, *, told: bool) -> None:
    """Raise :class:`PreconditionRequired` for a step that happens again when it is sent again, unless ``told`` how a
    repetition is known."""
    if row.repeats and not told:
        raise PreconditionRequired(
            f"「{row.label}」重复提交会重复办理，请刷新后带上案件版本（version）或请求标识（Idempotency-Key）再提交。",
            code="VERSION_OR_KEY_REQUIRED",
            details={"action": row.action},
        )


def is_earlier(one: Document, other: Document) -> bool:
    """Whether ``one`` was reported before ``other``: numbers come in blocks for each process, so the moment decides."""
    return (one["created_at"], one["_id"]) < (other["created_at"], other["_id"])


def merged_into(report: Document, target: Document) -> Amendment:
    """What merging ``report`` into ``target`` writes on ``report`` besides the step itself.

    Raises :class:`Invalid` (``MERGE_INTO_EARLIER``) when ``target`` was not reported earlier, and :class:`Conflict`
    (``TARGET_MERGED``, with where it went, or ``TARGET_NOT_OPEN``) when nothing is done about it any more.
    """
    other = target["_id"]
    if not is_earlier(target, report):
        raise Invalid(
            "只能并入更早上报的案件，请反过来操作：将较晚的案件并入较早的案件。",
            code="MERGE_INTO_EARLIER",
            details={"fields": [{"field": "into", "problem": "应为更早上报的案件编号"}]},
        )
    state = State(target["state"])
    if state is State.MERGED:
        raise Conflict(
            f"案件 {other} 已并入 {target['merged_into']}，请并入后者。",
            code="TARGET_MERGED",
            details={"merged_into": target["merged_into"]},
        )
    if state not in OPEN:
        raise Conflict(
            f"案件 {other} {STAFF_STATE_NAMES[state]}，不能再并入。", code="TARGET_NOT_OPEN", details={"state": state}
        )
    return Amendment(set={"merged_into": other})
