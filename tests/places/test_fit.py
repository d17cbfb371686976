"""Areas that do not fit each other are told and not imported; a shifted map is recognised as such."""

import asyncio
import json
import math
import random

import pytest

from places.__main__ import main
from places.coordinates import CRS, convert
from places.fit import Fit, Outline
from places.importer import import_areas
from places.models import Level
from server.demo.geography import FILES, FOLDER
from tests.places.support import feature, fresh_database, refusal, square, write

DISTRICT = feature("990102", square(113.0, 23.0, 0.1), name="临江区", level="district")


def rectangle(west, south, east, north):
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def street(code, ring, name=None, **more):
    return feature(code, ring, name=name, level="street", **more)


async def told(mongodb_url, path, *, first=None, **options):
    """The problems for which ``path`` is refused, the map staying as it was after ``first``."""
    async with fresh_database(mongodb_url) as database:
        if first:
            await import_areas(database, first)
        return [str(problem) for problem in await refusal(database, path, **options)]


async def test_streets_outside_their_district_are_told_and_not_imported(mongodb_url, tmp_path):
    features = [
        DISTRICT,
        street("990102001", square(114.0, 24.0), name="远街道"),
        street("990102002", rectangle(112.99, 23.0, 113.01, 23.01), name="半街道"),
        street("990102003", rectangle(113.02, 22.9998, 113.03, 23.01), name="微街道"),
        street("990102004", rectangle(113.04, 22.99995, 113.05, 23.01), name="好街道"),
    ]
    problems = await told(mongodb_url, write(tmp_path / "map.geojson", features))
    assert problems == [
        "第 2 个要素（990102001）：远街道全部在上级区域临江区（990102）之外（最多允许 1%）",
        "第 3 个要素（990102002）：半街道有 50.0% 的面积在上级区域临江区（990102）之外（最多允许 1%）",
        "第 4 个要素（990102003）：微街道有 2.0% 的面积在上级区域临江区（990102）之外（最多允许 1%）",
    ]


async def test_how_much_may_lie_outside_is_said_by_the_operator(mongodb_url, tmp_path):
    path = write(tmp_path / "map.geojson", [DISTRICT, street("990102001", rectangle(112.999, 23.0, 113.01, 23.01))])
    assert len(await told(mongodb_url, path)) == 1
    async with fresh_database(mongodb_url) as database:
        assert await import_areas(database, path, tolerance=0.1) == 2


async def test_siblings_in_one_place_are_told_and_neighbours_are_not(mongodb_url, tmp_path):
    here = rectangle(113.0, 23.0, 113.05, 23.05)
    features = [
        DISTRICT,
        street("990102001", here, name="甲街道"),
        street("990102002", [*here[2:], here[1], here[2]], name="乙街道"),
        street("990102003", rectangle(113.05, 23.0, 113.1, 23.05), name="邻街道"),
        street("990102004", rectangle(113.06, 23.01, 113.07, 23.02), name="内街道"),
    ]
    problems = await told(mongodb_url, write(tmp_path / "map.geojson", features))
    assert problems == [
        "第 3 个要素（990102002）：乙街道与同级的甲街道（990102001）重叠，占其中较小者面积的 100%",
        "第 5 个要素（990102004）：内街道与同级的邻街道（990102003）重叠，占其中较小者面积的 100%",
    ]


async def test_two_districts_in_one_place_are_told_too(mongodb_url, tmp_path):
    first = write(tmp_path / "first.geojson", [DISTRICT])
    second = write(tmp_path / "second.geojson", [feature("990103", square(113.001, 23.0, 0.1), name="又一区")])
    problems = await told(mongodb_url, second, first=first, level=Level.DISTRICT)
    assert problems == ["第 1 个要素（990103）：又一区与同级的临江区（990102）重叠，占其中较小者面积的 99%"]


async def test_an_enclave_has_its_place_in_the_hole_and_in_the_second_polygon(mongodb_url, tmp_path):
    hole = rectangle(113.02, 23.02, 113.03, 23.03)
    around = {"type": "Polygon", "coordinates": [rectangle(113.0, 23.0, 113.05, 23.05), hole]}
    inside_and_apart = {"type": "MultiPolygon", "coordinates": [[hole], [square(113.07, 23.07)]]}
    features = [
        DISTRICT,
        street("990102001", None, geometry=around),
        street("990102002", None, geometry=inside_and_apart),
    ]
    async with fresh_database(mongodb_url) as database:
        assert await import_areas(database, write(tmp_path / "map.geojson", features)) == 3


