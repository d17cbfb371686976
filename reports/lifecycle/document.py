"""Writes ``docs/report-lifecycle.md``: the life of a case for people to read, made from the table of transitions.

Nothing is said in it that the table, and the roles that a new district starts with, do not say; a test compares the
file in the repository with what is made here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from accounts.roles import starting_roles
from reports.lifecycle.guards import FACTS, Policy, told
from reports.lifecycle.row import SAME, TOLD_REPORTER
from reports.lifecycle.table import HINDRANCES, NEED_NAMES, TRANSITIONS, Need, Transition
from reports.states import HELD_BY_UNIT, OPEN, STAFF_STATE_NAMES, STATE_NAMES, State

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "report-lifecycle.md"

_HEAD = """\
# The life of a case

*Made from the table of transitions, `reports/lifecycle/table.py`, by `make docs`: change the table, not this file.*

What a citizen reports (上报) becomes a case (案卷). It stands in exactly one state at any time. Citizens, staff and the
system move it on by actions; each is one row of the table below. A row says in which states (状态) the action is open,
who may do it, what else must be so, what must be given with it, what becomes of the time limit (处置时限), and who is
told. An action may have several rows for one state: the first of which everything holds is taken.

What no row allows is refused: with 409 `STALE_STATE`, the present state and what is open in it; with 409
`STALE_VERSION` for what was done on another version than the present one; with 409 and a code of its own for what else
is not so; with 403 for who may not do it in any state; with 422 for what is missing or not taken. What is offered and
what is refused are asked of one rule. To whom a case is out of reach (another area, another unit, another citizen's) it
does not exist: 404.
"""

_WHO = """\
Staff need the permission `report.<action>`, which comes with their roles (角色), and the case within their areas; staff
of a disposal unit (处置部门) also need it to be their unit's, as the lead (主办) or beside another (协办). A follower
(关注人) is a citizen who follows another's case. The roles named here are those that a new district starts with;
afterwards they are data. *System* is the worker, acting by a rule.

*Timeline* is what staff read of a step, *To citizens* what citizens read instead, or nothing where that is the same; of
what staff type with it, citizens read what is named there after "with", and no more.
"""

_CLOCK = {
    "starts": "starts anew",
    "restarts": "starts anew, if it runs",
    "extends": "the original limit is added once more",
    "stops": "stands still until the date",
    "resumes": "goes on",
    "ends": "ends: handled",
    "cancels": "is cancelled",
    None: "",
}


def document() -> str:
    """The whole document, Markdown."""
    parts = [
        _HEAD,
        "## States\n",
        _states(),
        "## Ways\n",
        _ways(),
        "## Actions\n",
        _WHO,
        _actions(),
        "## Facts\n",
        _facts(),
    ]
    return "\n".join(parts)


def edges() -> list[tuple[State, State, Transition]]:
    """(from, to, row) of every way from one state to another, in the table's order; each action's once."""
    found = [(origin, row.to, row) for row in TRANSITIONS if row.to is not None for origin in row.origins]
    return list({(origin, to, row.action): (origin, to, row) for origin, to, row in reversed(found)}.values())[::-1]


def diagram() -> str:
    """The ways between states, as Mermaid's ``stateDiagram-v2``."""
    lines = ["stateDiagram-v2", "    direction TB"]
    lines += [f'    state "{STATE_NAMES[s]} {s}" as {s}' for s in State]
    lines += [f"    [*] --> {State.SUBMITTED}: 上报 submit"]
    lines += [f"    {origin} --> {to}: {row.label} {row.action}" for origin, to, row in edges()]
    left = {origin for origin, _, _ in edges()}
    lines += [f"    {s} --> [*]" for s in State if s not in left]
    return "\n".join(lines)


def _facts() -> str:
    used = dict.fromkeys(name for row in TRANSITIONS for name in row.only)
    return _table(
        ("Fact", "Meaning", "Refused with", "What people are told"),
        [(f"`{name}`", FACTS[name].text, f"`{FACTS[name].code}`", told(FACTS[name], Policy())) for name in used],
    )


def _ways() -> str:
    still = "、".join(dict.fromkeys(f"{row.label} `{row.action}`" for row in TRANSITIONS if row.to is None))
    return f"```mermaid\n{diagram()}\n```\n\nLeft out, because they leave the state as it is: {still}.\n"


def _states() -> str:
    rows = [
        (
            _state(state),
            "yes" if state in OPEN else "",
            "yes" if state in HELD_BY_UNIT else "",
            _codes(t.action for t in TRANSITIONS if "reporter" in t.actors and state in t.origins),
            _codes(t.action for t in TRANSITIONS if "staff" in t.actors and state in t.origins),
            _codes(t.action for t in TRANSITIONS if "system" in t.actors and state in t.origins),
        )
        for state in State
    ]
    return _table(("State", "Still to be done", "With the unit", "Reporter may", "Staff may", "System does"), rows)


def _state(state: State) -> str:
    """The state by its name, and by the one that staff read where that is another."""
    staff = STAFF_STATE_NAMES[state]
    return f"{STATE_NAMES[state]} `{state}`" + (f" (to staff: {staff})" if staff != STATE_NAMES[state] else "")


def _actions() -> str:
    rows = [
        (
            f"{row.label} `{row.action}`",
            "any" if set(row.origins) == set(State) else "、".join(STATE_NAMES[s] for s in row.origins),
            STATE_NAMES[row.to] if row.to is not None else "as it is",
            _who(row),
            _codes(row.only),
            "<br>".join(_given(row)),
            _CLOCK[row.clock],
            "<br>".join(_follows(row)),
            row.says,
            _citizens(row),
        )
        for row in TRANSITIONS
    ]
    head = (
        "Action",
        "From",
        "To",
        "Who",
        "Only if",
        "Given with it",
        "Time limit",
        "What follows",
        "Timeline",
        "To citizens",
    )
    return _table(head, rows)


def _citizens(row: Transition) -> str:
    """What citizens read of it, where that is not what staff read."""
    if row.shows is None:
        return "not shown"
    shared = f"with {_needs(row.shares)}" if row.shares else ""
    told = "<br>".join(part for part in ("" if row.shows == SAME else row.shows, shared) if part)
    return f"the reporter: {told or 'the same'}<br>others: {row.label}" if row.confided else told


def _who(row: Transition) -> str:
    found = []
    if "reporter" in row.actors:
        found.append("the reporter")
    if "follower" in row.actors:
        found.append("a follower")
    if "staff" in row.actors:
        roles = "、".join(role.name for role in starting_roles() if row.permission in role.permissions)
        found.append(f"`{row.permission}`: {roles}")
    if "system" in row.actors:
        found.append("the system")
    return "<br>".join(found)


def _given(row: Transition) -> Iterable[str]:
    if row.needs:
        yield f"must: {_needs(row.needs)}"
    if row.some_of:
        yield f"at least one of: {_needs(row.some_of)}"
    if row.takes:
        yield f"may: {_needs(row.takes)}"
    for hindrance in (HINDRANCES[name] for name in row.free_of):
        yield f"refused with `{hindrance.code}` while the case has `{hindrance.field}`"
    if row.repeats:
        yield "must: `version` or an `Idempotency-Key`"
    if row.outcomes:
        yield f"`resolved`: {_codes(row.outcomes)}"


def _follows(row: Transition) -> Iterable[str]:
    if row.tells is not None:
        people = "the reporter" if row.tells in TOLD_REPORTER else "reporter and followers"
        yield f"notice `{row.tells}` to {people}: {row.message}"
    if row.owes:
        yield f"the worker owes {_codes(row.owes)}"
    if row.clears:
        yield f"taken off the case: {_codes(row.clears)}"
    if row.asks is not None:
        yield f"asked for: `{row.asks}`"
    if row.answers is not None:
        yield f"decided: `{row.answers}`"
    if row.settles:
        yield f"owed no more: {_codes(row.settles)}"
    if row.marks:
        yield f"milestones: {_codes(row.marks)}"


def _needs(names: Iterable[Need]) -> str:
    return "、".join(f"{NEED_NAMES[name]} `{name}`" for name in names)


def _codes(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in dict.fromkeys(words))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
