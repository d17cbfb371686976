"""What the table of transitions foretells: for each attempt success or the refusal, and what a success makes of a case.

No input, no output, and of the product nothing but the table, the categories and the working time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

from reports import rules
from reports.catalogue import starting_categories
from reports.deadlines import WorkCalendar, due_at
from reports.queries import HIDDEN
from reports.rules import ACTIONS, OPEN, State, Transition
from tests.district import RULES, UNITS

REPORTER, OTHER, NOBODY = "reporter", "another citizen", "nobody"
CITIZENS = (REPORTER, OTHER)
STREET = "street-dispatcher"
CENTRE = ("collector", "intake", "dispatcher", "verifier", "duty_chief", "assessor", "admin")
STAFF = (*CENTRE, *(f"unit-{u}" for u in UNITS), STREET)
EVERYBODY = (*CITIZENS, NOBODY, *STAFF)

ORDINARY_WAY = ("file", "dispatch", "accept", "handle", "close", "rate")
CATEGORIES = {c.key: c for c in starting_categories()}
ANSWERS = {"danger": "no"}

# The reporter's actions have addresses of their own, and each body its own names for what is given.
PATHS = {"supplement": "supplements", "withdraw": "withdrawal", "rate": "rating"}
CITIZENS_FORM = {
    "supplement": {"note": "note", "photos": "photo_ids"},
    "withdraw": {"reason": "reason"},
    "rate": {"resolved": "resolved", "score": "score", "note": "comment", "photos": "photo_ids"},
}
STAFFS_FORM = {
    "reason": "reason",
    "note": "note",
    "photos": "photo_ids",
    "unit": "unit",
    "category": "category",
    "into": "into",
    "children": "children",
}

GIVEN: dict[str, tuple[Any, ...]] = {
    "reason": ("查看后决定", "现场情况有变"),
    "note": ("已到现场", "按规定办理"),
    "photos": ("own",),
    "unit": UNITS,
    "category": ("other", "other", *RULES),
    "resolved": ("yes", "partly", "no"),
    "score": (1, 2, 3, 4, 5),
    "into": ("an earlier case",),
    "children": ("one part",),
}
UNKNOWN = {"photos": "foreign", "unit": "no_such_unit", "category": "no_such_category", "into": "no case"}


@dataclass(frozen=True)
class Call:
    """One attempt: who does what, with what, on which version; ``extra``: and with a key that nobody takes."""

    who: str
    action: str
    given: dict[str, Any]
    version: int | None = None
    extra: bool = False

    @property
    def form(self) -> dict[str, str]:
        """What the endpoint knows, with the name that it has there."""
        return STAFFS_FORM if self.who in STAFF else CITIZENS_FORM.get(self.action, {})

    @property
    def path(self) -> str:
        """The address behind the case's own."""
        return f"actions/{self.action}" if self.who in STAFF else PATHS.get(self.action, f"actions/{self.action}")


@dataclass
class Case:
    """What a case must be."""

    number: str
    in_street: bool
    category: str | None
    state: State = State.SUBMITTED
    unit: str | None = None
    rating: tuple[str, int] | None = None
    due: datetime | None = None
    handled: datetime | None = None
    late: bool = False
    open_checks: bool = False
    open_children: list[str] = field(default_factory=list)
    followers: list[str] = field(default_factory=list)
    steps: list[tuple[str, State | None, State]] = field(default_factory=lambda: [("submit", None, State.SUBMITTED)])
    notices: list[tuple[str, str]] = field(default_factory=list)

    @property
    def version(self) -> int:
        """One more with every step."""
        return len(self.steps)