async def test_a_new_district_that_leaves_its_streets_outside_is_told(mongodb_url, tmp_path):
    first = write(tmp_path / "first.geojson", [DISTRICT, street("990102001", square(113.05, 23.05), name="原街道")])
    smaller = write(tmp_path / "smaller.geojson", [feature("990102", square(113.0, 23.0, 0.05), name="小区域")])
    problems = await told(mongodb_url, smaller, first=first, level=Level.DISTRICT, replace=True)
    assert problems == ["第 1 个要素（990102）：原街道全部在上级区域小区域（990102）之外（最多允许 1%）"]


async def test_what_was_wrong_before_does_not_stand_in_the_way_of_other_areas(mongodb_url, tmp_path):
    """Maps that older versions took go on; only what the file has a part in is looked at."""
    first = write(tmp_path / "first.geojson", [DISTRICT, street("990102001", square(113.05, 23.05))])
    async with fresh_database(mongodb_url) as database:
        await import_areas(database, first)
        twin = await database["areas"].find_one({"_id": "990102001"})
        assert twin
        await database["areas"].insert_one({**twin, "_id": "990102002"})
        more = write(tmp_path / "more.geojson", [street("990102003", square(113.01, 23.01))])
        assert await import_areas(database, more) == 1


def shifted_streets(path, crs):
    """The demo's streets, drawn in ``crs``."""
    streets = json.loads((FOLDER / FILES[Level.STREET]).read_text(encoding="utf-8"))
    for drawn in streets["features"]:
        rings = drawn["geometry"]["coordinates"]
        drawn["geometry"]["coordinates"] = [[convert(v, CRS.WGS84, crs) for v in ring] for ring in rings]
    path.write_text(json.dumps(streets), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("drawn", "read"),
    [(CRS.GCJ02, CRS.WGS84), (CRS.BD09, CRS.WGS84), (CRS.WGS84, CRS.GCJ02), (CRS.BD09, CRS.GCJ02)],
)
async def test_a_map_drawn_in_another_system_than_it_is_read_in_is_recognised(mongodb_url, tmp_path, drawn, read):
    path = shifted_streets(tmp_path / "streets.geojson", drawn)
    problems = await told(mongodb_url, path, first=FOLDER / FILES[Level.DISTRICT], crs=read)
    assert problems[0].startswith(f"文件：坐标疑似有偏移：按 {read} 读取时，有 ")
    assert problems[0].endswith(f"请核实地图的坐标系，如属实请加 --crs {drawn} 重新导入")
    assert "街道有 " in problems[1]
    async with fresh_database(mongodb_url) as database:
        await import_areas(database, FOLDER / FILES[Level.DISTRICT])
        assert await import_areas(database, path, crs=drawn) == 4


async def test_a_street_that_is_merely_misplaced_is_not_called_shifted(mongodb_url, tmp_path):
    first = write(tmp_path / "first.geojson", [DISTRICT])
    path = write(tmp_path / "map.geojson", [street("990102001", square(113.15, 23.0))])
    assert len(await told(mongodb_url, path, first=first)) == 1


async def test_the_command_line_says_where_a_district_came_to_lie_and_takes_a_tolerance(mongodb_url, tmp_path, capsys):
    over = write(tmp_path / "over.geojson", [street("990102001", rectangle(112.999, 23.0, 113.01, 23.01))])

    async with fresh_database(mongodb_url) as database:

        async def places(*arguments):
            target = ("--mongodb-url", mongodb_url, "--database", database.name)
            status = await asyncio.to_thread(main, [*map(str, arguments), *target])
            return status, capsys.readouterr()

        _, said = await places("import", write(tmp_path / "district.geojson", [DISTRICT]), "--level", "district")
        assert "请核对位置：临江区的中心为 113.05000,23.05000（WGS-84；文件按 wgs84 读取" in said.out
        assert "若实为 gcj02，则偏移约 6" in said.out
        status, said = await places("import", over)
        assert status == 1
        assert "之外（最多允许 1%）" in said.err
        status, said = await places("import", over, "--level", "street", "--tolerance", "10")
        assert (status, said.out) == (0, "已从 over.geojson 导入 1 个区域\n")
        status, said = await places("import", tmp_path / "none.geojson")
        assert status == 2
        assert f"未能执行：无法打开文件 {tmp_path / 'none.geojson'}（文件不存在）" in said.err
        with pytest.raises(SystemExit):
            await places("import", over, "--tolerance", "much")
        assert "应为 0 到 100 之间的百分比" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("position", "hint"),
    [([23.1, 113.2], "经度和纬度可能写反了"), ([500_000, 2_600_000], "投影坐标"), ([190.0, 23.0], "-180 到 180")],
)
async def test_positions_that_cannot_be_are_told_with_what_is_probably_wrong(mongodb_url, tmp_path, position, hint):
    path = write(tmp_path / "map.geojson", [feature("990102", [position] * 4)])
    (problem,) = await told(mongodb_url, path, level=Level.DISTRICT)
    assert hint in problem


