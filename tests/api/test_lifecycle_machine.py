"""A handful of walks through the table of transitions over HTTP, with everybody: what must come of each step, a model
of the table says.

No illegal step succeeds, every legal one does what its row says, and everybody is offered what is open to them. The
thousands are walked in memory (tests/reports/test_lifecycle_walks.py): here are the handlers, the forms, the database
and the worker besides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Set
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from core.ids import new_id
from reports.lifecycle.table import Transition
from reports.service import ReportService
from tests.api.support import collector, problem
from tests.clock import move_to, unmoved_clock
from tests.district import Client, District, location, open_district
from tests.lifecycle.calls import ANSWERS, EVERYBODY, NOBODY, OTHER, POINTS, REPORTER, STAFF, Call, Kind, Known, meant
from tests.lifecycle.model import Refusal
from tests.lifecycle.walk import BEGIN, WAYS, Offer, Trail, Walk
from tests.sampling import amount, dice
from tests.timing import PATIENCE
from worktime.calendar import CalendarService

pytestmark = pytest.mark.generated

ON_TWO_LEVELS = {"pass_on", "return_to_district"}
REFUSALS = {"403 NO_PERMISSION", "404 NO_SUCH_REPORT", "409 STALE_STATE", "409 STALE_VERSION", "422 INVALID"}


class WalkOverHTTP(Walk):
    """A walk of a case behind the API."""

    kinds = ("citizen",)
    everybody = EVERYBODY

    def __init__(
        self, random: Random, trail: Trail, district: District, people: dict[str, Client], known: Known
    ) -> None:
        super().__init__(random, trail)
        self.district, self.people, self.known = district, people, known
        self.two_level = district.settings.reports.two_level
        self.permissions = {name: frozenset(people[name].facts["staff"]["permissions"]) for name in STAFF}
        self.citizen_ids = {name: people[name].facts["citizen_id"] for name in (REPORTER, OTHER)}
        self.reports, self.calendar = district.services[ReportService], district.services[CalendarService]

    def foretell(self, call: Call) -> Refusal | None:
        return self.model.at_the_door(call) or self.model.foretell(call)

    def look(self) -> Any:
        case = self.case
        facts = case.units, case.request, case.late, case.urged, case.in_street, case.open_checks, case.open_children
        return case.state, case.followers, *facts

    async def submit(self, kind: Kind, place: str, category: str | None) -> str:
        return await self.district.submit(
            self.people[REPORTER],
            location=location(*POINTS[place]),
            category=category,
            answers=ANSWERS if category else {},
            photo_ids=[self.known.photos[REPORTER]],
        )

    async def send(self, call: Call) -> tuple[Refusal, dict[str, Any]] | None:
        given = meant(call, self.case.unit, self.known)
        if "location" in given:
            given["location"] = location(*given["location"])
        if "until" in given:
            given["until"] = given["until"].isoformat()
        body: dict[str, Any] = {call.form.get(name, name): value for name, value in given.items()}
        if call.version is not None:
            body["version"] = call.version
        if call.extra:
            body["surprise"] = 1
        answer = await self.people[call.who].call("POST", f"/reports/{self.case.number}/{call.path}", json=body)
        if answer.is_success:
            assert answer.json()["state"] == (await self.stored())["state"]
            return None
        refusal = _refusal(answer)
        return refusal, problem(answer, *refusal)

    async def send_follow(self, who: str) -> tuple[Refusal, dict[str, Any]] | int:
        answer = await self.people[who].call("POST", f"/reports/{self.case.number}/follow", json={})
        if answer.is_success:
            return int(answer.json()["followers"])
        refusal = _refusal(answer)
        return refusal, problem(answer, *refusal)

    async def offered(self) -> dict[str, Refusal | Offer]:
        calls = [client.call("GET", f"/reports/{self.case.number}") for client in self.people.values()]
        found: dict[str, Refusal | Offer] = {}
        for who, answer in zip(self.people, await asyncio.gather(*calls), strict=True):
            offered = answer.json().get("actions", ())
            found[who] = (
                {a["action"]: (a["needs"], a["takes"]) for a in offered} if answer.is_success else _refusal(answer)
            )
        return found

    def offer(self, rows: list[Transition]) -> Offer:
        return {row.action: (list(row.needs), [*row.takes, *row.some_of]) for row in rows}

    async def end_child(self, number: str) -> None:
        await self.district.action("duty_chief", number, "void", reason="一并处理")

    async def pay(self) -> None:
        reports = collector(self.district, "reports")
        async with asyncio.timeout(PATIENCE):
            while await reports.settle_due():
                pass


def _refusal(answer: httpx.Response) -> Refusal:
    refusal = answer.status_code, answer.json()["code"]
    problem(answer, *refusal)
    return refusal


async def cast(district: District) -> dict[str, Client]:
    """Everybody, signed in."""
    people = {REPORTER: await district.citizen(), OTHER: await district.citizen(), NOBODY: district.nobody()}
    return people | {name: await district.staff(name) for name in STAFF}


async def known(district: District, people: dict[str, Client]) -> Known:
    """A photo of everyone who may upload one, but for the other citizen, and a case from before."""
    photos = {
        name: await client.photo()
        for name, client in people.items()
        if name == REPORTER or "photo.upload" in client.facts.get("staff", {}).get("permissions", ())
    }
    street = location(*POINTS["in the street"])
    earlier = await district.submit(await district.citizen(), location=street, category=None, answers={})
    return Known(photos, earlier, {name: people[name].facts["staff"]["staff_id"] for name in STAFF})


async def walk(district: District, walks: int, wanted: Set[str]) -> Trail:
    """So many walks, one after the other; more where they have not done all that is ``wanted`` yet."""
    people, trail = await cast(district), Trail()
    given = await known(district, people)
    random = dice(f"walks over HTTP {district.settings.reports.two_level}")
    for number in range(3 * walks):
        if number >= walks and wanted <= {action for action, _ in trail.taken}:
            break
        await WalkOverHTTP(Random(random.random()), trail, district, people, given).go()
    return trail


async def walked(
    mongodb_url: str, redis_url: str, folder: Path, *, two_level: bool, walks: int, wanted: Set[str]
) -> Trail:
    """What so many walks come to in a district of their own, whose sessions and photos outlast the clock's leaps."""
    async with open_district(
        mongodb_url,
        redis_url,
        folder,
        database=f"test_{new_id()}",
        worker=False,
        sessions={"citizen_days": 10_000, "staff_hours": 10**5, "staff_idle_minutes": 10**7},
        photos={"store": (folder / "photos").as_uri(), "keep_unused_hours": 10**6},
        reports={"two_level": two_level},
    ) as district:
        # Not before: what is seeded now is copied for other tests, and passwords must be changed after some time.
        move_to(BEGIN - timedelta(days=1))  # the earlier case is earlier than those of all walks
        return await walk(district, walks, wanted)


