"""Every row of the table of transitions, tried with everything that may be wrong with it, and then as it should be.

The attempts are made from the rows: who may, what must be so, what must be given. A new row is tried from the day it is
there, a new fact has to say here how it is made and how it is broken. The case is put where the row begins by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, get_args

import httpx
import pytest
import pytest_asyncio

from accounts.models import NewStaff
from accounts.staff import StaffService
from core.clock import now, shanghai
from core.ids import new_id
from places.models import Level
from places.service import PlaceService
from reports.lifecycle.guards import FACTS, Situation, missing
from reports.lifecycle.milestones import no_milestones
from reports.lifecycle.row import Fact
from reports.lifecycle.table import TRANSITIONS, Need, Transition
from reports.models import Reporter
from reports.service import ReportService
from reports.states import State
from tests.api.support import fields, problem, seen
from tests.district import Client, District, location, open_district
from tests.lifecycle.calls import CITIZENS_FORM, PATHS
from tests.seeding import PASSWORD

LEAD, BESIDE = "sanitation", "roads"
Document = dict[str, Any]


def asked(kind: str) -> Document:
    return {"kind": kind, "entry": "", "at": now(), "by": "", "unit": LEAD, "reason": "", "until": None}


def with_milestone(name: str, value: Any) -> Callable[[Document], None]:
    def change(case: Document) -> None:
        case["milestones"][name] = value() if callable(value) else value

    return change


def with_field(name: str, value: Any) -> Callable[[Document], None]:
    def change(case: Document) -> None:
        case[name] = value() if callable(value) else value

    return change


def part_done(done: bool) -> Callable[[Document], None]:
    def change(case: Document) -> None:
        case["units"][1]["done"] = done

    return change


def told(action: str | None) -> Callable[[Document], None]:
    """The timeline tells of ``action``, and of no other dispatch."""

    def change(case: Document) -> None:
        found = [e for e in case["timeline"] if e["action"] not in ("pass_on", "dispatch", "return_to_district")]
        case["timeline"] = [*found, *([{**found[0], "id": new_id(), "action": action}] if action else [])]

    return change


def on_two_levels(yes: bool) -> Callable[[Document], None]:
    return with_field("two_level", yes)


def found_by(staff_id: str) -> Document:
    """The reporter of a collector's finding."""
    return {"kind": "staff", "staff_id": staff_id, "name": "", "citizen_id": None, "openid": None, "anonymous": False}


def nothing(_case: Document) -> None:
    """It is so of itself, or depends on who acts."""


# How each fact is brought about, and how it is broken. Whose unit acts is chosen in `people`.
MADE: dict[Fact, tuple[Callable[[Document], None], Callable[[Document], None]]] = {
    "by_lead": (nothing, nothing),
    "by_part": (part_done(False), part_done(True)),
    "parts_done": (part_done(True), part_done(False)),
    "direct": (on_two_levels(False), on_two_levels(True)),
    "street_first": (on_two_levels(True), on_two_levels(False)),
    "by_street": (told("pass_on"), told("dispatch")),
    "not_by_street": (told("dispatch"), told("pass_on")),
    "first_dispatch": (with_milestone("dispatched_at", None), with_milestone("dispatched_at", now)),
    "dispatched_before": (with_milestone("dispatched_at", now), with_milestone("dispatched_at", None)),
    "in_time": (nothing, with_field("due_at", lambda: now() - timedelta(hours=1))),
    "extension_left": (with_milestone("extensions", 1), with_milestone("extensions", 2)),
    "nothing_asked": (with_field("request", None), with_field("request", lambda: asked("suspension"))),
    "extension_asked": (with_field("request", lambda: asked("extension")), with_field("request", None)),
    "suspension_asked": (with_field("request", lambda: asked("suspension")), with_field("request", None)),
    "appeal_asked": (with_field("request", lambda: asked("appeal")), with_field("request", None)),
    "was_late": (with_field("late", True), with_field("late", False)),
    "never_appealed": (with_milestone("appeals", 0), with_milestone("appeals", 1)),
    "not_urged_lately": (with_field("acted", []), nothing),  # by whom, is known in the test
    "closed_lately": (
        with_milestone("closed_at", now),
        with_milestone("closed_at", lambda: now() - timedelta(days=15, minutes=1)),
    ),
    "dormant": (nothing, nothing),
    # Made in `Stage.put`, which knows who acts.
    "place_rough": (with_field("place_precision", "street"), with_field("place_precision", "exact")),
    "place_exact": (with_field("place_precision", "exact"), with_field("place_precision", "street")),
    "answerable": (nothing, with_field("reporter", lambda: found_by("somebody-else"))),
    "never_asked": (nothing, told("ask_supplement")),
    "own_finding": (nothing, with_field("reporter", lambda: found_by("somebody-else"))),
    "check_open": (with_field("open_checks", lambda: [new_id()]), with_field("open_checks", [])),
    "splittable": (with_field("children", []), with_field("children", lambda: [new_id() for _ in range(50)])),
}


