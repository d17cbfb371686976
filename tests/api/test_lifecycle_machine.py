"""Hypothesis walks the table of transitions over HTTP, with everybody; a model of the table says what must come of it.

No illegal step succeeds, every legal one does what its row says, and everybody is offered what is open to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import Future
from datetime import datetime, timedelta
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from core.clock import SHANGHAI, now, shanghai
from core.ids import new_id
from reports.queries import HIDDEN
from reports.rules import ACTIONS, OPEN, TRANSITIONS, State
from tests.api.lifecycle_calls import (
    ANSWERS,
    CATEGORIES,
    CITIZENS,
    EVERYBODY,
    GIVEN,
    NOBODY,
    ORDINARY_WAY,
    OTHER,
    REPORTER,
    STAFF,
    UNKNOWN,
    Call,
)
from tests.api.lifecycle_model import Case, Model
from tests.api.support import collector, problem
from tests.clock import move_to, unmoved_clock, wait
from tests.district import Client, District, location, open_district
from tests.effort import PATIENCE
from tests.seeding import UNITS

RUNS, STEPS = {False: 24, True: 10}, 24
# On two levels of dispatch (True) only the beginning is another; on one, the walks are to get everywhere.
# A seed for each step: Hypothesis's own choices keep to the simplest and repeat themselves, and walks would hardly
# leave the spot. What a step was is noted.
SEEDS = st.integers(0, 2**32 - 1)

BEGIN = datetime(2026, 3, 2, 9, tzinfo=SHANGHAI)
# A Monday with some weeks without a holiday after it. Every walk begins then, as what is open in it, and so its way,
# depends on working time: walks of another day would be others.

# Where the report lies: out of the street-dispatcher's street, and in it.
PLACES = {(113.2610, 23.1610): False, (113.2400, 23.1450): True}
POINTS = {
    "in the street": (113.2400, 23.1450),
    "out of it": (113.2610, 23.1610),
    UNKNOWN["location"]: (113.9, 23.9),
}


COUNTED = {
    "refused": "refusals",
    "reworked": "reworks",
    "reopened": "reopenings",
    "extended": "extensions",
    "suspended": "suspensions",
    "urged": "urges",
    "appealed": "appeals",
}


class Loop:
    """An event loop in a thread of its own with a district on it: Hypothesis's machines know no ``await``."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._opened: Future[District] = Future()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._live(arguments, options),))
        self._thread.start()
        self.district = self._opened.result(PATIENCE)

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
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def close(self) -> None:
        """Close the district and end the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        self._loop.close()


class Lifecycle(RuleBasedStateMachine):
    """One case, everybody, and any action. What is annotated only is given by the fixture, for all walks."""

    loop: Loop
    people: dict[str, Client]
    permissions: dict[str, frozenset[str]]
    photos: dict[str, str]
    earlier: str
    tally: Counter[str]
    taken: set[tuple[str, State]]

    model: Model
    happened = 0
    two_level = False
    looked_at: Any = None

    @property
    def district(self) -> District:
        return self.loop.district

    @property
    def case(self) -> Case:
        return self.model.case

    @initialize(seed=SEEDS)
    def submit(self, seed: int) -> None:
        """A citizen reports, and the case goes some of the ordinary way; with a category the system files it."""
        move_to(BEGIN)
        random = Random(seed)
        place, category = random.choice(sorted(PLACES)), random.choice([None, "other"])
        what: dict[str, Any] = {
            "category": category,
            "answers": ANSWERS if category else {},
            "photo_ids": [self.photos[REPORTER]],
        }
        number = self.loop.run(self.district.submit(self.people[REPORTER], location=location(*place), **what))
        self.model = Model(
            Case(number, PLACES[place], category),
            self.permissions,
            frozenset(self.photos),
            self.people[REPORTER].facts["citizen_id"],
            self.loop.run(self.district.services.calendar.current()),
            self.two_level,
        )
        self.case.touched = self._stored()["created_at"]
        self._settle()
        for action in ORDINARY_WAY[: random.choice((0, 0, 3, 4, 5, 5, 5, 5, 7, 8, 8, 9))]:
            if (call := self._open_call(random, {action})) is not None:
                self._attempt(call)

    @rule(seed=SEEDS)
    def something_happens(self, seed: int) -> None:
        """A way that is open is gone, or spoilt by one fault; or anybody tries anything; or life goes on beside."""
        self.happened += 1
        random = Random(f"{seed} {self.happened}")
        if self.case.open_children and random.random() < 0.5:
            self._end_children()
            return
        match random.choices(("open", "spoilt", "anything", "follow", "time"), (10, 7, 4, 1, 1))[0]:
            case "open" | "spoilt" as kind:
                # What ends the walk, or leads nowhere, comes seldom.
                dull = {"void", "withdraw", "note", "supplement", "urge"} if random.random() < 0.8 else set()
                call = self._open_call(random, ACTIONS - dull) or self._open_call(random, ACTIONS)
                assert call is not None
                if self.model.foretell(call) == (422, "UNTIL_OUT_OF_RANGE"):  # asked for long ago
                    call.given["until"] = 5
                assert self.model.foretell(call) is None
                self._attempt(call if kind == "open" else self._spoilt(random, call))
            case "anything":
                who, action = random.choice(EVERYBODY), random.choice([*sorted(ACTIONS), "no_such_action"])
                row = next((t for t in TRANSITIONS if t.action == action), TRANSITIONS[-1])
                self._attempt(Call(who, action, self.model.right_given(random, who, row)))
            case "follow":
                self._follow(random.choice(CITIZENS))
            case _:
                wait(hours=random.choice((1, 5, 30, 200, 400)))
                self._time_passes()

    def _open_call(self, random: Random, actions: set[str] | frozenset[str]) -> Call | None:
        """One of ``actions`` by somebody to whom it is open, with what it needs; None where there is nobody."""
        ways = [(who, row) for who in EVERYBODY for row in self.model.open_to(who) if row.action in actions]
        ways = [(who, row) for who, row in ways if not self.model.hindrance(row)]
        # Not everybody who may act may upload the photo that it takes.
        ways = [(who, row) for who, row in ways if "photos" not in row.needs or who in self.photos]
        if not ways:
            return None
        # By action first: else a note, open to many in every state, would be most of the steps.
        # And often one that was not taken from here yet, in whatever walk.
        new = {row.action for _, row in ways if (row.action, self.case.state) not in self.taken}
        all_of_them = {row.action for _, row in ways}
        action = random.choice(sorted(new if new and random.random() < 0.7 else all_of_them))
        who, row = random.choice([way for way in ways if way[1].action == action])
        version = random.choice([None, self.case.version][row.repeats :]) if who in STAFF else None
        return Call(who, action, self.model.right_given(random, who, row), version)

    def _spoilt(self, random: Random, call: Call) -> Call:
        """``call`` with one thing wrong (or not, where it happens to be taken)."""
        given, version = dict(call.given), call.version
        wrong = random.choice(
            ("missing", "superfluous", *["unknown"] * 2, *["stale"] * 4, "extra", *["signed out"] * 2)
        )
        if wrong == "missing" and given:
            del given[random.choice(sorted(given))]
        elif wrong == "superfluous":
            more = random.choice(sorted(GIVEN))
            given[more] = random.choice(GIVEN[more])
        elif wrong == "unknown":
            could_be = sorted(given.keys() & UNKNOWN.keys())
            given |= {name: UNKNOWN[name] for name in could_be[: 1 + random.randrange(2)]}
        elif wrong == "stale" and call.who in STAFF:
            version = self.case.version + random.choice([-1, 1])
        elif wrong == "signed out" and call.who == REPORTER:
            return Call(random.choice((NOBODY, OTHER)), call.action, given)
        return Call(call.who, call.action, given, version, extra=wrong == "extra")

    def _attempt(self, call: Call) -> None:
        """Do it, and compare with what was foretold."""
        wanted = self.model.foretell(call)
        outcome = "done" if wanted is None else f"{wanted[0]} {wanted[1]}"
        note(f"{call}: {outcome}")
        self.tally[outcome] += 1
        answer = self.loop.run(self._send(call))
        if wanted is not None:
            details = problem(answer, *wanted)
            if wanted in ((409, "STALE_STATE"), (409, "STALE_VERSION")):
                assert (details["state"], details["version"]) == (self.case.state, self.case.version)
                assert set(details["actions"]) == {row.action for row in self.model.open_to(call.who)}
            return
        assert answer.is_success, f"{call} was refused: {answer.text}"
        self._assert_done(call, answer)
        self._settle()

    def _assert_done(self, call: Call, answer: httpx.Response) -> None:
        row, stored = self.model.row(call), self._stored()
        assert row is not None
        self.taken.add((row.action, self.case.state))
        entry = stored["timeline"][-1]
        kinds = self.model.take(row, call.given, entry["at"], call.who)
        self.case.open_children = stored.get("open_children", [])
        assert bool(self.case.open_children) or "children" not in call.given
        if call.who in STAFF:
            kinds.append("audit")
        elif not call.given.keys().isdisjoint({"note", "reason"}):
            kinds.append("check_text")
        assert sorted(debt["kind"] for debt in stored["owed"]) == sorted(kinds)
        assert answer.json()["state"] == self.case.state
        assert (entry["action"], entry["label"], entry["shown"]) == (row.action, row.label, row.shows is not None)
        assert (entry["reason"], entry["note"]) == (call.given.get("reason"), call.given.get("note"))
        assert entry["by"]["kind"] == {REPORTER: "reporter", OTHER: "follower"}.get(call.who, "staff")
        for words in (entry["says"], entry["shows"] or ""):
            assert "{" not in words
            assert "None" not in words

    async def _send(self, call: Call) -> httpx.Response:
        body: dict[str, Any] = {call.form.get(name, name): value for name, value in call.given.items()}
        if "photos" in call.given:
            mine = call.given["photos"] == "own" and call.who in self.photos
            strangers = next(p for name, p in self.photos.items() if name != call.who)
            body[call.form.get("photos", "photos")] = [self.photos[call.who] if mine else strangers]
        if "into" in call.given:
            body["into"] = "9" * 20 if call.given["into"] == UNKNOWN["into"] else self.earlier
        if "children" in call.given:
            body["children"] = [{"description": "另一处的垃圾单独处理", "category": "other"}]
        if "location" in call.given:
            body["location"] = location(*POINTS[call.given["location"]])
        if call.given.get("co_units") in ("the others", "the same"):
            same = call.given["co_units"] == "the same"
            body["co_units"] = [u for u in UNITS if (u == call.given.get("unit", UNITS[0])) is same]
        if call.given.get("condition") == "the last":
            category = CATEGORIES.get(call.given.get("category", "other"), CATEGORIES["other"])
            body["condition"] = category.conditions[-1].key
        if "assignee" in call.given:
            unit = self.case.unit if call.given["assignee"] == "of the unit" else None
            body["assignee"] = self.people[f"unit-{unit}" if unit else "admin"].facts["staff"]["staff_id"]
        if "until" in call.given:
            body["until"] = (shanghai(now()).date() + timedelta(days=call.given["until"])).isoformat()
        if call.version is not None:
            body["version"] = call.version
        if call.extra:
            body["surprise"] = 1
        return await self.people[call.who].call("POST", f"/reports/{self.case.number}/{call.path}", json=body)

    def _end_children(self) -> None:
        """What the case was split into comes to an end, and the case is told."""
        for child in self.case.open_children:
            self.loop.run(self.district.action("duty_chief", child, "void", reason="一并处理"))
            self.case.steps.append(("child_changed", self.case.state, self.case.state))
        self.case.open_children = []
        self.loop.run(self._pay())

    def _follow(self, who: str) -> None:
        """A citizen wants to be told too."""
        answer = self.loop.run(self.people[who].call("POST", f"/reports/{self.case.number}/follow", json={}))
        if who == REPORTER:
            problem(answer, 409, "OWN_REPORT")
        elif self.case.state in HIDDEN:
            problem(answer, 404, "NO_SUCH_REPORT")
        elif self.case.state == State.MERGED:
            assert problem(answer, 409, "MERGED") == {"merged_into": self.earlier}
        elif self.case.state not in OPEN:
            problem(answer, 409, "NOT_OPEN")
        else:
            assert answer.json()["followers"] == 1, answer.text
            self.case.followed_by_other = True
            self.case.followers = [self.people[who].facts["citizen_id"]]

    def _settle(self) -> None:
        """Let the worker pay what the case owes, and the model do what the system's rows say."""
        before = self._stored()
        routed = any(debt["kind"] == "route" for debt in before["owed"])
        self.loop.run(self._pay())
        added = self._stored()["timeline"][len(before["timeline"]) :]
        if self.case.state == State.MERGED:
            self.case.followers = []  # they follow the earlier case now
        steps = self.model.routing() if routed else []
        assert [(e["action"], e["by"]["kind"]) for e in added] == [(row.action, "system") for row, _ in steps]
        for (row, given), entry in zip(steps, added, strict=True):
            self.model.take(row, given, entry["at"])

    def _time_passes(self) -> None:
        """It is later: the timetable marks what is late and reminds of what is dormant, what is suspended goes on."""
        self.loop.run(self.district.services.reports.mark_late())
        self.model.pass_to(now())
        before = self._stored()
        wanted = self.model.by_itself(now())
        self.loop.run(self._pay())
        self.loop.run(self.district.services.reports.remind_dormant())
        added = self._stored()["timeline"][len(before["timeline"]) :]
        assert [entry["action"] for entry in added] == [row.action for row in wanted]
        for row, entry in zip(wanted, added, strict=True):
            self.taken.add((row.action, self.case.state))
            self.model.take(row, {}, entry["at"])

    async def _pay(self) -> None:
        reports = collector(self.district, "reports")
        async with asyncio.timeout(PATIENCE):
            while await reports.settle_due():
                pass

    def _stored(self) -> dict[str, Any]:
        return dict(self.loop.run(self.district.services.reports.get(self.case.number)))

    @invariant()
    def the_case_is_what_the_model_says(self) -> None:
        """Everything that the table decides, and a timeline without a gap."""
        stored, case = self._stored(), self.case
        assert (stored["state"], stored["category"], stored["unit_id"]) == (case.state, case.category, case.unit)
        rating = stored["rating"] and (stored["rating"]["resolved"], stored["rating"]["score"])
        assert rating == case.rating
        assert (stored["due_at"], stored["handled_at"], stored["late"]) == (case.due, case.handled, case.late)
        assert [(p["from"], p["until"]) for p in stored["pauses"]] == case.pauses
        assert [(u["unit_id"], u["done"]) for u in stored["units"]] == case.units
        assert [u["lead"] for u in stored["units"]] == [True, False][: len(case.units)]
        assert (stored["assignee"] is not None, stored.get("condition")) == (case.assigned, case.condition)
        asked = stored["request"] and (stored["request"]["kind"], stored["request"]["until"])
        assert asked == (case.request and (case.request[0], case.request[1] and case.request[1].isoformat()))
        self._milestones_are_what_they_should(stored["milestones"])
        timeline = stored["timeline"]
        assert [(e["action"], e["from"], e["to"]) for e in timeline] == case.steps
        assert [e["from"] for e in timeline] == [None, *(e["to"] for e in timeline[:-1])]
        assert timeline[-1]["to"] == stored["state"]
        assert [e["at"] for e in timeline] == sorted(e["at"] for e in timeline)
        assert len({e["id"] for e in timeline}) == stored["version"] == case.version
        assert sorted((n["event"], n["citizen_id"]) for n in stored["notices"]) == sorted(case.notices)
        suspended = case.state is State.SUSPENDED
        owed = [("resume", case.pauses[-1][1])] if suspended else []
        assert [(debt["kind"], debt["due_at"]) for debt in stored["owed"]] == owed

    def _milestones_are_what_they_should(self, stored: dict[str, Any]) -> None:
        case, counts = self.case, self.case.counts
        assert stored["redispatches"] == max(0, counts.get("dispatched", 0) - 1)
        for mark, name in COUNTED.items():
            assert stored[name] == counts.get(mark, 0), name
        for mark in ("filed", "dispatched", "accepted", "handled", "closed", "reopened"):
            assert (stored[f"{mark}_at"] is not None) is (counts.get(mark, 0) > 0), mark
        assert (stored["exempt"], stored["closed_at"]) == (case.exempt, case.closed)

    @invariant()
    def everybody_is_offered_what_is_open_to_them(self) -> None:
        """What GET offers is what the model holds to be open, to each."""
        case = self.case
        look = (
            *(case.state, case.units, case.request, case.late, case.urged, case.in_street),
            *(case.open_checks, case.open_children),
        )
        if look == self.looked_at:
            return
        self.looked_at = copy.deepcopy(look)
        for who, answer in self.loop.run(self._look()).items():
            if who == NOBODY:
                problem(answer, 401, "NOT_SIGNED_IN")
            elif not self.model.sees(who):
                problem(answer, 404, "NO_SUCH_REPORT")
            else:
                offered = {a["action"]: (a["needs"], a["takes"]) for a in answer.json()["actions"]}
                wanted = {r.action: (list(r.needs), [*r.takes, *r.some_of]) for r in self.model.open_to(who)}
                assert offered == wanted, who

    async def _look(self) -> dict[str, httpx.Response]:
        calls = [client.call("GET", f"/reports/{self.case.number}") for client in self.people.values()]
        return dict(zip(self.people, await asyncio.gather(*calls), strict=True))


