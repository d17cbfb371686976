"""The statistics are what a slow and plain count of the reports comes to, however they changed and whoever died."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.clock import now
from core.database import connect
from core.errors import Conflict
from core.ids import new_id
from reports.__main__ import main
from reports.lifecycle.milestones import no_milestones
from reports.states import State
from reports.statistics.indicators import COUNTS
from reports.statistics.reading import Selection
from reports.statistics.recount import Recount, collections
from reports.statistics.rows import number_of
from tests.reports.drawn_reports import (
    CATEGORIES,
    EMPTY,
    FIRST,
    GRIDS,
    LAST,
    UNITS,
    reports,
    selections,
)
from tests.reports.statistics_house import House
from tests.reports.statistics_oracle import LISTS
from tests.sampling import amount


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


@pytest.mark.long
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
