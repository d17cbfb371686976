"""What the table of transitions foretells: for each attempt success or the refusal, and what a success makes of a case.

No input, no output, and of the product nothing but the table, the categories and the working time: what a fact means,
and what a clock does, is said here a second time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from random import Random
from typing import Any

from core.clock import now, shanghai
from reports import rules
from reports.case_clock import end_of
from reports.deadlines import Limit, WorkCalendar, due_at
from reports.models import Condition
from reports.queries import HIDDEN
from reports.rules import ACTIONS, DORMANT, OPEN, State, Transition
from tests.api.lifecycle_calls import (
    ANSWERS,
    CATEGORIES,
    GIVEN,
    MUST_COME,
    NOBODY,
    OTHER,
    PATHS,
    REFUSED_WITH,
    REPORTER,
    STAFF,
    STREET,
    STREET_CENTRE,
    UNKNOWN,
    Call,
)
from tests.seeding import RULES, UNITS

EXTENSIONS, SUSPENSION_DAYS, REOPEN_DAYS, URGE_HOURS, DORMANT_DAYS = 2, 365, 15, 24, 7
"""What the table and the configuration allow, as the field has it."""


@dataclass
class Case:
    """What a case must be. ``units``: the lead first, with whether each is done."""

    number: str
    in_street: bool
    category: str | None
    state: State = State.SUBMITTED
    units: list[tuple[str, bool]] = field(default_factory=list)
    assigned: bool = False
    rating: tuple[str, int] | None = None
    condition: str | None = None
    started: datetime | None = None
    extensions: int = 0  # of the clock that runs
    pauses: list[tuple[datetime, datetime]] = field(default_factory=list)
    due: datetime | None = None
    handled: datetime | None = None
    late: bool = False
    open_checks: bool = False
    open_children: list[str] = field(default_factory=list)
    request: tuple[str, date | None] | None = None
    closed: datetime | None = None
    touched: datetime | None = None
    urged: dict[str, datetime] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    exempt: bool = False
    followers: list[str] = field(default_factory=list)
    followed_by_other: bool = False
    steps: list[tuple[str, State | None, State]] = field(default_factory=lambda: [("submit", None, State.SUBMITTED)])
    notices: list[tuple[str, str]] = field(default_factory=list)

    @property
    def version(self) -> int:
        """One more with every step."""
        return len(self.steps)

    @property
    def unit(self) -> str | None:
        """The lead unit."""
        return self.units[0][0] if self.units else None

    def done(self, *actions: str) -> str | None:
        """The last of ``actions`` that was taken."""
        return next((a for a, _, _ in reversed(self.steps) if a in actions), None)


@dataclass
class Model:
    """One case and the people around it: ``permissions`` by member of staff, ``with_photo`` who has one to give."""

    case: Case
    permissions: dict[str, frozenset[str]]
    with_photo: frozenset[str]
    reporter: str
    calendar: WorkCalendar
    two_level: bool = False

    def reaches(self, who: str) -> bool:
        """Whether the case is within the areas and the units of a member of staff."""
        if who.startswith("unit-"):
            return who.removeprefix("unit-") in dict(self.case.units)
        return who not in (STREET, STREET_CENTRE) or self.case.in_street

    def sees(self, who: str) -> bool:
        """Whether ``who``, signed in, gets to read the case. Its words pass the check."""
        return {REPORTER: True, OTHER: self.case.state not in HIDDEN}.get(who, who in STAFF and self.reaches(who))

    def part(self, who: str) -> str | None:
        """What ``who`` is to the case."""
        if who in STAFF:
            return "staff"
        return "reporter" if who == REPORTER else "follower" if who == OTHER and self.case.followed_by_other else None

    def holds(self, fact: str, who: str, at: datetime) -> bool:
        """What each fact of the table means."""
        case = self.case
        mine = who.removeprefix("unit-") if who.startswith("unit-") else None
        asked = case.request[0] if case.request else None
        street_first = self.two_level  # every place of the test district lies in a street
        match fact:
            case "by_lead":
                return mine in (None, case.unit)
            case "by_part":
                return any(unit == mine and not done for unit, done in case.units[1:])
            case "parts_done":
                return all(done for _, done in case.units[1:])
            case "street_first":
                return street_first
            case "direct":
                return not street_first or case.done("return_to_district") is not None
            case "by_street" | "not_by_street":
                by_street = case.done("dispatch", "redispatch", "pass_on") == "pass_on"
                return by_street is (fact == "by_street")
            case "first_dispatch" | "dispatched_before":
                before = case.done("dispatch", "pass_on") is not None
                return before is (fact == "dispatched_before")
            case "in_time":
                return case.due is not None and not case.late and at <= case.due
            case "extension_left":
                return case.counts.get("extended", 0) < EXTENSIONS
            case "nothing_asked":
                return asked is None
            case "extension_asked" | "suspension_asked" | "appeal_asked":
                return asked == fact.removesuffix("_asked")
            case "was_late":
                return case.late
            case "never_appealed":
                return case.counts.get("appealed", 0) == 0
            case "not_urged_lately":
                return who not in case.urged or case.urged[who] <= at - timedelta(hours=URGE_HOURS)
            case "closed_lately":
                return case.closed is not None and at <= case.closed + timedelta(days=REOPEN_DAYS)
            case "place_rough" | "place_exact":
                return fact == "place_exact"  # a citizen gives a point
            case "own_finding":
                return False  # the model's case is a citizen's
            case "answerable":
                return case.done("ask_supplement", "supplement") != "ask_supplement"  # a citizen's, as said above
            case "never_asked":
                return case.done("ask_supplement") is None
            case "check_open":
                return case.open_checks
            case "splittable":
                return True  # no walk is long enough for fifty children
            case "dormant":
                since = case.touched
                return case.state in DORMANT and since is not None and since + timedelta(days=DORMANT_DAYS) <= at
        raise AssertionError(f"say here what {fact} means")

    def lacking(self, row: Transition, who: str, at: datetime) -> str | None:
        """The first fact of ``row`` that does not hold."""
        return next((fact for fact in row.only if not self.holds(fact, who, at)), None)

    def open_to(self, who: str) -> list[Transition]:
        """The rows open to ``who`` now, read off the table itself: of each action the first that holds."""
        part = self.part(who)
        if part is None or (part == "staff" and not self.reaches(who)):
            return []
        at, found = now(), dict[str, Transition]()
        for row in rules.TRANSITIONS:
            permitted = part != "staff" or f"report.{row.action}" in self.permissions[who]
            here = part in row.actors and permitted and self.case.state in row.origins
            if here and not self.lacking(row, who, at) and not self.hindrance(row):
                found.setdefault(row.action, row)
        return list(found.values())

    def rows(self, call: Call) -> list[Transition]:
        """The rows of the call's action in the case's state."""
        part = self.part(call.who)
        mine = [t for t in rules.TRANSITIONS if t.action == call.action and part in t.actors]
        return [t for t in mine if self.case.state in t.origins]

    def row(self, call: Call) -> Transition | None:
        """The one row that ``call`` goes by."""
        here = self.rows(call)
        return next((t for t in here if not self.lacking(t, call.who, now()) and not self.hindrance(t)), None)

    def foretell(self, call: Call) -> tuple[int, str] | None:
        """The status and code of the refusal; None: it is done. Asked in the order: who, form, may they, the case."""
        is_staff = call.who in STAFF
        if not is_staff and call.action not in PATHS:
            return 404, "NO_SUCH_ADDRESS"
        if call.who == NOBODY:
            return 401, "NOT_SIGNED_IN"
        complete = is_staff or MUST_COME.get(call.action, set()) <= call.given.keys()
        wrong_value = not is_staff and call.action == "reopen" and call.given.get("resolved") == "yes"
        known = call.given.keys() <= call.form.keys()
        if call.extra or call.version == 0 or not complete or wrong_value or not known:
            return 422, "INVALID"
        if call.action not in ACTIONS:
            return 404, "NO_SUCH_ACTION"
        if is_staff and not [t for t in rules.TRANSITIONS if t.action == call.action and "staff" in t.actors]:
            return 403, "NOT_YOURS_TO_DO"
        if is_staff and f"report.{call.action}" not in self.permissions[call.who]:
            return 403, "NO_PERMISSION"
        if not self._may_know(call, is_staff):
            return 404, "NO_SUCH_REPORT"
        if call.version not in (None, self.case.version):
            return 409, "STALE_VERSION"
        here = self.rows(call)
        if not here:
            return 409, "STALE_STATE"
        row = self.row(call)
        if row is None:
            fact = self.lacking(here[0], call.who, now())
            hindrance = REFUSED_WITH[fact] if fact is not None else self.hindrance(here[0])
            assert hindrance is not None
            return 409, hindrance
        if row.repeats and call.version is None:
            return 428, "VERSION_OR_KEY_REQUIRED"
        return self._wrong_with(call, row)

    def _may_know(self, call: Call, is_staff: bool) -> bool:
        if is_staff:
            return self.reaches(call.who)
        if call.who == REPORTER:
            return True
        theirs = [t for t in rules.TRANSITIONS if t.action == call.action and "follower" in t.actors]
        return self.case.followed_by_other and self.case.state not in HIDDEN and bool(theirs)

    def hindrance(self, row: Transition) -> str | None:
        """The code of what stands in the way of ``row``."""
        present = {"checks": self.case.open_checks, "children": self.case.open_children}
        return next((rules.HINDRANCES[name].code for name in row.free_of if present.get(name)), None)

    def _wrong_with(self, call: Call, row: Transition) -> tuple[int, str] | None:
        given = call.given.keys()
        missing = set(row.needs) - given or (row.some_of and given.isdisjoint(row.some_of))
        if missing or given - {*row.needs, *row.takes, *row.some_of}:
            return 422, "INVALID"
        until = self.until(row, call.given)
        today = shanghai(now()).date()
        if until is not None and not today <= until <= today + timedelta(days=SUSPENSION_DAYS):
            return 422, "UNTIL_OUT_OF_RANGE"
        unknown = {name for name in given if call.given[name] == UNKNOWN.get(name)}
        codes = {
            "category": "NO_SUCH_CATEGORY",
            "condition": "NO_SUCH_CONDITION",
            "unit": "NO_SUCH_UNIT",
            "co_units": "CO_UNITS_REPEATED",
            "assignee": "NO_SUCH_ASSIGNEE",
            "photos": "PHOTO_UNKNOWN",
            "location": "OUTSIDE_DISTRICT",
        }
        if given >= {"location"} and call.given["location"] == "out of it" and call.who in (STREET, STREET_CENTRE):
            return 422, "PLACE_OUT_OF_REACH"
        if "photos" in given and call.who not in self.with_photo:
            unknown.add("photos")
        if "into" in unknown and not unknown & codes.keys():
            return 404, "NO_SUCH_REPORT"
        if refused := next(((422, code) for name, code in codes.items() if name in unknown), None):
            return refused
        return (422, "CONDITION_REQUIRED") if self.leaves_open(row, call.given) else None

    def leaves_open(self, row: Transition, given: dict[str, Any]) -> bool:
        """Whether staff have to choose a condition: several fit, and none was chosen for the category before."""
        if "condition" not in row.takes or "condition" in given or "category" not in given:
            return False
        same = given["category"] == self.case.category
        return not (same and self.case.condition) and len(CATEGORIES[given["category"]].fitting(ANSWERS)) > 1

    def until(self, row: Transition, given: dict[str, Any]) -> date | None:
        """Until when a case is to be suspended: given, or asked for before."""
        if "until" in given:
            return shanghai(now()).date() + timedelta(days=given["until"])
        return self.case.request[1] if row.clock == "stops" and self.case.request else None

    def right_given(self, random: Random, who: str, row: Transition) -> dict[str, Any]:
        """What ``row`` needs, and some of what it takes."""
        names = [*row.needs, *row.some_of[:1]]
        names += [n for n in row.takes if random.random() < 0.5 and (n != "photos" or who in self.with_photo)]
        given: dict[str, Any] = {name: random.choice(self._choices(name, who, row)) for name in names}
        if self.leaves_open(row, given):
            given["condition"] = GIVEN["condition"][0]
        return given

    @staticmethod
    def _choices(name: str, who: str, row: Transition) -> tuple[Any, ...]:
        if name == "location" and who in (STREET, STREET_CENTRE):
            return GIVEN[name][:1]  # nobody moves a case out of their own reach
        return row.outcomes if name == "resolved" and row.outcomes else GIVEN[name]

    def take(self, row: Transition, given: dict[str, Any], at: datetime, who: str = "system") -> list[str]:
        """Let ``row`` happen at the moment ``at``; the kinds of the debts that it leaves."""
        case = self.case
        until = self.until(row, given)
        waits = ["resume"] if case.state is State.SUSPENDED and row.to is None else []  # what it owes until the date
        condition = self._condition(given, case.category)
        case.category = given.get("category", case.category)
        if "score" in given:
            case.rating = (given["resolved"], given["score"])
        self._units(row, given, who)
        if row.asks is not None:
            case.request = (row.asks, until)
        if row.answers is not None or "request" in row.clears:
            case.request = None
        for field_name in {"category", "rating"} & set(row.clears):
            setattr(case, field_name, None)
        if "category" in row.clears:
            case.condition = None
        elif "category" in given:
            case.condition = condition.key if condition is not None else None
        self._clock(row, at, until, condition)
        for mark in row.marks:
            case.counts[mark] = case.counts.get(mark, 0) + 1
        case.exempt = case.exempt or "exempt" in row.marks
        case.closed = at if "closed" in row.marks else case.closed
        if row.action == "urge":
            case.urged[who] = at
        case.touched = at
        if "location" in given:
            case.in_street = given["location"] == "in the street"
        checks, moving = ["offer_check"] if row.checks == "asks" else [], list[str]()
        if case.open_checks and (row.checks == "cancels" or row.to not in (None, case.state)):
            checks = ["cancel_checks"]
        if case.open_checks and "location" in given:
            moving = ["move_checks"]
        case.open_checks = row.checks == "asks" or (case.open_checks and not checks)
        case.steps.append((row.action, case.state, row.to or case.state))
        case.state = row.to or case.state
        # What the reporter alone can give is asked of nobody else.
        others = case.followers if row.action != "ask_supplement" else []
        told = [self.reporter, *others] if row.tells else []
        case.notices += [(str(row.tells), person) for person in told]
        said = who in STAFF and (row.teaches == "nothing" or (row.teaches is not None and case.category is not None))
        learnt = ["learn"] if said else []
        owed = [*row.owes, *learnt, *waits, *checks, *moving]
        return [*owed, *["notify"] * len(told), *["attach"] * ("photos" in given)]

    def _condition(self, given: dict[str, Any], before: str | None) -> Condition | None:
        key = given.get("category", before)
        if key is None:
            return None
        category = CATEGORIES[key]
        if "condition" in given:
            return category.conditions[-1]
        kept = category.condition(self.case.condition or "") if key == before else None
        return kept or category.condition_for(ANSWERS)

    def _units(self, row: Transition, given: dict[str, Any], who: str) -> None:
        case, mine = self.case, who.removeprefix("unit-")
        if "unit" in given:
            others = [unit for unit in UNITS if unit != given["unit"]] if "co_units" in given else []
            case.units, case.assigned = [(unit, False) for unit in (given["unit"], *others)], False
        if "unit" in row.clears:
            case.units, case.assigned = [], False
        if row.ends_part:
            case.units = [(unit, done or unit == mine) for unit, done in case.units]
        if row.removes_part:
            case.units = [(unit, done) for unit, done in case.units if unit != mine]
        if row.clock == "ends":
            case.units = [(unit, True) for unit, _ in case.units]
        if "parts" in row.clears:
            case.units = [(unit, False) for unit, _ in case.units]
        case.assigned = case.assigned or "assignee" in given

    def _clock(self, row: Transition, at: datetime, until: date | None, condition: Condition | None) -> None:
        case = self.case
        match row.clock:
            case "starts":
                self._start(at, condition)
            case "restarts" if case.due is not None:
                self._start(at, condition)
            case "extends":
                case.extensions += 1
                self._reckon()
            case "stops":
                assert until is not None
                case.pauses.append((at, end_of(until)))
                self._reckon()
            case "resumes":
                begin, end = case.pauses[-1]
                case.pauses[-1] = (begin, min(end, at))
                self._reckon()
            case "cancels":
                case.due, case.handled, case.late = None, None, False
                case.pauses = [(begin, min(end, at)) for begin, end in case.pauses]
            case "ends":
                case.handled, case.late = at, case.due is not None and case.due < at

    def _start(self, at: datetime, condition: Condition | None) -> None:
        assert condition is not None
        self.case.condition = condition.key
        self.case.started, self.case.extensions = at, 0
        self.case.handled, self.case.late = None, False
        # What was paused before does not touch a clock that starts after it.
        self.case.due = due_at(at, condition.limit, self.calendar)

    def _reckon(self) -> None:
        case = self.case
        assert case.started is not None
        assert case.category is not None
        condition = CATEGORIES[case.category].condition(case.condition or "")
        assert condition is not None
        limit = Limit(value=condition.limit.value * (1 + case.extensions), unit=condition.limit.unit)
        case.due = due_at(case.started, limit, self.calendar, case.pauses)

    def routing(self) -> list[tuple[Transition, dict[str, Any]]]:
        """What the system does with a case that it is to route: (row, given), in order."""
        case, found = self.case, []
        of_system = {t.action: t for t in rules.TRANSITIONS if "system" in t.actors}
        waits = case.state is State.SUBMITTED and case.open_checks
        if case.category is not None and case.state in (State.SUBMITTED, State.FILED) and not waits:
            if case.state is State.SUBMITTED:
                found.append((of_system["file"], {"category": case.category}))
            if self.two_level:
                found.append((of_system["send_to_street"], {}))
            elif case.category in RULES:
                before = self.holds("dispatched_before", "system", now())
                row = next(t for t in rules.rows("dispatch", "system") if ("dispatched_before" in t.only) is before)
                found.append((row, {"unit": RULES[case.category]}))
        return found

    def pass_to(self, moment: datetime) -> None:
        """It is ``moment``, and the timetable has marked what is late."""
        case = self.case
        running = case.due is not None and case.handled is None and case.state in OPEN
        case.late = case.late or (running and case.due is not None and case.due < moment)

    def by_itself(self, moment: datetime) -> list[Transition]:
        """What the system does at ``moment`` because of the time, in order: going on, and reminding."""
        of_system = {t.action: t for t in rules.TRANSITIONS if "system" in t.actors}
        if self.case.state is State.SUSPENDED:
            return [of_system["resume"]] if self.case.pauses[-1][1] <= moment else []
        return [of_system["remind"]] if self.holds("dormant", "system", moment) else []