@dataclass
class Stage:
    """A district, one case to put about, an earlier one, and people near and far."""

    district: District
    citizen: Client
    stranger: Client
    number: str
    earlier: str
    base: Document

    @property
    def reports(self) -> Any:
        return self.district.services.database["reports"]

    async def put(self, row: Transition, origin: State) -> Document:
        """The case as ``row`` wants it in ``origin``."""
        moment = now()
        case: Document = {**self.base, "state": origin, "version": self.base["version"] + 1, "owed": []}
        case["milestones"] = {**no_milestones(), "filed_at": moment, "closed_at": moment}
        case |= {
            "category": "other",
            "limit": {"value": 8, "unit": "work_hour"},
            "clock": {"started_at": moment, "extensions": 0},
            "due_at": moment + timedelta(hours=200),
            "handled_at": None,
            "late": False,
            "pauses": [{"from": moment, "until": moment + timedelta(days=3)}] if origin is State.SUSPENDED else [],
            "unit_id": LEAD,
            "unit_name": LEAD,
            "units": [{"unit_id": unit, "name": unit, "lead": unit == LEAD, "done": False} for unit in (LEAD, BESIDE)],
            "request": None,
            "acted": [],
        }
        for fact in row.only:
            MADE[fact][0](case)
        if "own_finding" in row.only:
            case["reporter"] = found_by((await self.actor(row)).facts["staff"]["staff_id"])
        await self.store(case)
        return case

    async def store(self, case: Document) -> None:
        """The case is ``case``; how the district dispatches comes along with it."""
        service = self.district.services[ReportService]
        service._policy = replace(service._policy, two_level=case.get("two_level", False))
        kept = {name: value for name, value in case.items() if name != "two_level"}
        await self.reports.replace_one({"_id": self.number}, kept)

    async def actor(self, row: Transition) -> Client:
        """Who may take the step."""
        if "reporter" in row.actors:
            return self.citizen
        if "by_part" in row.only:
            return await self.district.staff(f"unit-{BESIDE}")
        roles = await self.district.services[StaffService].roles()
        role = next(r.key for r in roles if row.permission in r.permissions and r.key != "street_admin")
        return await self.district.staff(f"unit-{LEAD}" if role == "unit" else role)

    async def try_(self, who: Client, row: Transition, given: Document, **more: Any) -> httpx.Response:
        """One attempt. ``more`` are keys of the body besides what the row takes."""
        if "reporter" in row.actors:
            form = CITIZENS_FORM[row.action]
            body = {form[name]: value for name, value in given.items()}
            return await who.call("POST", f"/reports/{self.number}/{PATHS[row.action]}", json=body | more)
        body = {("photo_ids" if name == "photos" else name): value for name, value in given.items()}
        if row.repeats:  # without it is tried in `wrong_versions_and_states`
            body["version"] = await seen(self.district, self.number)
        return await who.call("POST", f"/reports/{self.number}/actions/{row.action}", json=body | more)

    async def given(self, row: Transition, who: Client) -> Document:
        """What the row needs."""
        every: Document = {
            "reason": "现场情况如此",
            "note": "已到现场",
            "unit": LEAD,
            "co_units": [BESIDE],
            "category": "other",
            "condition": "general",
            "assignee": (await self.district.staff(f"unit-{LEAD}")).facts["staff"]["staff_id"],
            "until": (shanghai(now()).date() + timedelta(days=3)).isoformat(),
            "resolved": row.outcomes[0] if row.outcomes else "yes",
            "score": 4,
            "into": self.earlier,
            "children": [{"description": "另一处的垃圾单独处理"}],
            "location": location(113.2400, 23.1450),
            "address": "云溪路 8 号",
        }
        assert every.keys() | {"photos"} == set(get_args(Need)), "say here what may be given for it"
        found: Document = {name: every[name] for name in (*row.needs, *row.some_of[:1]) if name != "photos"}
        if "condition" in row.takes:
            found["condition"] = "ordinary"  # several fit, and one has to be chosen
        if "photos" in row.needs:
            found["photos"] = [await who.photo()]
        return found


