"""Where a case stands: the states, what they are called, and which belong together."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a case (案卷) stands."""

    SUBMITTED = "submitted"
    FILED = "filed"
    AT_STREET = "at_street"
    DISPATCHED = "dispatched"
    ACCEPTED = "accepted"
    SUSPENDED = "suspended"
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
    State.AT_STREET: "待街道派遣",
    State.DISPATCHED: "已派遣",
    State.ACCEPTED: "处置中",
    State.SUSPENDED: "挂账中",
    State.HANDLED: "待核查",
    State.REWORK: "返工中",
    State.CLOSED: "已结案",
    State.RATED: "已评价",
    State.VOID: "已作废",
    State.WITHDRAWN: "已撤回",
    State.MERGED: "已并案",
}

STAFF_STATE_NAMES: dict[State, str] = STATE_NAMES | {State.FILED: "待派遣"}
"""What staff read: to whoever works on the case the state says what is to be done next."""

OPEN = (
    State.SUBMITTED, State.FILED, State.AT_STREET, State.DISPATCHED, State.ACCEPTED, State.SUSPENDED, State.HANDLED,
    State.REWORK,
)  # fmt: skip
"""States in which something is still to be done."""

UNMERGED = tuple(s for s in State if s is not State.MERGED)
"""All states of a case that goes its own way."""

HELD_BY_UNIT = (State.DISPATCHED, State.ACCEPTED, State.REWORK)
"""States in which the disposal unit's clock runs."""
