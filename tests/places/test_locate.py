"""Which areas hold a point: in the demo district, on borders, in gaps and outside."""

import random
from itertools import pairwise

import pytest
import pytest_asyncio

from core.errors import Invalid, NotFound, Unavailable
from places.importer import import_areas
from places.models import Level, Polygon, chain_of, level_of
from places.service import INDEXES, PlaceService
from server.demo.geography import FOLDER, build
from tests.places.support import feature, fresh_database, import_demo, square, watched_database, write


@pytest_asyncio.fixture(scope="module")
async def demo(mongodb_url):
    async with fresh_database(mongodb_url) as database:
        await import_demo(database)
        yield database


def outline(area):
    assert isinstance(area.geometry, Polygon)
    return area.geometry.coordinates[0]


def inside(ring, x, y):
    """The even-odd rule: an answer that owes nothing to MongoDB."""
    odd = False
    for (xa, ya), (xb, yb) in pairwise(ring):
        if (ya > y) != (yb > y) and x < xa + (xb - xa) * (y - ya) / (yb - ya):
            odd = not odd
    return odd


def test_the_committed_demo_files_are_what_the_generator_makes():
    made = build()
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.geojson")} == made


async def test_every_point_of_the_demo_district_lies_in_exactly_one_chain(demo):
    service = PlaceService(demo)
    areas = await service.areas()
    assert {level: sum(area.level == level for area in areas) for level in Level} == {
        Level.DISTRICT: 1,
        Level.STREET: 4,
        Level.COMMUNITY: 12,
        Level.GRID: 48,
    }
    rings = {area.code: outline(area) for area in areas}
    chance = random.Random(1)
    done = 0
    while done < 2_000:
        x, y = chance.uniform(113.215, 113.305), chance.uniform(23.125, 23.195)
        if not inside(rings["990101"], x, y):
            continue
        located = await service.locate(x, y)
        assert located.areas == chain_of(located.areas[-1])
        assert level_of(located.areas[-1]) == Level.GRID
        assert [code for code, ring in rings.items() if inside(ring, x, y)] == sorted(located.areas)
        done += 1


async def test_outside_is_refused_and_the_refusal_names_who_is_served(demo):
    with pytest.raises(Invalid) as refused:
        await PlaceService(demo).locate(113.5, 23.5)
    assert refused.value.code == "OUTSIDE_DISTRICT"
    assert "共治示范区" in refused.value.message
    assert refused.value.details == {"districts": ["共治示范区"]}


async def test_a_corner_of_four_grids_always_gets_the_same_consistent_answer(demo):
    service = PlaceService(demo)
    grids = {grid.code: outline(grid) for grid in await service.areas(Level.GRID)}
    vertices = {vertex for ring in grids.values() for vertex in ring}
    corners = [vertex for vertex in vertices if sum(vertex in ring for ring in grids.values()) == 4]
    assert len(corners) == 7 * 5
    for corner in corners:
        smallest = min(code for code, ring in grids.items() if corner in ring)
        assert (await service.locate(*corner)).areas == chain_of(smallest)


async def test_locating_is_one_query_by_the_index(demo, mongodb_url):
    sent: list[str] = []
    watched = watched_database(mongodb_url, demo.name, sent.append)
    await PlaceService(watched).locate(113.26, 23.16)
    watched.client.close()
    assert sent == ["find"]
    point = {"type": "Point", "coordinates": [113.26, 23.16]}
    plan = await demo["areas"].find({"geometry": {"$geoIntersects": {"$geometry": point}}}).explain()
    assert "geometry_2dsphere" in str(plan["queryPlanner"]["winningPlan"])
    assert plan["executionStats"]["totalDocsExamined"] < 20


@pytest.mark.parametrize("point", [(float("nan"), 23.0), (113.0, 91.0), (-181.0, 0.0)])
async def test_what_is_no_position_is_refused_in_words(demo, point):
    with pytest.raises(Invalid) as refused:
        await PlaceService(demo).locate(*point)
    assert "请重新选择位置" in refused.value.message


async def test_without_a_map_the_refusal_asks_for_one(mongodb_url):
    async with fresh_database(mongodb_url) as database:
        with pytest.raises(Unavailable) as refused:
            await PlaceService(database).locate(113.26, 23.16)
    assert refused.value.code == "NO_DISTRICT"


async def test_a_gap_in_the_map_leaves_the_deeper_levels_open(mongodb_url, tmp_path):
    features = [
        feature("990102", square(113.0, 23.0, 0.1), level="district"),
        feature("990102001", square(113.0, 23.0, 0.05), level="street"),
    ]
    async with fresh_database(mongodb_url) as database:
        await import_areas(database, write(tmp_path / "map.geojson", features))
        located = await PlaceService(database).locate(113.08, 23.08)
        assert (located.areas, located.street, located.grid) == (["990102"], None, None)
        located = await PlaceService(database).locate(113.02, 23.02)
        assert (located.areas, located.grid) == (["990102", "990102001"], None)


async def test_overlapping_areas_give_the_deepest_chain_and_never_mix_two(mongodb_url, tmp_path):
    """Two communities overlap, and only the second has a grid there: the first must not be named beside that grid."""
    here, west, east = square(113.0, 23.0), square(113.0, 23.0, 0.006), square(113.004, 23.0, 0.006)
    features = [
        feature("990102", here, level="district"),
        feature("990102001", here, level="street"),
        feature("990102001001", west, level="community"),
        feature("990102001002", east, level="community"),
        feature("990102001002001", east, level="grid"),
    ]
    async with fresh_database(mongodb_url) as database:
        await import_areas(database, write(tmp_path / "map.geojson", features))
        located = await PlaceService(database).locate(113.005, 23.005)
    assert located.areas == chain_of("990102001002001")


async def test_areas_are_listed_by_level_and_by_parent(demo):
    service = PlaceService(demo)
    assert [street.name for street in await service.areas(Level.STREET)] == [
        "云溪街道", "松岗街道", "明湖街道", "石桥街道",
    ]  # fmt: skip
    communities = await service.areas(parent="990101003")
    assert [area.code for area in communities] == ["990101003001", "990101003002", "990101003003"]
    assert {area.level for area in communities} == {level_of("990101003001")}


async def test_one_area_is_found_by_its_code_or_said_to_be_missing(demo):
    service = PlaceService(demo)
    street = await service.get("990101001")
    assert (street.name, street.parent, street.level) == ("云溪街道", "990101", Level.STREET)
    assert street.code in (await service.locate(*street.centre)).areas
    assert await service.exists("990101001")
    assert not await service.exists("990101009")
    with pytest.raises(NotFound) as missing:
        await service.get("990101009")
    assert missing.value.code == "AREA_NOT_FOUND"


async def test_the_server_makes_the_same_indexes_as_an_import(mongodb_url, tmp_path, demo):
    """``ensure_indexes`` at the next start must find nothing to do."""
    made = await demo["areas"].index_information()
    assert len(made) == 1 + len(INDEXES["areas"])
    assert "2dsphereIndexVersion" in made["geometry_2dsphere"]