@pytest_asyncio.fixture(scope="module")
async def stage(mongodb_url, redis_url, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}", worker=False) as district:
        streets = await district.services[PlaceService].areas(Level.STREET)
        citizen, stranger = await district.citizen(), await district.citizen()
        earlier = await district.submit(await district.citizen())
        number = await district.submit(citizen, location=location())
        base = await district.services[ReportService].get(number)
        far = next(street.code for street in streets if street.code not in base["areas"])
        for role in await district.services[StaffService].roles():
            unit = LEAD if role.key == "unit" else None
            person = NewStaff(
                username=f"far-{role.key.replace('_', '-')}",
                name="外街人员",
                roles=[role.key],
                areas=[far],
                unit_id=unit,
            )
            await district.services[StaffService].create(person, PASSWORD)
        yield Stage(district, citizen, stranger, number, earlier, base)


PEOPLES = [(row, origin) for row in TRANSITIONS if row.actors != ("system",) for origin in row.origins]


def test_every_fact_says_how_it_is_made_and_broken():
    assert MADE.keys() == FACTS.keys() == set(get_args(Fact))


@pytest.mark.parametrize(("row", "origin"), PEOPLES, ids=[f"{r.action}-{o}-{TRANSITIONS.index(r)}" for r, o in PEOPLES])
async def test_a_step_is_refused_for_each_thing_that_is_wrong_and_done_when_nothing_is(stage, row, origin):
    case = await stage.put(row, origin)
    who = await stage.actor(row)
    given = await stage.given(row, who)
    await wrong_people(stage, row, given)
    await wrong_versions_and_states(stage, row, case, who, given)
    await wrong_facts(stage, row, case, who, given)
    await wrong_givens(stage, row, who, given)
    stored = await stage.reports.find_one({"_id": stage.number})
    assert (stored["version"], len(stored["timeline"])) == (case["version"], len(case["timeline"]))
    # The control: with nothing wrong it is done, so each refusal was for the one thing that was.
    done = await stage.try_(who, row, given)
    assert done.is_success, done.text
    after = await stage.reports.find_one({"_id": stage.number})
    assert (after["state"], after["version"]) == (row.to or origin, case["version"] + 1)
    assert after["timeline"][-1]["action"] == row.action


async def wrong_people(stage: Stage, row: Transition, given: Document) -> None:
    """Nobody, somebody else, the wrong role, the wrong area, and a unit that does not have the case."""
    district = stage.district
    if "reporter" in row.actors:
        problem(await stage.try_(district.nobody(), row, given), 401, "NOT_SIGNED_IN")
        problem(await stage.try_(stage.stranger, row, given), 404, "NO_SUCH_REPORT")
        return
    problem(await stage.try_(district.nobody("/admin/api/v1"), row, given), 401, "NOT_SIGNED_IN")
    for role in await district.services[StaffService].roles():
        if role.key == "street_admin":
            continue
        account = f"unit-{LEAD}" if role.key == "unit" else role.key
        if row.permission not in role.permissions:
            problem(await stage.try_(await district.staff(account), row, given), 403, "NO_PERMISSION")
        else:
            far = await district.staff(f"far-{role.key.replace('_', '-')}")
            problem(await stage.try_(far, row, given), 404, "NO_SUCH_REPORT")