async def _cast(district: District) -> dict[str, Client]:
    people = {REPORTER: await district.citizen(), OTHER: await district.citizen(), NOBODY: district.nobody()}
    return people | {name: await district.staff(name) for name in STAFF}


async def _photos(people: dict[str, Client]) -> dict[str, str]:
    """A photo of everyone who may upload one, but for the other citizen."""
    return {
        name: await client.photo()
        for name, client in people.items()
        if name == REPORTER or "photo.upload" in client.facts.get("staff", {}).get("permissions", ())
    }


async def _earlier(district: District) -> str:
    """A case that others may be merged into, in the reach of all who may."""
    street = next(place for place, in_street in PLACES.items() if in_street)
    return await district.submit(await district.citizen(), location=location(*street), category=None, answers={})


@pytest.fixture(params=[False, True], ids=["direct", "two levels"])
def machine(request, mongodb_url, redis_url, tmp_path):
    """The machine with a district of its own, whose sessions and photos outlast the clock's leaps."""
    with unmoved_clock():
        move_to(BEGIN - timedelta(days=1))  # the earlier case is earlier than those of all walks
        with contextlib.closing(
            Loop(
                mongodb_url,
                redis_url,
                tmp_path,
                database=f"test_{new_id()}",
                worker=False,
                sessions={"citizen_days": 10_000, "staff_hours": 10**5, "staff_idle_minutes": 10**7},
                photos={"store": (tmp_path / "photos").as_uri(), "keep_unused_hours": 10**6},
                reports={"two_level": request.param},
            )
        ) as loop:
            people = loop.run(_cast(loop.district))
            cast = {
                "loop": loop,
                "people": people,
                "permissions": {n: frozenset(people[n].facts["staff"]["permissions"]) for n in STAFF},
                "photos": loop.run(_photos(people)),
                "earlier": loop.run(_earlier(loop.district)),
                "tally": Counter(),
                "taken": set(),
                "two_level": request.param,
            }
            yield type("Machine", (Lifecycle,), cast)