# On two levels of dispatch only the beginning is another; on one, the walks are to get everywhere.
@pytest.mark.long
@pytest.mark.parametrize(("two_level", "usual", "deep"), [(False, 4, 24), (True, 2, 10)], ids=["direct", "two levels"])
def test_over_http_too_the_case_goes_only_the_ways_of_the_table(
    two_level, usual, deep, mongodb_url, redis_url, tmp_path
):
    began = time.perf_counter()
    walks = amount(usual, deep)
    wanted = ON_TWO_LEVELS if two_level and walks == deep else set()
    # A loop of its own: what else of this process is open goes on only when the clock is right again.
    with unmoved_clock(), asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        trail = runner.run(walked(mongodb_url, redis_url, tmp_path, two_level=two_level, walks=walks, wanted=wanted))
    print(f"\n{trail.told(time.perf_counter() - began)}")
    # The walks have to get somewhere for this to mean anything.
    assert trail.outcomes["done"] >= 2 * walks
    assert trail.outcomes.total() - trail.outcomes["done"] >= walks
    if walks == deep:
        assert trail.outcomes.keys() >= REFUSALS
        assert trail.outcomes["409 STALE_VERSION"] + trail.outcomes["409 STALE_STATE"] >= walks
        assert {action for action, _ in trail.taken} >= wanted
        assert two_level or len(trail.taken) >= 0.5 * len(WAYS)
