"""What is offered works and what is not offered is refused, of cases in every state with anything on them.

The cases are put together at random and tried in this process, through the service itself: every action by whoever is
offered any. The worker finds nothing to do on them, as each is put back before the next attempt.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from accounts.models import StaffSession
from core.clock import now, shanghai
from core.errors import AppError
from core.ids import new_id
from photos.service import PhotoService
from places.coordinates import CRS
from places.models import Position
from reports.lifecycle.guards import MAX_CHILDREN, MAX_TIMELINE
from reports.lifecycle.milestones import no_milestones
from reports.lifecycle.required_checks import RequiredChecks
from reports.lifecycle.table import TRANSITIONS, Transition
from reports.models import Child, Given, Reporter
from reports.service import ReportService
from reports.states import State
from tests.api.support import problem
from tests.district import INSIDE, District, picture

Document = dict[str, Any]
LEAD, BESIDE = "sanitation", "roads"
WITH_UNIT = tuple(s for s in State if s not in (State.SUBMITTED, State.FILED, State.AT_STREET))
EVERYTHING = frozenset(t.permission for t in TRANSITIONS)
IN_THE_WAY = {"CHECK_OPEN", "NO_CHECK_OPEN", "CHILDREN_OPEN", "HAS_ABSORBED", "CHECK_REQUIRED", "TIMELINE_FULL"}


@dataclass
class Room:
    """A district, the case that is put about, an earlier one, and people with a photo each."""

    district: District
    base: Document
    earlier: str
    people: dict[str, StaffSession | Reporter]
    photos: dict[str, str]
    assignee: str

    @property
    def number(self) -> str:
        return str(self.base["_id"])

    async def put(self, case: Document) -> None:
        """The case is ``case``, owing nothing."""
        await self.district.services.database["reports"].replace_one({"_id": self.number}, case)

    def given(self, row: Transition, who: str) -> Given:
        """What ``row`` needs."""
        wanted = {*row.needs, *row.some_of[:1], *({"condition"} & set(row.takes))}
        every: Document = {
            "reason": "现场情况如此",
            "note": "已到现场",
            "photos": (self.photos[who],),
            "unit": LEAD,
            "category": "other",
            "condition": "ordinary",
            "assignee": self.assignee,
            "until": shanghai(now()).date() + timedelta(days=3),
            "resolved": row.outcomes[0] if row.outcomes else "yes",
            "score": 4,
            "into": self.earlier,
            "children": (Child("另一处的垃圾单独处理"),),
            "location": Position(longitude=INSIDE[0], latitude=INSIDE[1], crs=CRS.WGS84),
        }
        return Given(**{name: every[name] for name in wanted})


@pytest_asyncio.fixture(scope="module")
async def room(district):
    citizen, other = await district.citizen(), await district.citizen()
    earlier = await district.submit(other, category=None)
    # In everybody's reach, as what may be merged into depends on that.
    await district.settled(earlier)
    units = [{"unit_id": unit, "name": unit, "lead": unit == LEAD, "done": False} for unit in (LEAD, BESIDE)]
    reports = district.services.database["reports"]
    await reports.update_one({"_id": earlier}, {"$set": {"unit_id": LEAD, "unit_name": LEAD, "units": units}})
    number = await district.submit(citizen)
    await district.settled(number)
    base = {**await district.services[ReportService].get(number), "public": True, "notices": []}
    base["followers"] = [other.facts["citizen_id"]]
    area = (district.services.settings.reports.division,)
    people: dict[str, StaffSession | Reporter] = {
        "centre": StaffSession(new_id(), "中心", ("all",), EVERYTHING, area, None),
        "lead": StaffSession(new_id(), "主办", ("all",), EVERYTHING, area, LEAD),
        "beside": StaffSession(new_id(), "协办", ("all",), EVERYTHING, area, BESIDE),
        "reporter": Reporter(citizen.facts["citizen_id"], citizen.facts["openid"]),
        "follower": Reporter(other.facts["citizen_id"], other.facts["openid"]),
    }
    photos = {}
    for who, actor in people.items():
        owner = actor.owner if isinstance(actor, Reporter) else {"kind": "staff", "id": actor.staff_id}
        photos[who] = (await district.services[PhotoService].take(picture(), owner))["_id"]
    assignee = (await district.staff(f"unit-{LEAD}")).facts["staff"]["staff_id"]
    return Room(district, base, earlier, people, photos, assignee)


def made_up(base: Document, state: State, random: Random, finder: str, earlier: str, *, plain: bool) -> Document:
    """A case in ``state`` with anything on it that may be there; a ``plain`` one with little of it."""
    moment = now()

    def chance() -> float:
        return 1.0 if plain else random.random()

    with_unit, over = state in WITH_UNIT, state in (State.HANDLED, State.CLOSED, State.RATED)
    limited = state not in (State.SUBMITTED, State.VOID, State.WITHDRAWN, State.MERGED)
    kind = random.choice([None, None, "extension", "suspension", "appeal"])
    until = (shanghai(moment).date() + timedelta(days=2)).isoformat()
    asked = {"kind": kind, "entry": "", "at": moment, "by": "", "unit": LEAD, "reason": "", "until": until}
    passed = [random.choice(["dispatch", "pass_on", "return_to_district", "ask_supplement", "supplement"])]
    told = [base["timeline"][0] | {"id": new_id(), "action": action} for action in passed if chance() < 0.5]
    told += [told[0]] * MAX_TIMELINE if told and chance() < 0.1 else []
    found = {"kind": "closing_check", "id": new_id(), "verdict": "fixed", "at": moment}
    milestones = {
        "dispatched_at": random.choice([None, moment]),
        "closed_at": moment - timedelta(days=random.choice([1, 40])),
        "extensions": random.choice([0, 2]),
        "appeals": random.choice([0, 1]),
    }
    return {
        **base,
        "state": state,
        "owed": [],
        "category": "other",
        "condition": "ordinary",
        "limit": {"value": 8, "unit": "work_hour"} if limited else None,
        "clock": {"started_at": moment, "extensions": 0} if limited else None,
        "due_at": moment + timedelta(hours=random.choice([-5, 200])) if limited else None,
        "handled_at": moment if over else None,
        "late": chance() < 0.3,
        "pauses": [{"from": moment, "until": moment + timedelta(days=3)}] if state is State.SUSPENDED else [],
        "unit_id": LEAD if with_unit else None,
        "unit_name": LEAD if with_unit else None,
        "units": [
            {"unit_id": unit, "name": unit, "lead": unit == LEAD, "done": chance() < 0.5} for unit in (LEAD, BESIDE)
        ]
        if with_unit
        else [],
        "request": asked if kind else None,
        "milestones": {**no_milestones(), "filed_at": moment, **milestones},
        "timeline": [*base["timeline"], *told],
        "acted": [{"citizen_id": base["followers"][0], "action": "urge", "at": moment}] if chance() < 0.5 else [],
        "open_checks": [new_id()] if chance() < 0.5 else [],
        "checks": [found] if chance() < 0.5 else [],
        "open_children": [new_id()] if chance() < 0.3 else [],
        "children": [new_id()] * (MAX_CHILDREN if chance() < 0.2 else 1),
        "absorbed": [new_id()] if chance() < 0.6 else [],
        "merged_into": earlier if state is State.MERGED else None,
        "place_precision": random.choice(["exact", "street"]),
        "reporter": {**base["reporter"], "kind": "staff", "staff_id": finder, "name": "", "citizen_id": None}
        if chance() < 0.2
        else base["reporter"],
    }


async def tried(room: Room, case: Document, who: str, refusals: Counter[str], reports: Any) -> None:
    """Every action of the table, by ``who``, on ``case``: those that are offered are done, the others refused."""
    actor = room.people[who]
    offered = {row.action: row for row in reports.open_to(case, actor)}
    parts = {"staff"} if isinstance(actor, StaffSession) else {"reporter", "follower"}
    theirs = [t for t in TRANSITIONS if parts & set(t.actors)]
    here = [t for t in theirs if case["state"] in t.origins]
    # Of what does not begin in this state a few are enough.
    elsewhere = Random(str(case["state"])).sample([t for t in theirs if t not in here], 3 if "staff" in parts else 1)
    seen = case["version"] if isinstance(actor, StaffSession) else None  # or a key: some steps demand one of the two
    done, told = set(), {}
    await room.put(case)
    for action, row in {t.action: t for t in (*elsewhere, *here)}.items():
        try:
            await reports.act(room.number, action, actor, room.given(offered.get(action, row), who), version=seen)
        except AppError as refused:
            told[action] = f"{refused.code} {refused.message}"
            refusals[refused.code] += 1
        else:
            done.add(action)
            await room.put(case)
    assert not {a: told[a] for a in offered if a in told}, f"offered to {who} and refused"
    assert done == offered.keys(), f"{who} could do what was not offered"


async def walk(room: Room, seeds: range) -> Counter[str]:
    """Made-up cases of every state, and a plain one; how often each refusal came."""
    refusals: Counter[str] = Counter()
    own = room.district.services[ReportService]
    finder = room.people["centre"]
    assert isinstance(finder, StaffSession)
    for seed in [None, *seeds]:
        for state in State:
            random = Random(f"{seed} {state}")
            case = made_up(room.base, state, random, finder.staff_id, room.earlier, plain=seed is None)
            required = RequiredChecks(before_closing=frozenset(("other",) if seed is None or seed % 2 else ()))
            policy = replace(own.policy, two_level=random.random() < 0.3, checks=required)
            staff = random.choice(["centre", "centre", *(["lead", "beside"] if case["units"] else [])])
            for who in (staff, "reporter", "follower"):
                await tried(room, case, who, refusals, own.under(policy))
    await room.put({**room.base, "state": State.VOID, "owed": []})
    return refusals


async def test_what_is_offered_works_and_what_is_not_offered_is_refused(room):
    refusals = await walk(room, range(2))
    assert refusals.keys() >= IN_THE_WAY, "each has to have been in the way once"


@pytest.mark.deep
async def test_what_is_offered_works_whatever_is_on_the_case(room):
    refusals = await walk(room, range(2, 60))
    assert refusals.keys() >= {*IN_THE_WAY, "TOO_MANY_CHILDREN", "CLOSED_TOO_LONG", "OVERDUE", "NO_EXTENSION_LEFT"}


async def test_a_check_that_is_not_open_is_not_called_off_and_nothing_is_written(district):
    number = await district.submit(await district.citizen(), category=None)
    intake = await district.staff("intake")
    before = await district.settled(number)
    actions = {a["action"] for a in (await intake.get(f"/reports/{number}"))["actions"]}
    assert "cancel_check" not in actions
    assert {"ask_check", "file"} <= actions
    body = {"reason": "不需要了"}
    problem(await intake.call("POST", f"/reports/{number}/actions/cancel_check", json=body), 409, "NO_CHECK_OPEN")
    after = await district.settled(number)  # the verdict on the photo comes when it comes
    assert (after["version"], after["timeline"]) == (before["version"], before["timeline"])
    asked = await intake.post(f"/reports/{number}/actions/ask_check", {})
    actions = {a["action"] for a in asked["actions"]}
    assert "cancel_check" in actions
    assert not {"ask_check", "file"} & actions
    body = {"category": "other", "condition": "ordinary"}
    details = problem(await intake.call("POST", f"/reports/{number}/actions/file", json=body), 409, "CHECK_OPEN")
    assert set(details["actions"]) == actions
    assert details["open_checks"] == asked["open_checks"]
