"""The collections in memory, on which cases are walked by the thousand, do what MongoDB does with the same."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from pymongo import ReturnDocument

from core.database import connect
from core.ids import new_id
from core.queue.debts import Amendment, Document, owe
from tests.clock import unmoved_clock
from tests.lifecycle.in_memory import DistrictInMemory, WalkInMemory
from tests.lifecycle.memory import MemoryCollection
from tests.lifecycle.walk import Trail
from tests.sampling import dice, sample

Update = tuple[Document, Document, Any]


async def _walked() -> list[Update]:
    """What some walks have tried to update: (the case as it stood, the query, the update)."""
    journal: list[Update] = []
    random = dice("walks to compare")
    for two_level in (False, True):
        district = await DistrictInMemory.open(two_level=two_level)
        district.collections["reports"].journal = journal
        for _ in range(3):
            await WalkInMemory(Random(random.random()), Trail(), district).go()
    return journal


@pytest.fixture(scope="module")
def journal() -> list[Update]:
    with unmoved_clock(), asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(_walked())


@pytest_asyncio.fixture(scope="module")
async def real(mongodb_url):
    database = connect(mongodb_url, f"test_{new_id()}")
    yield database["cases"]
    await database.client.drop_database(database.name)
    database.client.close()


async def both(real, before, query, change):
    """``before`` after the update, by either; None where the query did not match."""
    memory = MemoryCollection()
    await memory.insert_one(before)
    await real.insert_one(before)
    mine = await memory.find_one_and_update(query, change)
    after = await real.find_one_and_update(query, change, return_document=ReturnDocument.AFTER)
    await real.delete_one({"_id": before["_id"]})
    return mine, after


async def test_what_walks_write_is_what_mongodb_makes_of_it(journal, real):
    kinds = {operator for _, _, change in journal for stage in change for operator in _operators(stage)}
    assert kinds >= {"$set", "$concatArrays", "$add", "$filter"}
    written = 0
    for before, query, change in sample("updates to compare", journal, 40):
        mine, after = await both(real, before, query, change)
        assert mine == after
        written += mine is not None
    assert written >= 30  # the others wanted to follow a case that is over


async def test_what_does_not_match_in_mongodb_does_not_match_in_memory(journal, real):
    random, outcomes = dice("updates that do not match"), set()
    for _ in range(40):
        (before, _, _), (_, query, change) = random.sample(journal, 2)
        if random.random() < 0.5:
            query = {name: wanted for name, wanted in query.items() if name != "version"}
        mine, after = await both(real, before, {**query, "_id": before["_id"]}, change)
        assert mine == after
        outcomes.add(mine is None)
    assert outcomes == {True, False}


async def test_amendments_of_all_forms_are_what_mongodb_makes_of_them(real):
    owed = [owe("x"), owe("z")]
    before = {"_id": 1, "list": [1], "deep": {"count": 1, "gone": 2}, "none": None, "gone": 3, "owed": owed}
    amendment = Amendment(
        set={"deep.new": "$notAField", "none.inner": 1, "state": {"a.b": 1}, "other.new": []},
        unset=["gone", "deep.gone", "never.there"],
        push={"list": [2, {"$literal": 3}], "fresh": ["$list"]},
        increment={"deep.count": 2, "counts.urges": 1},
        owe=[owe("y")],
        settle=["x", owed[1]["id"]],
    )
    mine, after = await both(real, before, {"_id": 1}, amendment.pipeline())
    assert mine == after
    assert [d["kind"] for d in mine["owed"]] == ["y"]
    mine, after = await both(real, before, {"_id": 1}, Amendment(settle=["x"]).pipeline())
    assert mine == after
    assert [d["kind"] for d in mine["owed"]] == ["z"]


async def test_somebody_joins_a_list_once_as_in_mongodb(real):
    before = {"_id": 1, "followers": ["a"]}
    for person in ("a", "b"):
        mine, after = await both(real, before, {"_id": 1}, {"$addToSet": {"followers": person}})
        assert mine == after


@pytest.mark.parametrize(
    "query",
    [
        {"list.0": {"$exists": True}},
        {"list.1": {"$exists": False}},
        {"list.2": {"$exists": False}},
        {"entries.id": {"$ne": "a"}},
        {"entries.id": {"$ne": "c"}},
        {"entries.id": "b"},
        {"missing": None},
        {"missing.deep": {"$exists": True}},
        {"none": None},
        {"none": {"$lt": 3}},
        {"count": {"$lte": 3}},
        {"count": {"$lt": 3}},
        {"count": {"$gt": 2, "$lte": 3}},
        {"list": 2},
        {"list": {"$in": [5, 2]}},
        {"word": {"$in": ["x", None]}},
        {"missing": {"$in": ["x", None]}},
        {"list": [1, 2]},
    ],
)
async def test_queries_match_as_in_mongodb(real, query):
    before = {"_id": 1, "list": [1, 2], "entries": [{"id": "a"}, {"id": "b"}], "none": None, "count": 3, "word": "w"}
    mine, after = await both(real, before, {"_id": 1, **query}, [{"$set": {"done": True}}])
    assert mine == after


def _operators(expression) -> set[str]:
    if isinstance(expression, dict):
        inner = [e for name, e in expression.items() if name != "$literal"]
        return {name for name in expression if name.startswith("$")}.union(*map(_operators, inner))
    return set().union(*map(_operators, expression)) if isinstance(expression, list) else set()
