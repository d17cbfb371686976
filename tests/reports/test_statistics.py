"""The statistics are what a slow and plain count of the reports comes to, however they changed and whoever died."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.clock import now
from core.database import connect
from core.errors import Conflict
from core.ids import new_id
from core.paging import read_mark
from reports.__main__ import main
from reports.indicators import COUNTS
from reports.milestones import no_milestones
from reports.recount import Recount, collections
from reports.rules import State
from reports.statistics import NOBODY, By, Figures, Selection, Statistics
from reports.statistics_rows import number_of
from tests.effort import until
from tests.reports.slow_statistics import LISTS, slow_lists
from tests.sampling import amount

STREETS = ("990101001", "990101002")
GRIDS = ("990101001001001", "990101001002001", "990101002001001")
UNITS = ("roads", "sanitation", None)
CATEGORIES = ("other", "exposed_garbage", None)
PEOPLE = ("anna", "bo", "system", None)
FIRST, LAST = datetime(2026, 8, 25, tzinfo=UTC), datetime(2026, 12, 6, tzinfo=UTC)
# Moments cluster where days and months begin in Asia/Shanghai, and around now.
EDGES = (
    datetime(2026, 8, 31, 16, tzinfo=UTC),
    datetime(2026, 9, 30, 16, tzinfo=UTC),
    datetime(2026, 10, 31, 16, tzinfo=UTC),
)

EMPTY: dict[str, Any] = {
    "due_at": None, "handled_at": None, "areas": ["990101"], "unit_id": None, "category": None, "rating": None
}  # fmt: skip

minutes = st.integers(0, int((LAST - FIRST).total_seconds()) // 60)
moments = st.one_of(
    minutes.map(lambda m: FIRST + timedelta(minutes=m)),
    st.tuples(st.sampled_from(EDGES), st.integers(-1, 1)).map(lambda e: e[0] + timedelta(milliseconds=e[1])),
    st.integers(-2000, 2000).map(lambda m: now() + timedelta(minutes=m)),
)
maybe = st.one_of(st.none(), moments)
counts = st.integers(0, 2)
area_chains = st.sampled_from(GRIDS).flatmap(
    lambda g: st.sampled_from([[g[:6], g[:9], g[:12], g], [g[:6], g[:9], g[:12], g], [g[:6], g[:9]], [g[:6]]])
)
answers = st.fixed_dictionaries(
    {
        "at": moments,
        "contacted": st.sampled_from([True, False, None]),
        "resolved": st.sampled_from(["yes", "partly", "no", None]),
        "satisfied": st.sampled_from([True, False, None]),
    }
)
ratings = st.fixed_dictionaries(
    {"at": moments, "resolved": st.sampled_from(["yes", "partly", "no"]), "score": st.integers(1, 5)}
)

routings = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "automatic": st.booleans(),
            "basis": st.sampled_from(["suggestion", "picked", "staff"]),
            "rerouted": st.sampled_from([None, "redispatch"]),
        }
    ),
)


progress = st.one_of(
    st.fixed_dictionaries({"done": st.booleans()}),
    st.fixed_dictionaries({"done": st.just(True), "done_at": moments, "done_by": st.sampled_from(PEOPLE)}),
)


@st.composite
def reports(draw: Any, number: int = 1) -> dict[str, Any]:
    """Any report, also such as no way through the table leads to."""
    report: dict[str, Any] = {
        "_id": f"99010120260901{number:06d}",
        "state": str(draw(st.sampled_from(State))),
        "created_at": draw(moments),
        "due_at": draw(maybe),
        "handled_at": draw(maybe),
        "areas": draw(area_chains),
        "unit_id": draw(st.sampled_from(UNITS)),
        "category": draw(st.sampled_from(CATEGORIES)),
        "rating": draw(st.one_of(st.none(), ratings)),
        "grams": ["what", "nobody", "counts"],
    }
    if draw(st.integers(0, 9)) > 0:
        report["milestones"] = {
            **no_milestones(),
            **{n: draw(maybe) for n in ("filed_at", "dispatched_at", "dispatch_due_at", "closed_at", "close_due_at")},
            "handled_at": draw(maybe),
            **{n: draw(counts) for n in ("refusals", "redispatches", "reworks", "extensions")},
            **{n: draw(st.sampled_from(PEOPLE)) for n in ("dispatched_by", "handled_by")},
            "exempt": draw(st.booleans()),
        }
        report["pauses"] = draw(st.lists(st.fixed_dictionaries({"from": moments, "until": maybe}), max_size=2))
        report["merged_into"] = draw(st.sampled_from([None, None, None, "99010120260901000000"]))
        report["assignee"] = draw(st.sampled_from([None, {"id": "cy", "name": "C"}]))
        report["routing"] = draw(routings)
        report["reporter"] = {"citizen_id": "c1", **draw(st.sampled_from([{}, {"staff_id": "dee"}]))}
    if draw(st.integers(0, 2)) == 0:
        lead = {"unit_id": report["unit_id"], "name": "", "lead": True, "done": draw(st.booleans())}
        helpers = draw(st.lists(st.sampled_from(["roads", "sanitation", "lamps"]), unique=True, max_size=2))
        report["units"] = [lead, *({"unit_id": u, "name": "", "lead": False, **draw(progress)} for u in helpers)]
    if draw(st.integers(0, 3)) == 0:
        report["call_back"] = draw(answers)
        report["call_back_exclusion"] = draw(st.sampled_from([None, None, {"reason": "重复来电"}]))
    return report


days = st.integers(0, (LAST - FIRST).days).map(lambda n: FIRST.date() + timedelta(days=n))
firsts = st.sampled_from([date(2026, 9, 1), date(2026, 10, 1), date(2026, 11, 1), date(2026, 12, 1)])
codes = st.sampled_from(["990101", *STREETS, GRIDS[0][:12], *GRIDS, "990102"])


@st.composite
def selections(draw: Any) -> tuple[Selection, By | None]:
    """Any question."""
    since, until = sorted(draw(st.tuples(st.one_of(days, firsts), st.one_of(days, firsts))))
    selection = Selection(
        since=since,
        until=until + timedelta(days=draw(st.integers(1, 2))),
        areas=tuple(tuple(t) for t in draw(st.lists(st.lists(codes, min_size=1, max_size=2), max_size=2))),
        unit=draw(st.sampled_from([None, None, "roads", "-"])),
        category=draw(st.sampled_from([None, None, "other", "-"])),
        person=draw(st.sampled_from([None, None, "anna", "cy", "-"])),
    )
    by: By | None = draw(st.sampled_from([None, "unit", "street", "grid", "person", "category"]))
    return selection, by


def without_zeros(counts: dict[str, int]) -> dict[str, int]:
    return {key: number for key, number in counts.items() if number}


def days_of(row: dict[str, Any]) -> dict[str, dict[str, int]]:
    """The counts of each day of a row on which there is anything."""
    return {day: kept for day, counts in row["d"].items() if (kept := without_zeros(counts))}


class House:
    """A database with reports and their statistics."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.reports = database["reports"]
        self.recount = Recount(database)
        self.statistics = Statistics(database)

    async def generation(self) -> str:
        state = await self.database["statistics_state"].find_one({"_id": "reports"})
        return str(state["generation"])

    async def kept(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The facts and the rows (those that are not all zero) as they are stored."""
        facts, rows = collections(self.database, await self.generation())
        sums = {r["_id"]: r | {"n": without_zeros(r["n"]), "d": days_of(r)} async for r in rows.find()}
        return {f["_id"]: f async for f in facts.find()}, {key: r for key, r in sums.items() if r["d"]}

    async def put(self, documents: list[dict[str, Any]]) -> None:
        for document in documents:
            await self.reports.replace_one({"_id": document["_id"]}, document, upsert=True)

    async def all(self) -> list[dict[str, Any]]:
        return [dict(r) async for r in self.reports.find()]

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """The changes are followed."""
        follower = asyncio.create_task(self.recount.follow(0.01))
        try:
            yield
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    async def counted_to(self, moment: datetime) -> None:
        """Come back as soon as the statistics say that they hold what had changed by ``moment``."""

        async def reached() -> bool:
            state = await self.database["statistics_state"].find_one({"_id": "reports"}) or {}
            return bool(state.get("counted_to") and state["counted_to"] >= moment)

        await until(reached)

    async def answers_like_a_slow_count(self, selection: Selection, by: By | None) -> None:
        figures = await self.statistics.figures(selection, by)
        assert not figures.more
        await self.pages_are_the_whole(selection, by, figures)
        slow = slow_lists(await self.all(), by=by, moment=figures.moment, **vars(selection))
        assert figures.groups == {g: {k: len(v) for k, v in lists.items()} for g, lists in slow.items()}
        together = slow_lists(await self.all(), by=None, moment=figures.moment, **vars(selection)).get(None, {})
        assert figures.total == {key: len(cases) for key, cases in together.items()}
        for key in COUNTS:
            assert await self.listed(selection, key) == together.get(key, []), key

    async def pages_are_the_whole(self, selection: Selection, by: By | None, whole: Figures) -> None:
        """Two groups at a time come to what all of them are, in order."""
        keys = list(whole.groups)
        assert keys == sorted(keys, key=lambda key: (key is None, key or ""))
        if by is None:
            return
        groups: dict[str | None, dict[str, int]] = {}
        after = None
        while True:
            figures = await self.statistics.figures(selection, by, after=after, size=2)
            assert len(figures.groups) == 2 or not figures.more
            assert figures.total == whole.total
            groups |= figures.groups
            if not figures.more:
                break
            after = list(groups)[-1] or NOBODY
        assert groups == whole.groups
        assert list(groups) == keys

    async def listed(self, selection: Selection, key: str) -> list[str]:
        numbers, page = await self.statistics.cases(selection, key, None, 3)
        while page is not None:
            read_mark(page)
            more, page = await self.statistics.cases(selection, key, page, 3)
            numbers += more
        return numbers


@pytest_asyncio.fixture(scope="module")
async def house(mongodb_url):
    database = connect(mongodb_url, f"statistics_{new_id()}")
    await database.create_collection("reports")
    yield House(database)
    await database.client.drop_database(database.name)
    database.client.close()


versions = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.tuples(*(reports(i) for i in range(n))), st.tuples(*(st.one_of(st.none(), reports(i)) for i in range(n)))
    )
)


@settings(
    max_examples=amount(8, 100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(drawn=versions, questions=st.lists(selections(), min_size=2, max_size=4))
@pytest.mark.generated
async def test_what_is_kept_is_what_is_counted_anew_and_what_a_slow_count_comes_to(house, drawn, questions):
    before, after = drawn
    await house.reports.delete_many({})
    await house.recount.rebuild()
    generation = await house.generation()
    await house.put(list(before))
    await house.recount.count([r["_id"] for r in before], generation)
    # Some change; some are deleted; twice is as good as once.
    await house.put([r for r in after if r is not None])
    if after[0] is None:
        await house.reports.delete_one({"_id": before[0]["_id"]})
    for _ in range(2):
        await house.recount.count([r["_id"] for r in before], generation)
    kept = await house.kept()
    for selection, by in questions:
        await house.answers_like_a_slow_count(selection, by)
    await house.recount.rebuild()
    assert await house.generation() != generation
    assert await house.kept() == kept


@settings(
    max_examples=1,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(drawn=st.tuples(*(reports(i) for i in range(40))))
async def test_following_loses_nothing_and_counts_nothing_twice_though_it_is_killed_again_and_again(house, drawn):
    rng = random.Random(7)
    await house.reports.delete_many({})
    await house.recount.rebuild()

    async def change() -> None:
        for _ in range(400):
            report = dict(rng.choice(drawn))
            report["unit_id"] = rng.choice(UNITS)
            report["due_at"] = FIRST + timedelta(hours=rng.randrange(2000))
            if rng.random() < 0.1:
                await house.reports.delete_one({"_id": report["_id"]})
            elif rng.random() < 0.5:
                fields = {"due_at": report["due_at"], "milestones.reworks": rng.randrange(3), "grams": []}
                await house.reports.update_one({"_id": report["_id"]}, {"$set": fields})
            else:
                await house.put([report])

    writing = asyncio.create_task(change())
    while not writing.done():
        followers = [asyncio.create_task(Recount(house.database).follow(0.01)) for _ in range(2)]
        await asyncio.sleep(rng.uniform(0.05, 0.6))
        await house.database["statistics_state"].update_one({}, {"$set": {"until": FIRST}})  # the lease of who died
        if rng.random() < 0.3:
            with contextlib.suppress(asyncio.TimeoutError):
                async with asyncio.timeout(rng.uniform(0.05, 0.5)):  # a rebuild that is killed half-way, or is not
                    await house.recount.rebuild()
            await house.database["statistics_state"].update_one({}, {"$set": {"building": None}})
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
    await writing
    await house.database["statistics_state"].update_one({}, {"$set": {"until": FIRST}})
    async with house.following():
        await house.counted_to(now())
        kept = await house.kept()
    assert {number_of(fact) for fact in kept[0]} == {r["_id"] for r in await house.all()}
    await house.recount.rebuild()
    assert await house.kept() == kept
    selection = Selection(since=FIRST.date(), until=LAST.date())
    await house.answers_like_a_slow_count(selection, "unit")


async def test_what_they_say_is_counted_is_counted_and_cases_that_change_all_the_time_are(house):
    """A case changes every tenth of a second: what changed before a moment is counted long before that one rests."""
    await house.reports.delete_many({})
    await house.put([handled_by_anna(n, "roads") for n in range(2)])
    await house.recount.rebuild()
    changes = 0

    async def change() -> None:
        nonlocal changes
        while True:
            await house.reports.update_one({"_id": "99010120260901000000"}, {"$inc": {"milestones.reworks": 1}})
            changes += 1
            await asyncio.sleep(0.1)

    async with house.following():
        busy = asyncio.create_task(change())
        try:
            for category in ("street_lights", "graffiti", "other"):
                await house.reports.update_one({"_id": "99010120260901000001"}, {"$set": {"category": category}})
                await house.counted_to(now())
                assert (await house.kept())[0]["99010120260901000001"]["category"] == category
        finally:
            busy.cancel()
            await asyncio.gather(busy, return_exceptions=True)
    assert changes < 400


async def test_a_rebuild_that_the_database_went_away_from_is_begun_anew_by_its_process_alone(house):
    await house.recount.rebuild()
    states = house.database["statistics_state"]
    until = now() + timedelta(minutes=2)
    await states.update_one({}, {"$set": {"building": new_id(), "builder": house.recount._me, "building_until": until}})
    with pytest.raises(Conflict):
        await Recount(house.database).rebuild()
    await house.recount.rebuild()
    state = await states.find_one({})
    assert (state["building"], state["builder"]) == (None, None)


@settings(
    max_examples=1,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(drawn=st.tuples(*(reports(i) for i in range(30))))
async def test_no_question_reads_a_whole_collection_and_facts_come_from_the_index_alone(house, drawn):
    await house.reports.delete_many({})
    await house.put(list(drawn))
    await house.recount.rebuild()
    facts, rows = collections(house.database, await house.generation())
    edges = Selection(since=date(2026, 9, 15), until=date(2026, 11, 15), areas=(("990101",),))
    await house.database.command("profile", 2)
    try:
        for by in (None, "unit", "street", "grid", "person", "category"):
            await house.statistics.figures(edges, by)
            await house.statistics.figures(replace(edges, unit="roads"), by)
        await house.statistics.cases(edges, "handled", None, 20)
    finally:
        await house.database.command("profile", 0)
    profile = house.database["system.profile"]
    asked = [p async for p in profile.find({"op": {"$in": ["query", "command"]}, "planSummary": {"$exists": True}})]
    by_collection = {name: [p for p in asked if p["ns"].endswith(name)] for name in (facts.name, rows.name)}
    assert all(by_collection.values())
    for found in by_collection.values():
        assert all(p["planSummary"].startswith("IXSCAN") for p in found), {p["planSummary"] for p in found}
    assert all(p["docsExamined"] == 0 for p in by_collection[facts.name])


@pytest.mark.parametrize("units", [("roads", "sanitation", None), tuple(f"unit-{n}" for n in range(10))])
async def test_what_one_person_did_is_found_whichever_units_it_was_with(house, units):
    await house.reports.delete_many({})
    await house.put([handled_by_anna(n, unit) for n, unit in enumerate(units)])
    await house.recount.rebuild()
    selection = Selection(since=FIRST.date(), until=LAST.date(), person="anna")
    figures = await house.statistics.figures(selection, "category")
    assert figures.total["handled"] == len(units)
    await house.answers_like_a_slow_count(selection, "category")


def handled_by_anna(number: int, unit: str | None) -> dict[str, Any]:
    """A report that has been handled, of one of two categories."""
    at = {f"{what}_at": FIRST + timedelta(days=days) for what, days in (("filed", 1), ("handled", 3))}
    return {
        **EMPTY,
        "_id": f"99010120260901{number:06d}",
        "state": str(State.HANDLED),
        "created_at": FIRST,
        "areas": [GRIDS[0][:6], GRIDS[0][:9], GRIDS[0][:12], GRIDS[0]],
        "unit_id": unit,
        "category": CATEGORIES[number % 2],
        "handled_at": at["handled_at"],
        "milestones": {**no_milestones(), **at, "handled_by": "anna"},
        "pauses": [],
        "grams": [],
    }


@pytest.mark.parametrize("code", [GRIDS[0][:6], GRIDS[0][:9]])
async def test_by_grid_the_cases_of_an_area_that_lie_in_no_grid_are_a_group_too(house, code):
    await house.reports.delete_many({})
    chain = [GRIDS[0][:6], GRIDS[0][:9], GRIDS[0][:12], GRIDS[0]]
    await house.put([{**handled_by_anna(n, "roads"), "areas": chain[:length]} for n, length in enumerate((2, 3, 4))])
    await house.recount.rebuild()
    selection = Selection(since=FIRST.date(), until=LAST.date(), areas=((code,),))
    figures = await house.statistics.figures(selection, "grid")
    assert {grid: counts["handled"] for grid, counts in figures.groups.items()} == {GRIDS[0]: 1, None: 2}
    await house.answers_like_a_slow_count(selection, "grid")


def test_the_slow_count_knows_every_list():
    assert LISTS.keys() == COUNTS.keys()


async def test_the_command_counts_everything_anew(house, mongodb_url, capsys):
    await house.put([{"_id": "99010120260901000099", "state": "submitted", "created_at": FIRST, **EMPTY}])
    cases = await house.reports.count_documents({})
    command = ["rebuild-statistics", "--mongodb-url", mongodb_url, "--database", house.database.name]
    assert await asyncio.to_thread(main, command) == 0
    printed = capsys.readouterr()
    assert printed.out == f"Counted {cases} cases.\n"
    assert "counting cases" in printed.err
    figures = await house.statistics.figures(Selection(FIRST.date(), LAST.date(), category="-", unit="-"), None)
    assert figures.total["reported"] >= 1
    assert await asyncio.to_thread(main, ["rebuild-statistics", "--mongodb-url", "mongodb://127.0.0.1:9"]) == 2