def walks(runs: int) -> settings:
    """So many walks, the same ones in each whole run: Hypothesis draws numbers of the modules that are loaded too."""
    return settings(
        max_examples=runs,
        stateful_step_count=STEPS,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        # A walk that fails is shown as it is: a shorter one is another walk, made of the same seeds, and minutes away.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


WAYS = {(t.action, origin) for t in TRANSITIONS if t.actors != ("system",) for origin in t.origins}
ON_TWO_LEVELS = {"pass_on", "return_to_district"}
REFUSALS = {"403 NO_PERMISSION", "404 NO_SUCH_REPORT", "409 STALE_STATE", "409 STALE_VERSION", "422 INVALID"}


def test_whoever_does_whatever_the_case_goes_only_the_ways_of_the_table(machine):
    began = time.perf_counter()
    run_state_machine_as_test(machine, settings=walks(RUNS[machine.two_level]))
    tally, taken = machine.tally, machine.taken
    seconds = time.perf_counter() - began
    print(
        f"\n{tally.total()} attempts, {len(taken)} of {len(WAYS)} ways, {seconds:.0f} s: {dict(sorted(tally.items()))}"
    )
    # The walks have to get somewhere for this to mean anything.
    if machine.two_level:
        assert {action for action, _ in taken} >= ON_TWO_LEVELS
    else:
        assert len(taken) >= 0.5 * len(WAYS)
    assert tally.keys() >= REFUSALS
    assert min(tally["done"], tally["409 STALE_STATE"] + tally["409 STALE_VERSION"]) >= RUNS[machine.two_level]
