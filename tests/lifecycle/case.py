"""What a row of the table of transitions makes of a case: said here a second time, beside the product.

Of the product nothing but the table, the categories and the working time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from core.clock import now, shanghai
from reports.lifecycle.case_clock import end_of
from reports.lifecycle.table import Transition
from reports.models import Condition
from reports.states import OPEN, State
from tests.lifecycle.calls import ANSWERS, CATEGORIES, REPORTER, STAFF, Kind
from tests.seeding import UNITS
from worktime.limits import Limit, WorkCalendar, due_at


@dataclass
class Case:
    """What a case must be. ``units``: the lead first, with whether each is done. People go by their names."""

    number: str
    in_street: bool
    category: str | None
    calendar: WorkCalendar
    kind: Kind = "citizen"
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
    rough: bool = False
    steps: list[tuple[str, State | None, State]] = field(default_factory=lambda: [("submit", None, State.SUBMITTED)])
    notices: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """The hotline knows no better where its case lies than an area."""
        self.rough = self.kind == "order"

    @property
    def reporter(self) -> str | None:
        """The citizen whose case it is."""
        return REPORTER if self.kind == "citizen" else None

    @property
    def public(self) -> bool:
        """Whether other citizens may see it; a citizen's words have passed the check."""
        return self.kind != "order"

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

    def until(self, row: Transition, given: dict[str, Any]) -> date | None:
        """Until when it is to be suspended: given in days from today, or asked for before."""
        if "until" in given:
            return shanghai(now()).date() + timedelta(days=given["until"])
        return self.request[1] if row.clock == "stops" and self.request else None

    def take(self, row: Transition, given: dict[str, Any], at: datetime, who: str = "system") -> list[str]:
        """Let ``row`` happen at the moment ``at``; the kinds of the debts that it leaves."""
        until = self.until(row, given)
        waits = ["resume"] if self.state is State.SUSPENDED and row.to is None else []  # what it owes until the date
        condition = self._condition(given, self.category)
        self.category = given.get("category", self.category)
        if "score" in given:
            self.rating = (given["resolved"], given["score"])
        self._units(row, given, who)
        if row.asks is not None:
            self.request = (row.asks, until)
        if row.answers is not None or "request" in row.clears:
            self.request = None
        for field_name in {"category", "rating"} & set(row.clears):
            setattr(self, field_name, None)
        if "category" in row.clears:
            self.condition = None
        elif "category" in given:
            self.condition = condition.key if condition is not None else None
        self._clock(row, at, until, condition)
        for mark in row.marks:
            self.counts[mark] = self.counts.get(mark, 0) + 1
        self.exempt = self.exempt or "exempt" in row.marks
        self.closed = at if "closed" in row.marks else self.closed
        if row.action == "urge":
            self.urged[who] = at
        self.touched = at
        if "location" in given:
            self.in_street, self.rough = given["location"] == "in the street", False
        checks = self._checks(row, given)
        self.steps.append((row.action, self.state, row.to or self.state))
        self.state = row.to or self.state
        told = self._told(row)
        said = who in STAFF and (row.teaches == "nothing" or (row.teaches is not None and self.category is not None))
        learnt = ["learn"] if said else []
        return [*row.owes, *learnt, *waits, *checks, *["notify"] * told, *["attach"] * ("photos" in given)]

    def _checks(self, row: Transition, given: dict[str, Any]) -> list[str]:
        """What becomes of checks on site: the debts of that."""
        owed = ["offer_check"] if row.checks == "asks" else []
        moving = ["move_checks"] if self.open_checks and "location" in given else []
        if self.open_checks and (row.checks == "cancels" or row.to not in (None, self.state)):
            owed = ["cancel_checks"]
        self.open_checks = row.checks == "asks" or (self.open_checks and not owed)
        return [*owed, *moving]

    def _told(self, row: Transition) -> int:
        """Note who is told of the step; how many."""
        if not row.tells:
            return 0
        # What the reporter alone can give is asked of nobody else.
        others = self.followers if row.action != "ask_supplement" else []
        told = [*([self.reporter] if self.reporter else []), *others]
        self.notices += [(row.tells, person) for person in told]
        return len(told)

    def _condition(self, given: dict[str, Any], before: str | None) -> Condition | None:
        key = given.get("category", before)
        if key is None:
            return None
        category = CATEGORIES[key]
        if "condition" in given:
            return category.conditions[-1]
        kept = category.condition(self.condition or "") if key == before else None
        return kept or category.condition_for(ANSWERS)

    def _units(self, row: Transition, given: dict[str, Any], who: str) -> None:
        mine = who.removeprefix("unit-")
        if "unit" in given:
            others = [unit for unit in UNITS if unit != given["unit"]] if "co_units" in given else []
            self.units, self.assigned = [(unit, False) for unit in (given["unit"], *others)], False
        if "unit" in row.clears:
            self.units, self.assigned = [], False
        if row.ends_part:
            self.units = [(unit, done or unit == mine) for unit, done in self.units]
        if row.removes_part:
            self.units = [(unit, done) for unit, done in self.units if unit != mine]
        if row.clock == "ends":
            self.units = [(unit, True) for unit, _ in self.units]
        if "parts" in row.clears:
            self.units = [(unit, False) for unit, _ in self.units]
        self.assigned = self.assigned or "assignee" in given

    def _clock(self, row: Transition, at: datetime, until: date | None, condition: Condition | None) -> None:
        match row.clock:
            case "starts":
                self._start(at, condition)
            case "restarts" if self.due is not None:
                self._start(at, condition)
            case "extends":
                self.extensions += 1
                self._reckon()
            case "stops":
                assert until is not None
                self.pauses.append((at, end_of(until)))
                self._reckon()
            case "resumes":
                begin, end = self.pauses[-1]
                self.pauses[-1] = (begin, min(end, at))
                self._reckon()
            case "cancels":
                self.due, self.handled, self.late = None, None, False
                self.pauses = [(begin, min(end, at)) for begin, end in self.pauses]
            case "ends":
                self.handled, self.late = at, self.due is not None and self.due < at

    def _start(self, at: datetime, condition: Condition | None) -> None:
        assert condition is not None
        self.condition = condition.key
        self.started, self.extensions = at, 0
        self.handled, self.late = None, False
        # What was paused before does not touch a clock that starts after it.
        self.due = due_at(at, condition.limit, self.calendar)

    def _reckon(self) -> None:
        assert self.started is not None
        assert self.category is not None
        condition = CATEGORIES[self.category].condition(self.condition or "")
        assert condition is not None
        limit = Limit(value=condition.limit.value * (1 + self.extensions), unit=condition.limit.unit)
        self.due = due_at(self.started, limit, self.calendar, self.pauses)

    def pass_to(self, moment: datetime) -> None:
        """It is ``moment``, and the timetable has marked what is late."""
        running = self.due is not None and self.handled is None and self.state in OPEN
        self.late = self.late or (running and self.due is not None and self.due < moment)
