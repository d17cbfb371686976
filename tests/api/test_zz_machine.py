"""Hypothesis walks the table of transitions over HTTP with everybody at once, and a model says what must come of it.

The model is the table and nothing else: for each call it foretells success, or the status and code of the refusal;
after each success what the case must have become.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from core.clock import clock, now
from core.ids import new_id
from reports import rules
from reports.catalogue import starting_categories
from reports.deadlines import due_at
from reports.queries import HIDDEN
from reports.rules import ACTIONS, OPEN, State, Transition
from server.services import work_calendar
from tests.api.support import collector, problem
from tests.district import RULES, UNITS, Client, District, location, open_district

RUNS, STEPS = 25, 20
# A seed for each step: Hypothesis's own choices keep to the simplest and repeat themselves, and walks would hardly
# leave the spot. What a step was is noted.
SEEDS = st.integers(0, 2**32 - 1)

REPORTER, OTHER, NOBODY = "reporter", "another citizen", "nobody"
CENTRE = ("collector", "intake", "dispatcher", "verifier", "duty_chief", "assessor", "admin")
STREET = "street-dispatcher"
STAFF = (*CENTRE, *(f"unit-{u}" for u in UNITS), STREET)
EVERYBODY = (REPORTER, OTHER, NOBODY, *STAFF)

CATEGORIES = {c.key: c for c in starting_categories()}
ANSWERS = {"danger": "no"}
# Where the report lies: out of the street-dispatcher's street, and in it.
PLACES = {(113.2610, 23.1610): False, (113.2400, 23.1450): True}
# The reporter's actions have addresses of their own, and other names for what is given.
PATHS = {"supplement": "supplements", "withdraw": "withdrawal", "rate": "rating"}
REPORTERS_BODY: dict[str, dict[str, str]] = {
    "supplement": {"note": "note", "photos": "photo_ids"},
    "withdraw": {"reason": "reason"},
    "rate": {"resolved": "resolved", "score": "score", "note": "comment", "photos": "photo_ids"},
}
STAFFS_BODY = {"reason": "reason", "note": "note", "photos": "photo_ids", "unit": "unit", "category": "category"}
GIVEN: dict[str, tuple[Any, ...]] = {
    "reason": ("查看后决定", "现场情况有变"),
    "note": ("已到现场", "按规定办理"),
    "photos": ("own",),
    "unit": UNITS,
    "category": ("other", "other", *RULES),
    "resolved": ("yes", "partly", "no"),
    "score": (1, 2, 3, 4, 5),
}
UNKNOWN = {"photos": "foreign", "unit": "no_such_unit", "category": "no_such_category"}
ORDINARY_WAY = ("file", "dispatch", "accept", "handle", "close", "rate")
# What may be wrong with an attempt.
WRONGS = ("nothing", "nothing", "nothing", "missing", "superfluous", "unknown", "stale", "extra")


class Loop:
    """An event loop in a thread of its own with a district on it: Hypothesis's machines know no ``await``."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._opened: Future[District] = Future()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._live(arguments, options),))
        self._thread.start()
        self.district = self._opened.result(60)

    async def _live(self, arguments: Any, options: Any) -> None:
        try:
            async with open_district(*arguments, **options) as district:
                self._opened.set_result(district)
                await self._stop.wait()
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do ``work`` on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        """Close the district and end the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        self._loop.close()


@dataclass
class Case:
    """What the table says that the case must be."""

    number: str
    in_street: bool
    state: State = State.SUBMITTED
    category: str | None = None
    unit: str | None = None
    rating: tuple[str, int] | None = None
    due: datetime | None = None
    handled: datetime | None = None
    late: bool = False
    followers: list[str] = field(default_factory=list)
    steps: list[tuple[str, State | None, State]] = field(default_factory=lambda: [("submit", None, State.SUBMITTED)])
    notices: list[tuple[str, str]] = field(default_factory=list)

    @property
    def version(self) -> int:
        """One more with every step."""
        return len(self.steps)

    def take(self, row: Transition, given: dict[str, Any], at: datetime, calendar: Any, reporter: str) -> list[str]:
        """What ``row`` makes of the case; the kinds of debts that it leaves."""
        self.category = given.get("category", self.category)
        self.unit = given.get("unit", self.unit)
        if "score" in given:
            self.rating = (given["resolved"], given["score"])
        for name in row.clears:
            setattr(self, name, None)
        if row.clock == "starts" or (row.clock == "restarts" and self.due is not None):
            limit = CATEGORIES[self.category or ""].condition_for(ANSWERS).limit
            self.due, self.handled, self.late = due_at(at, limit, calendar), None, False
        elif row.clock == "cancels":
            self.due, self.handled, self.late = None, None, False
        elif row.clock == "ends":
            self.handled, self.late = at, self.due is not None and self.due < at
        self.steps.append((row.action, self.state, row.to or self.state))
        self.state = row.to or self.state
        people = [reporter, *self.followers] if row.tells else []
        self.notices += [(str(row.tells), person) for person in people]
        return [*row.owes, *["notify"] * len(people), *["attach"] * ("photos" in given)]


@dataclass(frozen=True)
class Call:
    """One attempt: who does what with what; ``extra`` is a key that nobody takes."""

    who: str
    action: str
    given: dict[str, Any]
    version: int | None = None
    extra: bool = False


class Lifecycle(RuleBasedStateMachine):
    """One case, everybody, and any action."""

    loop: Loop
    people: dict[str, Client]
    permissions: dict[str, frozenset[str]]
    photos: dict[str, str]
    tally: Counter[str]
    taken: set[tuple[str, State]]

    case: Case
    happened = 0
    looked_at: Any = None

    @property
    def district(self) -> District:
        return self.loop.district

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(work)

    @initialize(seed=SEEDS)
    def submit(self, seed: int) -> None:
        """A citizen reports, and the case goes some of the ordinary way; with a category the system files it."""
        random = Random(seed)
        place, category = random.choice(sorted(PLACES)), random.choice([None, "other"])
        answers = ANSWERS if category else {}
        number = self.run(
            self.district.submit(
                self.people[REPORTER],
                category=category,
                answers=answers,
                location=location(*place),
                photo_ids=[self.photos[REPORTER]],
            )
        )
        self.case = Case(number, PLACES[place], category=category)
        self._follow_up()
        for action in ORDINARY_WAY[: random.choice((0, 0, 0, 1, 1, 2, 3, 4, 5, 6))]:
            self._attempt_open(random, action)

    @rule(seed=SEEDS)
    def something_happens(self, seed: int) -> None:
        """A way that is open, so that the walks get somewhere; anybody's attempt at anything; or what goes on beside."""
        self.happened += 1
        random = Random(f"{seed} {self.happened}")
        match random.choices(("open", "anything", "follow", "time"), (10, 8, 1, 1))[0]:
            case "open":
                actions = {row.action for who in EVERYBODY for row in self._open_to(who)}
                self._attempt_open(random, random.choice(sorted(actions)))
            case "anything":
                self._attempt_anything(random)
            case "follow":
                self._follow(random.choice((REPORTER, OTHER)))
            case _:
                self._let_pass(timedelta(hours=random.choice((1, 30, 200))))

    def _attempt_anything(self, random: Random) -> None:
        who, action = random.choice(EVERYBODY), random.choice([*sorted(ACTIONS), "no_such_action"])
        row = next((t for t in rules.TRANSITIONS if t.action == action), rules.TRANSITIONS[-1])
        given = self._right_given(random, who, row)
        wrong = random.choice(WRONGS)
        version = None
        if wrong == "missing" and given:
            del given[random.choice(sorted(given))]
        elif wrong == "superfluous":
            more = random.choice(sorted(GIVEN))
            given[more] = random.choice(GIVEN[more])
        elif wrong == "unknown":
            given |= {n: v for n, v in UNKNOWN.items() if n in given}
        elif wrong == "stale" and who in STAFF:
            version = max(1, self.case.version + random.choice([-1, 1]))
        self._attempt(Call(who, action, given, version, extra=wrong == "extra"))

    def _follow(self, who: str) -> None:
        """A citizen wants to be told too."""
        answer = self.run(self.people[who].call("POST", f"/reports/{self.case.number}/follow", json={}))
        if who == REPORTER:
            problem(answer, 409, "OWN_REPORT")
        elif self.case.state in HIDDEN:
            problem(answer, 404, "NO_SUCH_REPORT")
        elif self.case.state not in OPEN:
            problem(answer, 409, "NOT_OPEN")
        else:
            assert answer.json()["followers"] == 1, answer.text
            self.case.followers = [self._person(OTHER)]

    def _let_pass(self, time: timedelta) -> None:
        """The clock goes on and the timetable marks what is late."""
        clock.offset += time
        self.run(self.district.services.reports.mark_late())
        case = self.case
        case.late = case.late or (
            case.due is not None and case.handled is None and case.due < now() and case.state in OPEN
        )

    @invariant()
    def the_case_is_what_the_model_says(self) -> None:
        """Everything that the table decides, and a timeline without a gap."""
        stored = self._stored()
        case = self.case
        rating = stored["rating"] and (stored["rating"]["resolved"], stored["rating"]["score"])
        assert (stored["state"], stored["category"], stored["unit_id"], rating) == (
            case.state,
            case.category,
            case.unit,
            case.rating,
        )
        assert (stored["due_at"], stored["handled_at"], stored["late"]) == (case.due, case.handled, case.late)
        assert [(e["action"], e["from"], e["to"]) for e in stored["timeline"]] == case.steps
        assert all(a["to"] == b["from"] for a, b in zip(stored["timeline"], stored["timeline"][1:], strict=False))
        assert stored["timeline"][-1]["to"] == stored["state"]
        assert len({e["id"] for e in stored["timeline"]}) == len(case.steps) == stored["version"] == case.version
        assert sorted((n["event"], n["citizen_id"]) for n in stored["notices"]) == sorted(case.notices)
        assert stored["owed"] == []

    @invariant()
    def everybody_is_offered_what_is_open_to_them(self) -> None:
        """What GET offers is what the model holds to be open, to each."""
        look = (self.case.number, self.case.state, self.case.unit)
        if look == self.looked_at:
            return
        self.looked_at = look
        for who, answer in self.run(self._look()).items():
            if who == NOBODY:
                problem(answer, 401, "NOT_SIGNED_IN")
            elif not self._sees(who):
                problem(answer, 404, "NO_SUCH_REPORT")
            else:
                offered = {a["action"]: (a["needs"], a["takes"]) for a in answer.json()["actions"]}
                wanted = {r.action: (list(r.needs), [*r.takes, *r.some_of]) for r in self._open_to(who)}
                assert offered == wanted, who

    def teardown(self) -> None:
        clock.offset = timedelta(0)

    async def _look(self) -> dict[str, httpx.Response]:
        answers = await asyncio.gather(
            *(client.call("GET", f"/reports/{self.case.number}") for client in self.people.values())
        )
        return dict(zip(self.people, answers, strict=True))

    # What the model knows of people.

    def _person(self, who: str) -> str:
        return str(self.people[who].facts["citizen_id"])

    def _sees(self, who: str) -> bool:
        """Whether the case is within the reach of ``who``."""
        if who == OTHER:
            return self.case.state not in HIDDEN
        return who == REPORTER or (who in STAFF and self._reaches(who))

    def _reaches(self, who: str) -> bool:
        if who.startswith("unit-"):
            return self.case.unit == who.removeprefix("unit-")
        return who != STREET or self.case.in_street

    def _open_to(self, who: str) -> list[Transition]:
        """The rows open to ``who`` now, read off the table itself."""
        here = [t for t in rules.TRANSITIONS if self.case.state in t.origins]
        if who == REPORTER:
            return [t for t in here if "reporter" in t.actors]
        if who not in STAFF or not self._reaches(who):
            return []
        return [t for t in here if "staff" in t.actors and f"report.{t.action}" in self.permissions[who]]

    # What is tried, and what must come of it.

    def _attempt_open(self, random: Random, action: str) -> None:
        """Somebody to whom ``action`` is open does it, with what it needs and some of what it takes, if anybody may."""
        ways = [(who, row) for who in EVERYBODY for row in self._open_to(who) if row.action == action]
        # Not everybody who may act may upload the photo that it takes.
        ways = [(who, row) for who, row in ways if "photos" not in row.needs or who in self.photos]
        if ways:
            who, row = random.choice(ways)
            version = random.choice([None, self.case.version]) if who in STAFF else None
            call = Call(who, action, self._right_given(random, who, row), version)
            assert self._foretell(call) is None
            self._attempt(call)

    def _right_given(self, random: Random, who: str, row: Transition) -> dict[str, Any]:
        names = [*row.needs, *row.some_of[:1]]
        names += [n for n in row.takes if random.random() < 0.5 and (n != "photos" or who in self.photos)]
        return {name: random.choice(GIVEN[name]) for name in names}

    def _attempt(self, call: Call) -> None:
        wanted = self._foretell(call)
        note(f"{call}: {wanted or 'done'}")
        answer = self.run(self._send(call))
        self.tally["done" if wanted is None else f"{wanted[0]} {wanted[1]}"] += 1
        if wanted is not None:
            details = problem(answer, *wanted)
            if wanted == (409, "STALE_STATE"):
                assert (details["state"], details["version"]) == (self.case.state, self.case.version)
                assert set(details["actions"]) == {row.action for row in self._open_to(call.who)}
            return
        assert answer.is_success, f"{call} was refused: {answer.text}"
        row = self._row(call)
        assert row is not None
        stored = self._stored()
        entry = stored["timeline"][-1]
        self.taken.add((call.action, self.case.state))
        kinds = self.case.take(row, call.given, entry["at"], self._calendar(), self._person(REPORTER))
        if call.who == REPORTER and {"note", "reason"} & call.given.keys():
            kinds.append("check_text")
        assert sorted(d["kind"] for d in stored["owed"]) == sorted(kinds)
        assert answer.json()["state"] == self.case.state
        assert entry["label"] == row.label
        assert entry["shown"] is row.shown
        assert (entry["reason"], entry["note"]) == (call.given.get("reason"), call.given.get("note"))
        assert entry["by"]["kind"] == ("reporter" if call.who == REPORTER else "staff")
        assert "{" not in entry["says"]
        assert "None" not in entry["says"]
        self._follow_up()

    def _foretell(self, call: Call) -> tuple[int, str] | None:
        """The status and code of the refusal; None: it is done. The order is who, may they, the form, the case."""
        actor = "reporter" if call.who in (REPORTER, OTHER) else "staff"
        if call.who not in STAFF and call.action not in PATHS:
            return 404, "NO_SUCH_ADDRESS"
        if call.who == NOBODY:
            return 401, "NOT_SIGNED_IN"
        if not self._in_form(call):
            return 422, "INVALID"
        mine = [t for t in rules.TRANSITIONS if t.action == call.action and actor in t.actors]
        if call.action not in ACTIONS:
            return 404, "NO_SUCH_ACTION"
        if not mine:
            return 403, "NOT_YOURS_TO_DO"
        if actor == "staff" and f"report.{call.action}" not in self.permissions[call.who]:
            return 403, "NO_PERMISSION"
        if call.who == OTHER or (actor == "staff" and not self._reaches(call.who)):
            return 404, "NO_SUCH_REPORT"
        row = self._row(call)
        if row is None or call.version not in (None, self.case.version):
            return 409, "STALE_STATE"
        return self._wrong_with(call, row)

    def _in_form(self, call: Call) -> bool:
        known = STAFFS_BODY if call.who in STAFF else REPORTERS_BODY[call.action]
        takes_version = call.who in STAFF
        complete = call.action != "rate" or call.who in STAFF or {"resolved", "score"} <= call.given.keys()
        return not call.extra and call.given.keys() <= known.keys() and complete and (takes_version or not call.version)

    def _wrong_with(self, call: Call, row: Transition) -> tuple[int, str] | None:
        given = call.given.keys()
        missing = set(row.needs) - given or (row.some_of and not given & set(row.some_of))
        if missing or given - {*row.needs, *row.takes, *row.some_of}:
            return 422, "INVALID"
        if call.given.get("category") == "no_such_category":
            return 422, "NO_SUCH_CATEGORY"
        if call.given.get("unit") == "no_such_unit":
            return 422, "NO_SUCH_UNIT"
        if "photos" in given and (call.given["photos"] == UNKNOWN["photos"] or call.who not in self.photos):
            return 422, "PHOTO_UNKNOWN"
        return None

    def _row(self, call: Call) -> Transition | None:
        actor = "staff" if call.who in STAFF else "reporter"
        found = [
            t
            for t in rules.TRANSITIONS
            if t.action == call.action and actor in t.actors and self.case.state in t.origins
        ]
        assert len(found) <= 1
        return found[0] if found else None

    async def _send(self, call: Call) -> httpx.Response:
        if call.who in STAFF:
            names, path = STAFFS_BODY, f"actions/{call.action}"
        else:
            names, path = REPORTERS_BODY.get(call.action, {}), PATHS.get(call.action, f"actions/{call.action}")
        body = {names.get(n, n): self._photo(call.who, v) if n == "photos" else v for n, v in call.given.items()}
        if call.version is not None:
            body["version"] = call.version
        if call.extra:
            body["surprise"] = 1
        return await self.people[call.who].call("POST", f"/reports/{self.case.number}/{path}", json=body)

    def _photo(self, who: str, which: str) -> list[str]:
        stranger = "unit-roads" if who != "unit-roads" else "unit-sanitation"
        return [self.photos[who if which == "own" and who in self.photos else stranger]]

    # What the system does by itself.

    def _follow_up(self) -> None:
        """Let the worker pay what the case owes, and have the model do what the system's rows say."""
        owed_route = any(d["kind"] == "route" for d in self._stored()["owed"])
        self.run(self._settle())
        if owed_route and self.case.category is not None:
            if self.case.state is State.SUBMITTED:
                self._by_system("file", {"category": self.case.category})
            if self.case.state is State.FILED and self.case.category in RULES:
                self._by_system("dispatch", {"unit": RULES[self.case.category]})

    def _by_system(self, action: str, given: dict[str, Any]) -> None:
        row = next(t for t in rules.TRANSITIONS if t.action == action and "system" in t.actors)
        timeline = self._stored()["timeline"]
        assert len(timeline) > len(self.case.steps), f"the system did not {action}"
        at = timeline[len(self.case.steps)]["at"]
        self.case.take(row, given, at, self._calendar(), self._person(REPORTER))

    async def _settle(self) -> None:
        reports = collector(self.district, "reports")
        async with asyncio.timeout(30):
            while await reports.settle_due():
                pass

    def _calendar(self) -> Any:
        return work_calendar(self.district.settings)

    def _stored(self) -> dict[str, Any]:
        return dict(self.run(self.district.services.reports.get(self.case.number)))


