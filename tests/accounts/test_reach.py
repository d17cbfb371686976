"""Reach has two faces, a test of a document at hand and a query: they say the same of any document to anybody."""

from __future__ import annotations

import random
from typing import Any

import pytest_asyncio

from accounts.reach import Reach
from core.database import connect
from core.ids import new_id
from tests.checks import inline_reach
from tests.sampling import amount, dice

DISTRICTS = ("990101", "990102")
UNITS = ("roads", "gardens", "sanitation")


def a_place(dice: random.Random) -> list[str]:
    """The codes of a grid and of all around it."""
    grid = dice.choice(DISTRICTS) + "".join(f"{dice.randint(1, 2):03}" for _ in range(3))
    return [grid[:end] for end in (6, 9, 12, 15)]


def a_reach(dice: random.Random) -> Reach:
    areas = {dice.choice(a_place(dice)) for _ in range(dice.randint(0, 3))}
    return Reach(tuple(sorted(areas)), dice.choice([None, None, *UNITS]))


def a_document(dice: random.Random) -> dict[str, Any]:
    """A case with up to three units, the lead first."""
    units = dice.sample(UNITS, dice.randint(0, 3))
    place = a_place(dice)
    return {
        "_id": new_id(),
        "areas": place,
        "area": place[-1],
        "unit_id": units[0] if units else None,
        "units": [{"unit_id": unit} for unit in units],
    }


@pytest_asyncio.fixture
async def collection(mongodb_url):
    database = connect(mongodb_url, f"reach_{new_id()}")
    yield database["documents"]
    await database.client.drop_database(database.name)
    database.client.close()


async def ids(collection: Any, *conditions: dict[str, Any]) -> set[str]:
    return {d["_id"] async for d in collection.find({"$and": list(conditions)}, {"_id": 1})}


async def test_both_faces_agree_on_cases_places_and_points(collection):
    draw = dice("reach")
    documents = [a_document(draw) for _ in range(120)]
    await collection.insert_many(documents)
    met = set()
    for _ in range(amount(60, 600)):
        reach = a_reach(draw)
        cases = {d["_id"] for d in documents if reach.contains(d["areas"], *(u["unit_id"] for u in d["units"]))}
        assert await ids(collection, *reach.conditions(units="units")) == cases, reach
        leads = {d["_id"] for d in documents if reach.contains(d["areas"], d["unit_id"])}
        assert await ids(collection, *reach.conditions()) == leads, reach
        places = {d["_id"] for d in documents if reach.contains(d["areas"])}
        assert await ids(collection, reach.places()) == places, reach
        if reach.areas:
            points = {d["_id"] for d in documents if reach.covers(d["areas"])}
            assert points == {d["_id"] for d in documents if reach.has_area(d["area"])}
            assert await ids(collection, reach.inside("area")) == points, reach
        met |= {("cases", bool(cases)), ("places", bool(places)), ("unit", reach.unit_id is not None)}
    assert len(met) == 6, "nothing was found, or all of it, every time"


async def test_both_faces_agree_on_others_reach(collection):
    draw = dice("others reach")
    reaches = {new_id(): a_reach(draw) for _ in range(120)}
    await collection.insert_many([{"_id": k, **r.stored(), "reach": r.stored()} for k, r in reaches.items()])
    some = 0
    for _ in range(amount(60, 600)):
        by = a_reach(draw)
        theirs = {k for k, r in reaches.items() if by.encloses(r.areas, r.unit_id)}
        assert await ids(collection, by.enclosed()) == theirs, by
        assert await ids(collection, by.enclosed("reach")) == theirs, by
        some += bool(theirs)
    assert some


def test_who_has_no_area_reaches_nothing():
    assert not Reach(()).contains(["990101"], None)
    assert not Reach(()).has_area("990101")
    assert not Reach(()).is_of_a_district


def test_what_decides_on_reach_by_itself_is_found(tmp_path, capsys):
    assert inline_reach.main() == 0, capsys.readouterr().out
    file = tmp_path / "lists.py"
    file.write_text("def mine(self, by):\n    return {'areas': list(by.areas), 'unit_id': self.staff.unit_id}\n")
    assert sorted(inline_reach.found(file)) == [(2, "areas"), (2, "unit_id")]