async def wrong_versions_and_states(
    stage: Stage, row: Transition, case: Document, who: Client, given: Document
) -> None:
    """Another version, and each state from which no row of the action leads."""
    if "staff" in row.actors:
        problem(await stage.try_(who, row, given, version=case["version"] + 1), 409, "STALE_VERSION")
    if row.repeats:
        problem(await stage.try_(who, row, given, version=None), 428, "VERSION_OR_KEY_REQUIRED")
    if case["state"] != row.origins[0]:
        return
    part = "reporter" if "reporter" in row.actors else "staff"
    leads = {s for r in TRANSITIONS if r.action == row.action and part in r.actors for s in r.origins}
    for state in set(State) - leads:
        await stage.reports.update_one({"_id": stage.number}, {"$set": {"state": state}})
        details = problem(await stage.try_(who, row, given), 409, "STALE_STATE")
        assert details["state"] == state
    await stage.store(case)


async def wrong_facts(stage: Stage, row: Transition, case: Document, who: Client, given: Document) -> None:
    """Each fact broken, with the others as they should be."""
    for fact in row.only:
        broken: Document = {**case, "units": [dict(u) for u in case["units"]], "milestones": dict(case["milestones"])}
        MADE[fact][1](broken)
        someone = who
        if fact == "by_lead" and "unit" in who.facts.get("staff", {}).get("roles", ()):
            someone = await stage.district.staff(f"unit-{BESIDE}")
        elif fact == "by_lead":
            continue  # of the command centre: acts for any unit
        if fact == "not_urged_lately":
            citizen_id = stage.citizen.facts["citizen_id"]
            broken["acted"] = [{"citizen_id": citizen_id, "action": "urge", "at": now() - timedelta(hours=23)}]
        await stage.store(broken)
        if not another_row_is_open(stage, row, broken):
            problem(await stage.try_(someone, row, given), 409, FACTS[fact].code)
    await stage.store(case)


def another_row_is_open(stage: Stage, row: Transition, case: Document) -> bool:
    """Whether what was broken for ``row`` is what another row of its action asks for."""
    situation = Situation(case, Reporter("nobody", ""), now(), stage.district.services[ReportService]._policy)
    others = [r for r in TRANSITIONS if r.action == row.action and r is not row and case["state"] in r.origins]
    asks = [replace(r, only=tuple(f for f in r.only if f not in ("by_lead", "by_part"))) for r in others]
    return any(missing(r, situation) is None for r in asks)


async def wrong_givens(stage: Stage, row: Transition, who: Client, given: Document) -> None:
    """Each thing that is needed left out, and each that is not taken put in."""
    for name in row.needs:
        details = problem(await stage.try_(who, row, {k: v for k, v in given.items() if k != name}), 422, "INVALID")
        # The mini-program's models name a missing field by its own name in the body.
        form = CITIZENS_FORM.get(row.action, {}) if "reporter" in row.actors else {}
        assert fields(details) & {name, form.get(name, name), "photo_ids"}, (row.action, name)
    if row.some_of:
        problem(await stage.try_(who, row, {}), 422, "INVALID")
    if "staff" in row.actors:
        for extra in {"reason", "unit", "category", "until"} - {*row.needs, *row.takes}:
            value = {"until": "2026-12-01"}.get(extra, "other")
            problem(await stage.try_(who, row, given, **{extra: value}), 422, "INVALID")
    problem(await stage.try_(who, row, given, surprise=1), 422, "INVALID")