async def _cast(district: District) -> dict[str, Client]:
    people = {REPORTER: await district.citizen(), OTHER: await district.citizen(), NOBODY: district.nobody()}
    return people | {name: await district.staff(name) for name in STAFF}


async def _photos(people: dict[str, Client]) -> dict[str, str]:
    """A photo of everyone who may upload one."""
    return {
        name: await client.photo()
        for name, client in people.items()
        if name == REPORTER or "photo.upload" in client.facts.get("staff", {}).get("permissions", ())
    }


@pytest.fixture
def machine(mongodb_url, redis_url, tmp_path):
    """The machine with a district of its own, whose sessions and photos outlast the clock's leaps."""
    loop = Loop(
        mongodb_url,
        redis_url,
        tmp_path,
        database=f"test_{new_id()}",
        worker=False,
        sessions={"citizen_days": 10_000, "staff_hours": 10**5, "staff_idle_minutes": 10**7},
        photos={"store": (tmp_path / "photos").as_uri(), "keep_unused_hours": 10**6},
    )
    try:
        people = loop.run(_cast(loop.district))
        cast = {
            "loop": loop,
            "people": people,
            "permissions": {n: frozenset(people[n].facts["staff"]["permissions"]) for n in STAFF},
            "photos": loop.run(_photos(people)),
            "tally": Counter(),
            "taken": set(),
        }
        yield type("Machine", (Lifecycle,), cast)
    finally:
        clock.offset = timedelta(0)
        loop.close()