SQUARE, INNER = square(113.0, 23.0, 0.1), square(113.02, 23.02, 0.02)
TWICE = [[113, 23], [113.1, 23], [113.05, 23.05], [113.1, 23.1], [113.05, 23.05], [113, 23.1], [113, 23]]


@pytest.mark.parametrize(
    ("rings", "reason"),
    [
        ([TWICE], "第 3 个点与第 5 个点重复"),
        ([SQUARE, SQUARE], "第 2 环第 1 条边与第 1 环第 1 条边重合"),
        ([SQUARE, INNER, square(113.03, 23.03, 0.03)], "第 2 个环与第 3 个环相交"),
        ([SQUARE, square(113.05, 23.05, 0.1)], "内环没有完全在外环之内"),
    ],
)
async def test_what_mongodb_has_against_an_outline_is_said_in_chinese(mongodb_url, tmp_path, rings, reason):
    path = write(tmp_path / "map.geojson", [feature("990102", geometry={"type": "Polygon", "coordinates": rings})])
    assert await told(mongodb_url, path, level=Level.DISTRICT) == [f"第 1 个要素（990102）：边界线不正确：{reason}"]


def circle(x, y, radius, corners=200):
    ring = [[x + radius * math.cos(math.tau * n / corners), y + radius * math.sin(math.tau * n / corners)]
            for n in range(corners)]  # fmt: skip
    return [*ring, ring[0]]


def outline(code, *polygons):
    geometry = {"type": "MultiPolygon", "coordinates": list(polygons)}
    return Outline({"_id": code, "name": code, "geometry": geometry, "centre": (113.0, 23.0)})


def test_shares_are_right_within_two_tenths_of_a_percent():
    """Against what circles and turned triangles share by the book."""
    chance = random.Random(1)
    for _ in range(20):
        radius, away = chance.uniform(0.01, 0.3), chance.uniform(0.0, 2.0)
        turn = chance.uniform(0, math.tau)
        one = outline("1", [circle(113, 23, radius)])
        other = outline(
            "2", [circle(113 + radius * away * math.cos(turn), 23 + radius * away * math.sin(turn), radius)]
        )
        lens = (2 * math.acos(away / 2) - away / 2 * math.sqrt(4 - away * away)) / math.pi
        assert one.share_in(other) == pytest.approx(lens, abs=0.002)
    assert outline("1", [circle(113, 23, 0.1), circle(113, 23, 0.05)]).share_in(
        outline("2", [circle(113, 23, 0.05)])
    ) == pytest.approx(0.0, abs=0.002)
    twice = outline("1", [circle(113, 23, 0.1)], [circle(113, 23, 0.1)])
    assert twice.size == pytest.approx(math.pi * 0.01, rel=0.002)


@pytest.mark.parametrize(("new", "misfits"), [(set(), 0), ({"990103"}, 2), ({"990103001"}, 1)])
def test_only_what_is_new_is_compared(new, misfits):
    fit = Fit(new=new, crs=CRS.WGS84)
    for code, west in (("990102", 113.0), ("990103", 113.0), ("990103001", 114.0)):
        geometry = {"type": "Polygon", "coordinates": [square(west, 23.0)]}
        fit.add({"_id": code, "name": code, "centre": (west, 23.0), "geometry": geometry})
    assert len(fit.misfits) == misfits
    assert fit.shift() is None
