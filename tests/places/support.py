"""Maps to import, and a database of one's own to import them into."""

import json
from contextlib import asynccontextmanager

import pytest
from pymongo.monitoring import CommandListener

from core.database import Client, connect, ensure_indexes
from core.ids import new_id
from places.importer import ImportRefused, import_areas
from places.service import INDEXES
from server.demo.geography import FILES, FOLDER


@asynccontextmanager
async def fresh_database(url):
    """A database that only this test knows, with the indexes the server would make; gone afterwards."""
    database = connect(url, f"places_{new_id()}")
    await ensure_indexes(database, INDEXES)
    try:
        yield database
    finally:
        await database.client.drop_database(database.name)
        database.client.close()


def watched_database(url, name, on_command):
    """The database ``name`` through a connection that calls ``on_command`` with each command's name once it is done.

    The farewell at closing is not one.
    """

    class Watcher(CommandListener):
        def started(self, event):
            pass

        def succeeded(self, event):
            if event.command_name != "endSessions":
                on_command(event.command_name)

        failed = succeeded

    return Client(url, event_listeners=[Watcher()]).get_database(name)


async def import_demo(database):
    for file in FILES.values():
        await import_areas(database, FOLDER / file)


def square(west, south, side=0.01):
    east, north = west + side, south + side
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def feature(code, ring=None, name=None, geometry=None, **properties):
    return {
        "type": "Feature",
        "properties": {"code": code, "name": name or f"区域{code}", **properties},
        "geometry": geometry or {"type": "Polygon", "coordinates": [ring or square(113.0, 23.0)]},
    }


def nested_map(version, west=113.0, south=23.0):
    """A district, a street, a community and a grid in one file, each named after ``version``."""
    levels = {"district": "990102", "street": "990102001", "community": "990102001001", "grid": "990102001001001"}
    return [feature(code, square(west, south), name=f"{level}{version}", level=level) for level, code in levels.items()]


def write(path, features, **members):
    path.write_text(json.dumps({"type": "FeatureCollection", **members, "features": features}), encoding="utf-8")
    return path


async def snapshot(database):
    """Everything in the map, as it is stored."""
    return sorted([area async for area in database["areas"].find()], key=lambda area: area["_id"])


async def refusal(database, path, **options):
    """The problems for which ``path`` is refused, after seeing that the map stayed as it was and nothing is left."""
    before = await snapshot(database)
    with pytest.raises(ImportRefused) as refused:
        await import_areas(database, path, **options)
    assert await snapshot(database) == before
    assert not [name for name in await database.list_collection_names() if name.startswith("areas_import_")]
    return refused.value.problems
