"""A walk through the table of transitions: what happens is drawn, what must come of it the model says.

Where the case lives, in this process or behind HTTP, is for those who derive from :class:`Walk` to say.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

from core.clock import SHANGHAI, now
from core.queue.debts import Document
from reports.lifecycle.table import ACTIONS, TRANSITIONS, Transition
from reports.service import ReportService
from reports.states import State
from tests.clock import move_to, wait
from tests.lifecycle.calls import (
    CITIZENS,
    GIVEN,
    NOBODY,
    ORDINARY_WAY,
    OTHER,
    PATHS,
    REPORTER,
    STAFF,
    STREET,
    STREET_CENTRE,
    UNKNOWN,
    Call,
    Kind,
    Known,
)
from tests.lifecycle.case import Case
from tests.lifecycle.comparison import compare
from tests.lifecycle.model import Model, Refusal
from worktime.calendar import CalendarService

STEPS = 24

BEGIN = datetime(2026, 3, 2, 9, tzinfo=SHANGHAI)
"""A Monday with some weeks without a holiday after it. Every walk begins then, as what is open in it, and so its way,
depends on working time: walks of another day would be others."""

WAYS = {(t.action, origin) for t in TRANSITIONS if t.actors != ("system",) for origin in t.origins}
"""All that people can do: the actions with the states that they are done in."""

DULL = ("void", "withdraw", "note", "supplement", "urge")
"""What ends a walk, or leads nowhere."""

Offer = Any
"""What somebody is offered, in whatever form it is offered."""


@dataclass
class Trail:
    """What walks have come to together: the ways that were taken, the actions that were refused and why, and how often
    what came of an attempt."""

    taken: set[tuple[str, State]] = field(default_factory=set)
    refused: set[tuple[str, str]] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)

    def told(self, seconds: float) -> str:
        """In a line."""
        attempts, ways = self.outcomes.total(), len(self.taken & WAYS)
        return (
            f"{attempts} attempts, {ways} of {len(WAYS)} ways, {seconds:.0f} s: {dict(sorted(self.outcomes.items()))}"
        )


class Walk(ABC):
    """One case, everybody, and any action. ``story``: what has happened."""

    kinds: tuple[Kind, ...]
    """Whose cases there are."""
    everybody: tuple[str, ...]
    two_level: bool
    known: Known
    permissions: dict[str, frozenset[str]]
    citizen_ids: dict[str, str]
    reports: ReportService
    calendar: CalendarService

    def __init__(self, random: Random, trail: Trail) -> None:
        self.random = random
        self.trail = trail
        self.story: list[str] = []
        self._was: Document = {}
        self._waited = 0
        self._looked_at: Any = None
        self._open: tuple[Any, dict[str, list[Transition]]] = (None, {})

    @abstractmethod
    async def submit(self, kind: Kind, place: str, category: str | None) -> str:
        """Have the case of this walk reported at ``place``; its number."""

    @abstractmethod
    async def send(self, call: Call) -> tuple[Refusal, dict[str, Any]] | None:
        """Do it; the refusal and its details, None when it was done."""

    @abstractmethod
    async def send_follow(self, who: str) -> tuple[Refusal, dict[str, Any]] | int:
        """Ask for a citizen to be told too; the refusal and its details, or how many follow the case then."""

    @abstractmethod
    async def offered(self) -> dict[str, Refusal | Offer]:
        """What each is offered, in the form of :meth:`offer`, or how they are refused the case."""

    @abstractmethod
    def offer(self, rows: list[Transition]) -> Offer:
        """The form in which ``rows`` are offered."""

    @abstractmethod
    async def end_child(self, number: str) -> None:
        """Bring a case that this one was split into to its end."""

    @abstractmethod
    async def pay(self) -> None:
        """Let the worker do what is due of what cases owe."""

    def foretell(self, call: Call) -> Refusal | None:
        """What must come of ``call``."""
        return self.model.foretell(call)

    def look(self) -> Any:
        """What has to have changed for everybody to look at the case again."""
        return self._stand()

    def _stand(self) -> Any:
        """What changes with all that anybody might be open to."""
        return self.case.version, self.case.followers, self._waited

    def _open_rows(self) -> dict[str, list[Transition]]:
        """What the model says is open to everybody now."""
        if self._open[0] != (stand := self._stand()):
            at = now()
            self._open = stand, {who: self.model.open_to(who, at) for who in self.everybody}
        return self._open[1]

    @property
    def case(self) -> Case:
        return self.model.case

    async def stored(self) -> Document:
        """The case as it is kept."""
        return await self.reports.get(self.case.number)

    async def go(self, steps: int = STEPS) -> None:
        """Begin, and take so many steps. What went wrong tells the story."""
        try:
            await self._begin()
            await self._compare()
            for _ in range(steps):
                await self._something_happens()
                await self._compare()
        except Exception as error:
            error.add_note("\n".join(["What has happened:", *self.story]))
            raise

    async def _begin(self) -> None:
        """A case is reported and goes some of the ordinary way; with a category the system files it."""
        move_to(BEGIN)
        random = self.random
        kind, category = random.choice(self.kinds), random.choice([None, "other"])
        place = random.choice(("in the street", "out of it"))
        self.story.append(f"{kind}, {place}, category {category}{', two levels' if self.two_level else ''}")
        number = await self.submit(kind, place, category)
        case = Case(number, place == "in the street", category, await self.calendar.current(), kind)
        self.model = Model(case, self.permissions, frozenset(self.known.photos), self.two_level)
        case.touched = (await self.stored())["created_at"]
        await self._settle()
        if random.random() < 0.3:
            await self._follow(OTHER)
        for action in ORDINARY_WAY[: random.choice((0, 0, 3, 4, 5, 5, 5, 5, 7, 8, 8, 9))]:
            if random.random() < 0.06:  # it lies about: what is late has ways of its own
                await self._wait(200)
            if (call := self._open_call({action})) is not None:
                await self._attempt(call)

    async def _something_happens(self) -> None:
        """A way that is open is gone, or spoilt by a fault; one that is closed, or anything, is tried; life goes on."""
        random = self.random
        if self.case.open_children and random.random() < 0.5:
            await self._end_children()
            return
        match random.choices(("open", "spoilt", "closed", "anything", "follow", "time"), (10, 5, 3, 3, 1, 2))[0]:
            case "open" | "spoilt" as kind:
                dull = self._known_and_dull() if random.random() < 0.8 else set()
                call = self._open_call(ACTIONS - dull) or self._open_call(ACTIONS)
                assert call is not None
                if self.model.foretell(call) == (422, "UNTIL_OUT_OF_RANGE"):  # asked for long ago
                    call.given["until"] = 5
                assert self.model.foretell(call) is None
                await self._attempt(call if kind == "open" else self._spoilt(call))
            case "closed" if (call := self._closed_call()) is not None:
                await self._attempt(call)
            case "closed" | "anything":
                who = random.choice(self.everybody if random.random() < 0.7 else CITIZENS)
                theirs = sorted(PATHS) if who not in STAFF and random.random() < 0.7 else sorted(ACTIONS)
                action = random.choice([*theirs, "no_such_action"])
                row = next((t for t in TRANSITIONS if t.action == action), TRANSITIONS[-1])
                await self._attempt(Call(who, action, self.model.right_given(random, who, row)))
            case "follow":
                await self._follow(random.choice(CITIZENS))
            case _:
                await self._wait(random.choice((1, 5, 30, 200, 400)))

    def _known_and_dull(self) -> set[str]:
        """Of what is dull, what has been done in this state before: it is to come seldom."""
        return {action for action in DULL if (action, self.case.state) in self.trail.taken}

    def _open_call(self, actions: set[str] | frozenset[str]) -> Call | None:
        """One of ``actions`` by somebody to whom it is open, with what it needs; None where there is nobody."""
        random = self.random
        ways = [(who, row) for who, rows in self._open_rows().items() for row in rows if row.action in actions]
        # Not everybody who may act may upload the photo that it takes.
        ways = [(who, row) for who, row in ways if "photos" not in row.needs or who in self.known.photos]
        if not ways:
            return None
        # By action first: else a note, open to many in every state, would be most of the steps.
        # And often one that was not taken from here yet, in whatever walk, or one that this walk has taken before.
        some = {row.action for _, row in ways}
        new = {action for action in some if (action, self.case.state) not in self.trail.taken}
        again = some & {action for action, _, _ in self.case.steps} - set(DULL)
        if new and random.random() < 0.7:
            some = new
        elif again and random.random() < 0.4:
            some = again
        action = random.choice(sorted(some))
        who, row = random.choice([way for way in ways if way[1].action == action])
        version = random.choice([None, self.case.version][row.repeats :]) if who in STAFF else None
        return Call(who, action, self.model.right_given(random, who, row), version)

    def _closed_call(self) -> Call | None:
        """Something that might be done here and by whoever tries it, but for a fact that is lacking or a hindrance."""
        random, at, ways = self.random, now(), []
        for who, rows in self._open_rows().items():
            open_now = {row.action for row in rows}
            closed = [row for row in self.model.rows_for(who) if row.action not in open_now]
            ways += [(who, row, self.model.closed(row, who, at) or "") for row in closed]
        if not ways:
            return None
        # Often for a reason for which it has not been refused yet, in whatever walk.
        all_of_them = {(row.action, code) for _, row, code in ways}
        new = all_of_them - self.trail.refused
        chosen = random.choice(sorted(new if new and random.random() < 0.7 else all_of_them))
        self.trail.refused.add(chosen)
        who, row, _ = random.choice([way for way in ways if (way[1].action, way[2]) == chosen])
        version = self.case.version if row.repeats and who in STAFF else None
        return Call(who, row.action, self.model.right_given(random, who, row), version)

    def _spoilt(self, call: Call) -> Call:
        """``call`` with one thing wrong (or not, where it happens to be taken)."""
        random, given, version = self.random, dict(call.given), call.version
        wrong = random.choice(
            ("missing", "superfluous", *["unknown"] * 2, *["stale"] * 4, "extra", *["signed out"] * 2)
        )
        if "location" in given and call.who in (STREET, STREET_CENTRE) and random.random() < 0.5:
            given["location"] = "out of it"
        elif wrong == "missing" and given:
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
            return Call(random.choice([who for who in (NOBODY, OTHER) if who in self.everybody]), call.action, given)
        return Call(call.who, call.action, given, version, extra=wrong == "extra")

    async def _attempt(self, call: Call) -> None:
        """Do it, and compare with what was foretold."""
        wanted = self.foretell(call)
        outcome = "done" if wanted is None else f"{wanted[0]} {wanted[1]}"
        self.story.append(f"{call}: {outcome}")
        self.trail.outcomes[outcome] += 1
        row = self.model.row(call)
        refused = await self.send(call)
        if wanted is None:
            assert refused is None, f"{call} was refused: {refused}"
            assert row is not None
            await self._assert_done(call, row)
            await self._settle()
            return
        assert refused is not None, f"{call} was done, and should have been refused: {wanted}"
        assert refused[0] == wanted
        assert await self.stored() == self._was, f"{call} was refused, and left something behind"
        if wanted in ((409, "STALE_STATE"), (409, "STALE_VERSION")):
            details = refused[1]
            assert (details["state"], details["version"]) == (self.case.state, self.case.version)
            assert set(details["actions"]) == {row.action for row in self._open_rows()[call.who]}

    async def _assert_done(self, call: Call, row: Transition) -> None:
        stored = await self.stored()
        self.trail.taken.add((row.action, self.case.state))
        entry = stored["timeline"][-1]
        kinds = self.case.take(row, call.given, entry["at"], call.who)
        self.case.open_children = stored.get("open_children", [])
        assert bool(self.case.open_children) or "children" not in call.given
        if call.who in STAFF:
            kinds.append("audit")
        elif not call.given.keys().isdisjoint({"note", "reason"}):
            kinds.append("check_text")
        assert sorted(debt["kind"] for debt in stored["owed"]) == sorted(kinds)
        assert (entry["action"], entry["label"], entry["shown"]) == (row.action, row.label, row.shows is not None)
        assert (entry["reason"], entry["note"]) == (call.given.get("reason"), call.given.get("note"))
        assert entry["by"]["kind"] == ("staff" if call.who in STAFF else self.model.part(call.who))
        for words in (entry["says"], entry["shows"] or ""):
            assert "{" not in words
            assert "None" not in words

    async def _compare(self) -> None:
        """The case is what the model says, and everybody is offered what the model holds to be open to them."""
        self._was = await self.stored()
        compare(self._was, self.case, self.citizen_ids)
        if self.look() == self._looked_at:
            return
        self._looked_at = copy.deepcopy(self.look())
        for who, offered in (await self.offered()).items():
            if who == NOBODY:
                assert offered == (401, "NOT_SIGNED_IN")
            elif not self.model.sees(who):
                assert offered == (404, "NO_SUCH_REPORT"), who
            else:
                assert offered == self.offer(self._open_rows()[who]), who

    async def _end_children(self) -> None:
        """What the case was split into comes to an end, and the case is told."""
        self.story.append("its parts come to an end")
        for child in self.case.open_children:
            await self.end_child(child)
            self.case.steps.append(("child_changed", self.case.state, self.case.state))
        self.case.open_children = []
        await self.pay()

    async def _follow(self, who: str) -> None:
        wanted = self.model.foretell_follow(who)
        self.story.append(f"{who} wants to follow: {wanted or 'done'}")
        answer = await self.send_follow(who)
        if wanted is None:
            self.case.followers = [name for name in CITIZENS if name == who or name in self.case.followers]
            assert answer == len(self.case.followers)
            return
        assert not isinstance(answer, int), f"{who} follows, and should have been refused: {wanted}"
        refusal, details = answer
        assert refusal == wanted
        if refusal == (409, "MERGED"):
            assert details == {"merged_into": self.known.earlier}

    async def _settle(self) -> None:
        """Let the worker pay what the case owes, and the model do what the system's rows say."""
        before = await self.stored()
        routed = any(debt["kind"] == "route" for debt in before["owed"])
        await self.pay()
        added = (await self.stored())["timeline"][len(before["timeline"]) :]
        if self.case.state == State.MERGED:
            self.case.followers = []  # they follow the earlier case now
        steps = self.model.routing() if routed else []
        assert [(e["action"], e["by"]["kind"]) for e in added] == [(row.action, "system") for row, _ in steps]
        for (row, given), entry in zip(steps, added, strict=True):
            self.case.take(row, given, entry["at"])

    async def _wait(self, hours: int) -> None:
        """It is later: the timetable marks what is late and reminds of what is dormant, what is suspended goes on."""
        self.story.append(f"{hours} hours later")
        wait(hours=hours)
        self._waited += 1
        await self.reports.mark_late()
        self.case.pass_to(now())
        before = await self.stored()
        wanted = self.model.by_itself(now())
        await self.pay()
        await self.reports.remind_dormant()
        added = (await self.stored())["timeline"][len(before["timeline"]) :]
        assert [entry["action"] for entry in added] == [row.action for row in wanted]
        for row, entry in zip(wanted, added, strict=True):
            self.trail.taken.add((row.action, self.case.state))
            self.case.take(row, {}, entry["at"])
