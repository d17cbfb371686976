"""Nothing that holds a citizen's id is held by nobody: each such place is declared by a room, which forgets it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.rooms import ROOMS
from tests.api.support import accept_all
from tests.timing import until

HELD = {
    f"{collection}.{path}"
    for room in ROOMS
    if room.personal
    for collection, paths in room.personal.held.items()
    for path in paths
}
KEPT = {path for room in ROOMS if room.personal for path in room.personal.kept}


def paths(value: Any, wanted: str, at: str) -> Iterator[str]:
    """Where in a document ``wanted`` stands, also as a part of a text; elements of arrays without an index."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from paths(inner, wanted, f"{at}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, wanted, at)
    elif isinstance(value, str) and wanted in value:
        yield at


async def found(district, wanted: str) -> set[str]:
    """Every place of the database where an id stands."""
    database = district.services.database
    places: set[str] = set()
    for name in await database.list_collection_names():
        async for document in database[name].find():
            places |= set(paths(document, wanted, name))
    return places


async def a_life(district) -> Any:
    """A citizen who has done everything that one can do: the ids of them."""
    citizen, other = await district.citizen(), await district.citizen()
    await citizen.post("/me/consents", {"subject": "privacy_policy", "version": "1.0", "given": True})
    await accept_all(district, citizen, 3)
    await citizen.photo()
    mine = await district.submit(citizen, key=f"key-of-{citizen.facts['citizen_id'][:12]}")
    theirs = await district.submit(other)
    await district.drive(theirs, "dispatched")
    await citizen.post(f"/reports/{theirs}/follow")
    await citizen.post(f"/reports/{theirs}/urge", {})
    await district.drive(mine, "closed")
    await citizen.post(f"/reports/{mine}/rating", {"resolved": "yes", "score": 5})
    await district.settled(mine)
    await citizen.get("/me/export")
    return citizen


async def test_every_place_that_holds_a_citizens_id_is_declared_by_a_room(district):
    citizen = await a_life(district)
    places = await found(district, citizen.facts["citizen_id"])
    assert places >= {
        "citizens._id",
        "sessions.subject",
        "reports.reporter.citizen_id",
        "reports.followers",
        "photos.owner.id",
    }
    assert places <= HELD, f"no room answers for {sorted(places - HELD)}"


async def test_after_the_account_is_deleted_no_place_holds_it_but_what_is_said_to_be_kept(district):
    citizen = await a_life(district)
    await citizen.call("DELETE", "/me")
    citizens = district.services.database["citizens"]

    async def forgotten() -> bool:
        document = await citizens.find_one({"_id": citizen.facts["citizen_id"]})
        return not document["owed"]

    await until(forgotten)
    assert await found(district, citizen.facts["citizen_id"]) <= KEPT
    assert await found(district, citizen.facts["openid"]) == set()