WALKS = settings(
    max_examples=RUNS,
    stateful_step_count=STEPS,
    derandomize=True,
    database=None,
    deadline=None, phases=[__import__("hypothesis").Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


WAYS = {(t.action, origin) for t in rules.TRANSITIONS for origin in t.origins}
REFUSALS = {
    "401 NOT_SIGNED_IN",
    "403 NO_PERMISSION",
    "403 NOT_YOURS_TO_DO",
    "404 NO_SUCH_REPORT",
    "409 STALE_STATE",
    "422 INVALID",
    "422 PHOTO_UNKNOWN",
}


@pytest.mark.timeout(600)
def test_whoever_does_whatever_the_case_goes_only_the_ways_of_the_table(machine):
    began = time.perf_counter()
    run_state_machine_as_test(machine, settings=WALKS)
    tally, taken = machine.tally, machine.taken
    seconds = time.perf_counter() - began
    print(
        f"\n{tally.total()} attempts, {len(taken)} of {len(WAYS)} ways, {seconds:.0f} s: {dict(sorted(tally.items()))}"
    )
    # The walks have to get somewhere for this to mean anything.
    assert {action for action, _ in taken} == ACTIONS
    assert tally.keys() >= REFUSALS
    assert min(tally["done"], tally["409 STALE_STATE"]) > RUNS
