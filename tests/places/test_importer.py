"""A map comes in whole or not at all, and whoever drew it is told everything that is wrong with it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from core.clock import clock
from core.database import connect
from places.coordinates import CRS, LonLat, convert, distance
from places.importer import LEASE_TIME, LEASES, ImportBusy, import_areas
from places.models import Level, MultiPolygon
from places.service import PlaceService
from server.demo.geography import FOLDER
from tests.places.support import (
    feature,
    fresh_database,
    import_demo,
    nested_map,
    refusal,
    snapshot,
    square,
    watched_database,
    write,
)

ROOT = Path(__file__).resolve().parents[2]

BOW = [[113.0, 23.0], [113.1, 23.1], [113.1, 23.0], [113.0, 23.2], [113.0, 23.0]]

# What is wrong, and what the person is told of it.
FAULTS = {
    "no feature": ("nothing", "不是 GeoJSON Feature"),
    "no code": (feature(None), "缺少属性 code"),
    "number for a code": (feature(990201001), "应为由数字组成的文本"),
    "letters in a code": (feature("99020100A"), "应为由数字组成的文本"),
    "code of another level": (feature("990101"), "有 6 位，street 应为 9 位"),
    "another level": (feature("990101009", level="grid"), "本次按 street 导入"),
    "no such level": (feature("990101009", level="village"), "应为 district、"),
    "another parent than the code says": (feature("990101009", parent="990102"), "代码以 990101 开头"),
    "parent that does not exist": (feature("990109001"), "上级区域 990109 不存在"),
    "a code that is there": (feature("990101001"), "该代码已存在"),
    "no name": (feature("990101009", name=" "), "属性 name"),
    "open ring": (feature("990101009", square(113, 23)[:-1]), "第 1 个多边形的第 1 个环没有闭合"),
    "three positions": (feature("990101009", [[113, 23], [113.1, 23], [113, 23]]), "坐标点太少"),
    "a line": (feature("990101009", [[113, 23], [113.1, 23], [113.2, 23], [113, 23]]), "没有围成区域"),
    "off the globe": (feature("990101009", [*square(113, 23)[:2], [113, 91], [113, 23]]), "纬度应在 -90 到 90 之间"),
    "metres for degrees": (feature("990101009", square(12_608_000, 2_650_000)), "以米为单位的投影坐标"),
    "no numbers": (feature("990101009", [["113", "23"]] * 4), "不是 [经度, 纬度]"),
    "a point": (feature("990101009", geometry={"type": "Point", "coordinates": [113, 23]}), "不能是 Point"),
    "no geometry": ({**feature("990101009"), "geometry": None}, "应为 Polygon 或 MultiPolygon"),
    "an empty polygon": (feature("990101009", geometry={"type": "Polygon", "coordinates": []}), "非空的列表"),
    "crossing lines": (feature("990101009", BOW), "第 1 条边与第 3 条边相交"),
    "a hole outside": (
        feature("990101009", geometry={"type": "Polygon", "coordinates": [square(113, 23), square(114, 23)]}),
        "内环没有完全在外环之内",
    ),
    "another system": (feature("990101009", crs="gcj02"), "请加 --crs gcj02"),
    "an unknown system": (feature("990101009", crs="epsg:3857"), "不是 wgs84、gcj02、bd09 之一"),
}


async def test_every_kind_of_fault_is_told_and_nothing_is_loaded(mongodb_url, tmp_path):
    good = feature("990101008")
    features = [good]
    for broken, _ in FAULTS.values():
        # A code of its own where the code is not the fault, or all would be duplicates.
        if isinstance(broken, dict) and broken["properties"]["code"] == "990101009":
            code = f"990101{100 + len(features)}"
            broken = {**broken, "properties": {**broken["properties"], "code": code}}
        features.append(broken)
    async with fresh_database(mongodb_url) as database:
        await import_demo(database)
        problems = await refusal(database, write(tmp_path / "map.geojson", features), level=Level.STREET)
    told = {number: [p.reason for p in problems if p.feature == number] for number in range(1, len(features) + 1)}
    assert told.pop(1) == []
    for number, (fault, (_, reason)) in enumerate(FAULTS.items(), 2):
        assert len(told[number]) == 1, fault
        assert reason in told[number][0], fault


async def test_all_faults_of_one_feature_are_told_at_once(mongodb_url, tmp_path):
    path = write(tmp_path / "map.geojson", [feature("99", BOW[:-1], name=" ")])
    async with fresh_database(mongodb_url) as database:
        problems = await refusal(database, path, level=Level.DISTRICT)
    assert [str(p)[:20] for p in problems] == [
        "第 1 个要素：属性 name 应为 1",
        "第 1 个要素：代码 99 有 2 位，",
        "第 1 个要素：第 1 个多边形的第 1",
    ]


async def test_a_code_twice_in_the_file_names_the_first_feature(mongodb_url, tmp_path):
    path = write(tmp_path / "map.geojson", [feature("990101"), feature("990102"), feature("990101")])
    async with fresh_database(mongodb_url) as database:
        problems = await refusal(database, path, level=Level.DISTRICT)
    assert [str(p) for p in problems] == ["第 3 个要素（990101）：代码 990101 与第 1 个要素重复"]


async def test_a_thousand_bad_outlines_are_all_told_with_their_reason(mongodb_url, tmp_path):
    """Beyond a megabyte MongoDB leaves its messages empty; they must be asked for again."""
    ring = [[113 + i / 1000, 23 + (i % 2) / 1000] for i in range(60)] + BOW
    ring.append(ring[0])
    path = write(tmp_path / "map.geojson", [feature(f"{n}", ring) for n in range(990000, 991000)])
    async with fresh_database(mongodb_url) as database:
        problems = await refusal(database, path, level=Level.DISTRICT)
    assert [p.feature for p in problems] == list(range(1, 1001))
    assert all("相交" in p.reason or "重复" in p.reason for p in problems)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "之后应为 '{'，文件却已结束"),
        ("[]", "却是 '['"),
        ("{}", "不是带有 features 的 GeoJSON"),
        ('{"type":"FeatureCollection"}', "不是带有 features 的 GeoJSON"),
        ('{"type":"FeatureCollection","features":7}', "没有任何要素"),
        ('{"type":"FeatureCollection","features":[]}', "没有任何要素"),
        ('{"type":"FeatureCollection","features":[{}', "文件却已结束"),
        ('{"type":"FeatureCollection","features":[{"a" 1}]}', "第 0 个要素之后的 JSON 有语法错误"),
        ('{"type":"FeatureCollection","features":[{},{"a":NULL}]}', "第 1 个要素之后的 JSON 有语法错误"),
        ('{"type":"FeatureCollection","features":[]} x', "文件结尾之后"),
        ('{"type":"FeatureCollection","features":' + "[" * 100_000, "JSON 有语法错误"),
        ('{"type":"FeatureCollection","crs":"mercator","features":[{}]}', "坐标系 'mercator'"),
        ("\xff\xfe", "不是 UTF-8"),
    ],
)
async def test_a_file_that_is_no_feature_collection_is_refused(mongodb_url, tmp_path, text, reason):
    path = tmp_path / "map.geojson"
    path.write_bytes(text.encode("latin-1"))
    async with fresh_database(mongodb_url) as database:
        problems = await refusal(database, path, level=Level.DISTRICT)
    assert any(reason in str(p) for p in problems), problems


async def test_members_in_any_order_white_space_heights_and_a_named_system_are_read(mongodb_url, tmp_path):
    """As QGIS writes them; the feature is longer than what is read at once."""
    long = feature("990101", [[*v, 12.5] for v in square(113.0, 23.0)], remark="长" * 1_500_000)
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    text = json.dumps({"features": [long], "bbox": [1, 2.5], "crs": crs, "type": "FeatureCollection"}, indent=3)
    path = tmp_path / "map.geojson"
    path.write_text("\ufeff" + text, encoding="utf-8")
    async with fresh_database(mongodb_url) as database:
        assert await import_areas(database, path, level=Level.DISTRICT) == 1
        area = await PlaceService(database).get("990101")
    assert [list(vertex) for vertex in area.geometry.coordinates[0]] == square(113.0, 23.0)
    assert distance(area.centre, LonLat(113.005, 23.005)) < 1


@pytest.mark.parametrize("crs", [CRS.GCJ02, CRS.BD09])
async def test_a_map_drawn_in_another_system_is_stored_in_wgs84(mongodb_url, tmp_path, crs):
    ring = [list(convert((x, y), CRS.WGS84, crs)) for x, y in square(113.0, 23.0)]
    several = {"type": "MultiPolygon", "coordinates": [[ring]]}
    path = write(tmp_path / "map.geojson", [feature("990101", geometry=several, crs=crs)], crs=crs)
    async with fresh_database(mongodb_url) as database:
        await import_areas(database, path, level=Level.DISTRICT, crs=crs)
        area = await PlaceService(database).get("990101")
    assert isinstance(area.geometry, MultiPolygon)
    for stored, drawn in zip(area.geometry.coordinates[0][0], square(113.0, 23.0), strict=True):
        assert distance(LonLat(*stored), LonLat(*drawn)) < 0.001


async def test_replacing_a_level_drops_what_the_file_lacks_and_keeps_the_other_levels(mongodb_url, tmp_path):
    async with fresh_database(mongodb_url) as database:
        await import_demo(database)
        before = await snapshot(database)
        path = write(
            tmp_path / "grids.geojson", [feature("990101001001001", square(113.23, 23.135, 0.004), name="新网格")]
        )
        await import_areas(database, path, level=Level.GRID, replace=True)
        service = PlaceService(database)
        assert [grid.name for grid in await service.areas(Level.GRID)] == ["新网格"]
        assert [a for a in await snapshot(database) if a["level"] != "grid"] == [
            a for a in before if a["level"] != "grid"
        ]


async def test_a_level_is_not_replaced_under_the_feet_of_those_below(mongodb_url, tmp_path):
    async with fresh_database(mongodb_url) as database:
        await import_demo(database)
        path = write(tmp_path / "streets.geojson", [feature(f"99010100{n}") for n in (1, 2, 3)])
        problems = await refusal(database, path, level=Level.STREET, replace=True)
    assert len(problems) == 3
    assert all("新文件中没有 990101004" in str(p) for p in problems)


async def test_readers_see_the_old_map_or_the_new_one_and_never_an_error(mongodb_url, tmp_path):
    """Each file renames all four levels, so any mixture of two imports would show in a single answer."""
    paths = [write(tmp_path / f"{v}.geojson", nested_map(v)) for v in "甲乙"]
    seen: set[str] = set()
    async with fresh_database(mongodb_url) as database:
        await import_areas(database, paths[0])
        service = PlaceService(database)
        done = asyncio.Event()

        async def read():
            while not done.is_set():
                located = await service.locate(113.005, 23.005)
                chain = (located.district, located.street, located.community, located.grid)
                versions = {area.name[-1] if area else "nothing" for area in chain}
                assert len(versions) == 1
                assert len({area.name[-1] for area in await service.areas()}) == 1
                seen.update(versions)

        readers = [asyncio.create_task(read()) for _ in range(4)]
        for turn in range(12):
            await import_areas(database, paths[(turn + 1) % 2], replace=True)
        done.set()
        await asyncio.gather(*readers)
    assert seen == {"甲", "乙"}


async def test_a_list_cut_off_by_a_new_map_is_read_again(mongodb_url, tmp_path):
    """More areas than MongoDB hands out at once, and the map changes between the first batch and the second."""
    paths = {
        v: write(
            tmp_path / f"{v}.geojson",
            [feature(f"{n}", square(110 + n % 1000 / 50, 23), name=v) for n in range(990000, 990300)],
        )
        for v in "旧新"
    }
    async with fresh_database(mongodb_url) as database:
        await import_areas(database, paths["旧"], level=Level.DISTRICT)
        commands: list[str] = []

        async def change():
            own = connect(mongodb_url, database.name)
            await import_areas(own, paths["新"], level=Level.DISTRICT, replace=True)
            own.client.close()

        def change_once(command):
            commands.append(command)
            if len(commands) == 1:
                asyncio.run(change())

        watched = watched_database(mongodb_url, database.name, change_once)
        areas = await PlaceService(watched).areas()
        watched.client.close()
    assert commands == ["find", "getMore", "find", "getMore"]
    assert [area.name for area in areas] == ["新"] * 300


# Runs the real command line, and kills it where it is about to send its n-th command to the database.
KILLED = """
import os, signal, sys
from pymongo import monitoring

