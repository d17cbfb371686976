"""What the table of transitions foretells: for each attempt success or the refusal, and what the system does by itself.

No input, no output, and of the product nothing but the table: what a fact means is said here a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from random import Random
from typing import Any

from core.clock import now, shanghai
from reports.lifecycle import table as rules
from reports.lifecycle.table import ACTIONS, DORMANT, Transition
from reports.queries import HIDDEN
from reports.states import OPEN, State
from tests.lifecycle.calls import (
    ANSWERS,
    CATEGORIES,
    CITIZENS,
    FINDER,
    GIVEN,
    MUST_COME,
    NOBODY,
    PATHS,
    REFUSED_WITH,
    STAFF,
    STREET,
    STREET_CENTRE,
    UNKNOWN,
    Call,
)
from tests.lifecycle.case import Case
from tests.seeding import RULES

EXTENSIONS, SUSPENSION_DAYS, REOPEN_DAYS, URGE_HOURS, DORMANT_DAYS = 2, 365, 15, 24, 7
"""What the table and the configuration allow, as the field has it."""

Refusal = tuple[int, str]
"""The status and the code of what is not done."""


@cache
def rows_of(part: str, state: State, permissions: frozenset[str] | None = None) -> list[Transition]:
    """The rows of the table for ``part`` in ``state``: those that ``permissions`` allow, where they are asked for."""
    found = [row for row in rules.TRANSITIONS if part in row.actors and state in row.origins]
    return [row for row in found if permissions is None or row.permission in permissions]


@dataclass
class Model:
    """One case and the people around it: ``permissions`` by member of staff, ``with_photo`` who has one to give."""

    case: Case
    permissions: dict[str, frozenset[str]]
    with_photo: frozenset[str]
    two_level: bool = False

    def reaches(self, who: str) -> bool:
        """Whether the case is within the areas and the units of a member of staff."""
        if who.startswith("unit-"):
            return who.removeprefix("unit-") in dict(self.case.units)
        return who not in (STREET, STREET_CENTRE) or self.case.in_street

    def sees(self, who: str) -> bool:
        """Whether ``who``, signed in, gets to read the case. Its words pass the check."""
        shown = self.case.public and self.case.state not in HIDDEN
        return who == self.case.reporter or (self.reaches(who) if who in STAFF else who in CITIZENS and shown)

    def part(self, who: str) -> str | None:
        """What ``who`` is to the case."""
        if who in STAFF:
            return "staff"
        return "reporter" if who == self.case.reporter else "follower" if who in self.case.followers else None

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
                before = case.done("dispatch", "redispatch", "pass_on") is not None
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
                return case.rough is (fact == "place_rough")
            case "own_finding":
                return case.kind == "finding" and who == FINDER
            case "answerable":
                waits = case.state is State.SUBMITTED and case.done("ask_supplement", "supplement") == "ask_supplement"
                return case.reporter is not None and not waits
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

    def closed(self, row: Transition, who: str, at: datetime) -> str | None:
        """The code of what keeps ``row`` from ``who`` at that moment: a fact that is lacking, or a hindrance."""
        fact = self.lacking(row, who, at)
        return REFUSED_WITH[fact] if fact is not None else self.hindrance(row)

    def lacking(self, row: Transition, who: str, at: datetime) -> str | None:
        """The first fact of ``row`` that does not hold."""
        for fact in row.only:
            if not self.holds(fact, who, at):
                return fact
        return None

    def rows_for(self, who: str) -> list[Transition]:
        """The rows in the case's state that would be ``who``'s, were their facts so."""
        part = self.part(who)
        if part is None or (part == "staff" and not self.reaches(who)):
            return []
        return rows_of(part, self.case.state, self.permissions.get(who))

    def open_to(self, who: str, at: datetime) -> list[Transition]:
        """The rows open to ``who`` at that moment, read off the table itself: of each action the first that holds."""
        found = dict[str, Transition]()
        for row in self.rows_for(who):
            if row.action not in found and self.closed(row, who, at) is None:
                found[row.action] = row
        return list(found.values())

    def rows(self, call: Call) -> list[Transition]:
        """The rows of the call's action in the case's state."""
        part = self.part(call.who)
        return [row for row in rows_of(part, self.case.state) if row.action == call.action] if part else []

    def row(self, call: Call) -> Transition | None:
        """The one row that ``call`` goes by."""
        return next((t for t in self.rows(call) if self.closed(t, call.who, now()) is None), None)

    @staticmethod
    def at_the_door(call: Call) -> Refusal | None:
        """The refusal by the API itself, before the case is looked at; None: it is for the case to say."""
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
        return None

    def foretell(self, call: Call) -> Refusal | None:
        """The refusal of what the API has let through; None: it is done. In the order: may they, the case, the rest."""
        if call.action not in ACTIONS:
            return 404, "NO_SUCH_ACTION"
        parts = {"staff"} if call.who in STAFF else {"reporter", "follower"}
        theirs = [t for t in rules.TRANSITIONS if t.action == call.action and parts & set(t.actors)]
        if not theirs:
            return 403, "NOT_YOURS_TO_DO"
        if call.who in STAFF and theirs[0].permission not in self.permissions[call.who]:
            return 403, "NO_PERMISSION"
        if not self._may_know(call):
            return 404, "NO_SUCH_REPORT"
        if call.version not in (None, self.case.version):
            return 409, "STALE_VERSION"
        here = self.rows(call)
        if not here:
            return 409, "STALE_STATE"
        row = self.row(call)
        if row is None:
            code = self.closed(here[0], call.who, now())
            assert code is not None
            return 409, code
        if row.repeats and call.who in STAFF and call.version is None:
            return 428, "VERSION_OR_KEY_REQUIRED"
        return self._wrong_with(call, row)

    def _may_know(self, call: Call) -> bool:
        part, case = self.part(call.who), self.case
        if part == "follower":
            theirs = [t for t in rules.TRANSITIONS if t.action == call.action and "follower" in t.actors]
            return case.public and case.state not in HIDDEN and bool(theirs)
        return part == "reporter" or (part == "staff" and self.reaches(call.who))

    def foretell_follow(self, who: str) -> Refusal | None:
        """The refusal of the wish of a citizen to be told too; None: they are told from now on."""
        case = self.case
        if who == case.reporter:
            return 409, "OWN_REPORT"
        if not case.public or case.state in HIDDEN:
            return 404, "NO_SUCH_REPORT"
        if case.state is State.MERGED:
            return 409, "MERGED"
        return (409, "NOT_OPEN") if case.state not in OPEN else None

    def hindrance(self, row: Transition) -> str | None:
        """The code of what stands in the way of ``row``."""
        present = {"checks": self.case.open_checks, "children": self.case.open_children}
        return next((rules.HINDRANCES[name].code for name in row.free_of if present.get(name)), None)

    def _wrong_with(self, call: Call, row: Transition) -> Refusal | None:
        given = call.given.keys()
        missing = set(row.needs) - given or (row.some_of and given.isdisjoint(row.some_of))
        not_so = row.outcomes and call.given.get("resolved") not in row.outcomes
        if missing or not_so or given - {*row.needs, *row.takes, *row.some_of}:
            return 422, "INVALID"
        until = self.case.until(row, call.given)
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

    def routing(self) -> list[tuple[Transition, dict[str, Any]]]:
        """What the system does with a case that it is to route: (row, given), in order."""
        case, found = self.case, []
        of_system = {t.action: t for t in rules.TRANSITIONS if "system" in t.actors}
        # Of what the hotline hands on staff have to read every word first.
        waits = case.state is State.SUBMITTED and (case.open_checks or case.kind == "order")
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

    def by_itself(self, moment: datetime) -> list[Transition]:
        """What the system does at ``moment`` because of the time, in order: going on, and reminding."""
        of_system = {t.action: t for t in rules.TRANSITIONS if "system" in t.actors}
        if self.case.state is State.SUSPENDED:
            return [of_system["resume"]] if self.case.pauses[-1][1] <= moment else []
        return [of_system["remind"]] if self.holds("dormant", "system", moment) else []