@dataclass
class Model:
    """One case and the people around it: ``permissions`` by member of staff, ``with_photo`` who has one to give."""

    case: Case
    permissions: dict[str, frozenset[str]]
    with_photo: frozenset[str]
    reporter: str
    calendar: WorkCalendar

    def reaches(self, who: str) -> bool:
        """Whether the case is within the areas and the unit of a member of staff."""
        if who.startswith("unit-"):
            return self.case.unit == who.removeprefix("unit-")
        return who != STREET or self.case.in_street

    def sees(self, who: str) -> bool:
        """Whether ``who``, signed in, gets to read the case. Its words pass the check."""
        return {REPORTER: True, OTHER: self.case.state not in HIDDEN}.get(who, who in STAFF and self.reaches(who))

    def open_to(self, who: str) -> list[Transition]:
        """The rows open to ``who`` now, read off the table itself."""
        here = [t for t in rules.TRANSITIONS if self.case.state in t.origins]
        if who == REPORTER:
            return [t for t in here if "reporter" in t.actors]
        if who not in STAFF or not self.reaches(who):
            return []
        return [t for t in here if "staff" in t.actors and f"report.{t.action}" in self.permissions[who]]

    def row(self, call: Call) -> Transition | None:
        """The one row that ``call`` goes by in the case's state."""
        actor = "staff" if call.who in STAFF else "reporter"
        mine = [t for t in rules.TRANSITIONS if t.action == call.action and actor in t.actors]
        return next((t for t in mine if self.case.state in t.origins), None)

    def foretell(self, call: Call) -> tuple[int, str] | None:
        """The status and code of the refusal; None: it is done. Asked in the order: who, form, may they, the case."""
        is_staff = call.who in STAFF
        if not is_staff and call.action not in PATHS:
            return 404, "NO_SUCH_ADDRESS"
        if call.who == NOBODY:
            return 401, "NOT_SIGNED_IN"
        complete = is_staff or call.action != "rate" or {"resolved", "score"} <= call.given.keys()
        if call.extra or call.version == 0 or not complete or not call.given.keys() <= call.form.keys():
            return 422, "INVALID"
        if call.action not in ACTIONS:
            return 404, "NO_SUCH_ACTION"
        if is_staff and not [t for t in rules.TRANSITIONS if t.action == call.action and "staff" in t.actors]:
            return 403, "NOT_YOURS_TO_DO"
        if is_staff and f"report.{call.action}" not in self.permissions[call.who]:
            return 403, "NO_PERMISSION"
        if call.who == OTHER or (is_staff and not self.reaches(call.who)):
            return 404, "NO_SUCH_REPORT"
        row = self.row(call)
        if row is None or call.version not in (None, self.case.version):
            return 409, "STALE_STATE"
        if hindrance := self.hindrance(row):
            return 409, hindrance
        return self._wrong_with(call, row)

    def hindrance(self, row: Transition) -> str | None:
        """The code of what stands in the way of ``row``."""
        present = {"checks": self.case.open_checks, "children": self.case.open_children}
        return next((rules.HINDRANCES[name].code for name in row.free_of if present.get(name)), None)

    def _wrong_with(self, call: Call, row: Transition) -> tuple[int, str] | None:
        given = call.given.keys()
        missing = set(row.needs) - given or (row.some_of and given.isdisjoint(row.some_of))
        if missing or given - {*row.needs, *row.takes, *row.some_of}:
            return 422, "INVALID"
        if call.given.get("category") == UNKNOWN["category"]:
            return 422, "NO_SUCH_CATEGORY"
        if call.given.get("unit") == UNKNOWN["unit"]:
            return 422, "NO_SUCH_UNIT"
        if "photos" in given and (call.given["photos"] == UNKNOWN["photos"] or call.who not in self.with_photo):
            return 422, "PHOTO_UNKNOWN"
        if call.given.get("into") == UNKNOWN["into"]:
            return 404, "NO_SUCH_REPORT"
        return None

    def right_given(self, random: Random, who: str, row: Transition) -> dict[str, Any]:
        """What ``row`` needs, and some of what it takes."""
        names = [*row.needs, *row.some_of[:1]]
        names += [n for n in row.takes if random.random() < 0.5 and (n != "photos" or who in self.with_photo)]
        return {name: random.choice(GIVEN[name]) for name in names}

    def take(self, row: Transition, given: dict[str, Any], at: datetime) -> list[str]:
        """Let ``row`` happen at the moment ``at``; the kinds of the debts that it leaves."""
        case = self.case
        case.category = given.get("category", case.category)
        case.unit = given.get("unit", case.unit)
        if "score" in given:
            case.rating = (given["resolved"], given["score"])
        for name in row.clears:
            setattr(case, name, None)
        checks = ["offer_check"] if row.checks == "asks" else []
        if case.open_checks and (row.checks == "cancels" or row.to not in (None, case.state)):
            checks = ["cancel_checks"]
        case.open_checks = row.checks == "asks" or (case.open_checks and not checks)
        if row.clock == "starts" or (row.clock == "restarts" and case.due is not None):
            limit = CATEGORIES[case.category or ""].condition_for(ANSWERS).limit
            case.due, case.handled, case.late = due_at(at, limit, self.calendar), None, False
        elif row.clock == "cancels":
            case.due, case.handled, case.late = None, None, False
        elif row.clock == "ends":
            case.handled, case.late = at, case.due is not None and case.due < at
        case.steps.append((row.action, case.state, row.to or case.state))
        case.state = row.to or case.state
        told = [self.reporter, *case.followers] if row.tells else []
        case.notices += [(str(row.tells), person) for person in told]
        return [*row.owes, *checks, *["notify"] * len(told), *["attach"] * ("photos" in given)]

    def routing(self) -> list[tuple[Transition, dict[str, Any]]]:
        """What the system does with a case that it is to route: (row, given), in order."""
        case, found = self.case, []
        of_system = {t.action: t for t in rules.TRANSITIONS if "system" in t.actors}
        waits = case.state is State.SUBMITTED and case.open_checks
        if case.category is not None and case.state in (State.SUBMITTED, State.FILED) and not waits:
            if case.state is State.SUBMITTED:
                found.append((of_system["file"], {"category": case.category}))
            if case.category in RULES:
                found.append((of_system["dispatch"], {"unit": RULES[case.category]}))
        return found

    def pass_to(self, moment: datetime) -> None:
        """It is ``moment``, and the timetable has marked what is late."""
        case = self.case
        running = case.due is not None and case.handled is None and case.state in OPEN
        case.late = case.late or (running and case.due is not None and case.due < moment)