class Killer(monitoring.CommandListener):
    left = int(sys.argv.pop(1))
    def started(self, event):
        Killer.left -= 1
        if Killer.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    def succeeded(self, event): pass
    def failed(self, event): pass

monitoring.register(Killer())
from places.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def run(*arguments, **environment):
    environ = {k: v for k, v in os.environ.items() if k not in ("MONGODB_URL", "GONGZHI_MONGODB__URL")} | environment
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.long
@pytest.mark.crash
async def test_killed_before_any_command_to_the_database_the_map_is_the_old_one_or_the_new_one(mongodb_url, tmp_path):
    old, new = (write(tmp_path / f"{v}.geojson", nested_map(v)) for v in "旧新")
    outcomes = []
    async with fresh_database(mongodb_url) as database:
        await import_areas(database, old)
        before = await snapshot(database)
        command = ["import", str(new), "--replace", "--mongodb-url", mongodb_url, "--database", database.name]
        for n in range(1, 40):
            finished = await asyncio.to_thread(run, "-c", KILLED, str(n), *command)
            after = await snapshot(database)
            outcomes.append(after)
            assert {area["name"][-1] for area in after} in ({"旧"}, {"新"})
            assert len(after) == len(before)
            if finished.returncode == 0:
                break
            assert finished.returncode == -signal.SIGKILL, finished.stderr
            await import_areas_once_the_lease_has_ended(database, old)
            assert await snapshot(database) == before
            assert sorted(await database.list_collection_names()) == ["area_imports", "areas"]
        else:
            pytest.fail("the import never came to its end")
    # It was killed both before and after the switch, or the test would have proved nothing.
    assert len(outcomes) > 8
    assert any(outcome != before for outcome in outcomes[:-1])


async def import_areas_once_the_lease_has_ended(database, path):
    if await database[LEASES].count_documents({}):
        with pytest.raises(ImportBusy):
            await import_areas(database, path, replace=True)
    clock.offset += LEASE_TIME
    try:
        await import_areas(database, path, replace=True)
    finally:
        clock.offset -= LEASE_TIME


async def test_of_two_imports_at_once_one_is_told_to_wait(mongodb_url, tmp_path):
    paths = [write(tmp_path / f"{v}.geojson", nested_map(v)) for v in "甲乙丙丁"]
    async with fresh_database(mongodb_url) as database:
        results = await asyncio.gather(
            *(import_areas(database, path, replace=True) for path in paths), return_exceptions=True
        )
        assert results.count(4) >= 1
        assert all(result == 4 or isinstance(result, ImportBusy) for result in results)
        assert len({area["name"][-1] for area in await snapshot(database)}) == 1


async def test_an_import_that_slept_past_its_lease_cannot_undo_the_one_that_followed(mongodb_url, tmp_path):
    """The first import stands still after its n-th command until a second one has finished, for every n."""
    first, second, old = (write(tmp_path / f"{v}.geojson", nested_map(v)) for v in "甲乙旧")
    refused = 0
    async with fresh_database(mongodb_url) as database:
        await import_areas(database, old)

        async def follow():
            own = connect(mongodb_url, database.name)
            await import_areas(own, second, replace=True)
            own.client.close()

        for n in range(1, 40):
            left = n

            def stand_still(command):
                nonlocal left
                left -= 1
                if left == 0:
                    clock.offset += LEASE_TIME * 2
                    # In the driver's thread, which is this import's own: it waits, as a machine that sleeps does.
                    asyncio.run(follow())

            sleeper = watched_database(mongodb_url, database.name, stand_still)
            try:
                await import_areas(sleeper, first, replace=True)
            except ImportBusy:
                refused += 1
            finally:
                clock.offset = timedelta(0)
                sleeper.client.close()
            if left > 0:
                break
            assert {area["name"][-1] for area in await snapshot(database)} == {"乙"}, n
            assert sorted(await database.list_collection_names()) == ["area_imports", "areas"]
        assert left > 0
        assert refused > 5


@pytest.mark.long
async def test_the_command_line_imports_lists_and_refuses(mongodb_url, tmp_path):
    bad = write(tmp_path / "bad.geojson", [feature("990101001"), feature("990102001", BOW)])
    async with fresh_database(mongodb_url) as database:

        async def places(*arguments):
            target = ("--mongodb-url", mongodb_url, "--database", database.name)
            return await asyncio.to_thread(run, "-m", "places", *arguments, *target)

        done = await places("import", str(FOLDER / "district.geojson"))
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, "已从 district.geojson 导入 1 个区域")
        listed = await places("list", "--level", "district")
        assert (listed.returncode, listed.stdout.split()) == (0, ["district", "990101", "共治示范区"])
        refused = await places("import", str(bad), "--level", "street")
        assert refused.returncode == 1
        assert "第 2 个要素（990102001）：上级区域 990102 不存在" in refused.stderr
        assert "第 2 个要素（990102001）：边界线不正确" in refused.stderr
        assert "未导入任何区域" in refused.stderr
        assert (await places("list", "--level", "street")).stdout == ""


def test_the_command_line_says_what_it_lacks(tmp_path):
    missing = run("-m", "places", "import", str(tmp_path / "none.geojson"), MONGODB_URL="mongodb://127.0.0.1:9/")
    assert missing.returncode == 2
    assert "none.geojson" in missing.stderr
    no_database = run("-m", "places", "list")
    assert no_database.returncode == 2
    assert "MONGODB_URL" in no_database.stderr
