"""Snapshots of cameras: kept before they are acknowledged, once each; let in while there is room for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from accounts.api_keys import ApiKeyService
from accounts.models import NewStaff, Role
from accounts.sessions import SessionService
from accounts.staff import StaffService
from core.clock import now
from core.config_sections import Snapshots
from core.errors import TooManyRequests
from core.ids import new_id
from core.paging import key_mark
from places.models import Level
from places.service import PlaceService
from reports.snapshots.intake import SnapshotIntake
from reports.snapshots.services import SnapshotServices
from tests.api.support import fields, problem
from tests.district import INSIDE, Client, District, good, location, picture
from tests.seeding import PASSWORD
from tests.timing import until


class Source:
    """A source of snapshots with a camera of its own, and what it sends."""

    def __init__(self, district: District, key: str, api_key: str, camera: str) -> None:
        self.district = district
        self.key = key
        self.client = Client(district.http, "/ingest/v1", api_key)
        self.camera = camera

    async def send(self, data: bytes | None = None, **about: Any) -> httpx.Response:
        """Send a snapshot; a change to ``...`` leaves the key out."""
        said = {"camera": self.camera, "taken_at": now().isoformat(), **about}
        said = {k: v for k, v in said.items() if v is not ...}
        files = {
            "picture": ("s.jpg", picture() if data is None else data, "image/jpeg"),
            "about": (None, json.dumps(said).encode(), "application/json"),
        }
        return await self.client.call("POST", "/snapshots", files=files)

    async def taken(self, data: bytes | None = None, **about: Any) -> str:
        """The id of a snapshot that must be taken."""
        answer = await self.send(data, **about)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["snapshot_id"])

    async def document(self, snapshot_id: str) -> dict[str, Any]:
        found = await self.district.services.database["snapshots"].find_one({"_id": snapshot_id})
        assert found is not None, snapshot_id
        return dict(found)


async def new_source(district: District, *, at: dict[str, Any] | None = None, **fields: Any) -> Source:
    """A source with one camera, added by the administrator."""
    admin = await district.staff("admin")
    key = f"src_{new_id()}"
    made = await admin.post("/camera-sources", {"key": key, "name": "西区视频平台", "per_minute": 100_000, **fields})
    await admin.post(
        "/cameras", {"source": key, "code": "44010601", "name": "解放路口东", "location": at or location()}
    )
    return Source(district, key, made["api_key"], "44010601")


@pytest_asyncio.fixture
async def source(district):
    return await new_source(district)


def kept_files(district: District, snapshot_id: str) -> list[bytes]:
    folder = district.settings.folders.data / "snapshots" / snapshot_id[-2:]
    return [path.read_bytes() for path in folder.glob(f"{snapshot_id}.*")]


async def test_what_is_acknowledged_is_on_the_disk_and_in_the_database(district, source):
    data = picture()
    box = {"label": "garbage", "score": 0.8, "x": 0.1, "y": 0.2, "width": 0.3, "height": 0.4}
    answer = await source.send(data, snapshot_id="evt/1", boxes=[box])
    assert answer.status_code == 202
    snapshot_id = answer.json()["snapshot_id"]
    kept = await source.document(snapshot_id)
    assert (kept["camera"], kept["source"], kept["own_id"]) == (f"{source.key}:44010601", source.key, "evt/1")
    assert (kept["kind"], kept["width"], kept["height"], kept["bytes"]) == ("jpeg", 160, 120, len(data))
    assert kept["boxes"] == [box]
    assert kept["location"]["coordinates"] == pytest.approx(INSIDE)
    assert len(kept["areas"]) == 4, "where it is follows from where the camera stands"
    assert kept_files(district, snapshot_id) == [data], "kept as it came, once"


async def test_the_same_snapshot_sent_again_and_many_times_at_once_is_one_and_is_answered_the_same(district, source):
    data, moment = picture(), now().isoformat()
    answers = await asyncio.gather(*(source.send(data, taken_at=moment) for _ in range(6)))
    answers.append(await source.send(data, taken_at=moment))
    assert {a.status_code for a in answers} == {202}
    assert len({a.text for a in answers}) == 1
    mine = {"source": source.key}
    assert await district.services.database["snapshots"].count_documents(mine) == 1
    assert len(kept_files(district, answers[0].json()["snapshot_id"])) == 1
    # The same moment in another zone is the same; another moment or picture is not.
    again = await source.taken(data, taken_at=now().fromisoformat(moment).astimezone().isoformat())
    assert again == answers[0].json()["snapshot_id"]
    others = {await source.taken(data), await source.taken(picture(), taken_at=moment), again}
    assert len(others) == 3


async def test_a_sources_own_id_makes_it_one_and_is_not_taken_for_another_picture(source):
    data = picture()
    first = await source.taken(data, snapshot_id="A-1")
    assert await source.taken(data, snapshot_id="A-1") == first, "at another moment"
    details = problem(await source.send(picture(), snapshot_id="A-1"), 409, "SNAPSHOT_REUSED")
    assert details == {"snapshot_id": first}


async def test_what_came_before_a_crash_between_file_and_document_finds_its_place_again(district, source):
    data, moment = picture(), now().isoformat()
    first = await source.taken(data, taken_at=moment)
    await district.services.database["snapshots"].delete_one({"_id": first})
    assert await source.taken(data, taken_at=moment) == first
    assert kept_files(district, first) == [data]


@pytest.mark.parametrize(
    ("spoil", "status", "code"),
    [
        (lambda data: data[: len(data) // 2], 422, "PHOTO_DAMAGED"),
        (lambda data: b"no picture at all", 415, "PHOTO_KIND"),
        (lambda data: picture(size=(16, 16)), 422, "PHOTO_TOO_SMALL"),
        (lambda data: data + b"\0" * 11 * 1024 * 1024, 413, "BODY_TOO_LARGE"),
    ],
    ids=["cut short", "another kind", "tiny", "over 10 MB"],
)
async def test_a_picture_that_nobody_could_look_at_is_refused_to_its_sender(
    district, source, spoil: Callable[[bytes], bytes], status, code
):
    problem(await source.send(spoil(picture())), status, code)
    assert await district.services.database["snapshots"].count_documents({"source": source.key}) == 0


async def test_what_is_said_of_a_picture_has_to_be_in_order(source):
    problem(await source.send(camera="99"), 422, "NO_SUCH_CAMERA")
    problem(await source.send(taken_at=(now() + timedelta(hours=1)).isoformat()), 422, "BAD_TIME")
    problem(await source.send(taken_at=(now() - timedelta(days=3)).isoformat()), 422, "BAD_TIME")
    assert fields(problem(await source.send(taken_at="2026-11-25T10:00:00"), 422, "INVALID")) == {"taken_at"}
    assert fields(problem(await source.send(unknown=1), 422, "INVALID")) == {"unknown"}
    box = {"label": "garbage", "score": 1.5, "x": 0, "y": 0, "width": 1, "height": 1}
    assert fields(problem(await source.send(boxes=[box]), 422, "INVALID")) == {"boxes.0.score"}
    alone = await source.client.call("POST", "/snapshots", files={"picture": ("s.jpg", picture(), "image/jpeg")})
    problem(alone, 400, "BAD_MULTIPART")


async def test_only_a_sources_own_key_opens_and_only_for_its_own_cameras(district, source):
    other = await new_source(district)
    admin = await district.staff("admin")
    second = await admin.post(
        "/cameras", {"source": other.key, "code": "second", "name": "东门", "location": location()}
    )
    assert second["camera_id"] == f"{other.key}:second"
    problem(await source.send(camera="second"), 422, "NO_SUCH_CAMERA")
    wrong = Source(district, source.key, "not-a-key", source.camera)
    problem(await wrong.send(), 401, "API_KEY_INVALID")
    _, hotline = await district.services[ApiKeyService].create("热线", ["intake.hotline"], "test")
    problem(await Source(district, source.key, hotline, source.camera).send(), 403, "API_KEY_SCOPE")
    _, nobodys = await district.services[ApiKeyService].create("散钥匙", ["ingest.snapshots"], "test")
    problem(await Source(district, source.key, nobodys, source.camera).send(), 403, "SOURCE_PAUSED")


async def test_a_paused_source_and_an_old_key_are_refused_and_all_of_it_is_on_record(district, source):
    admin = await district.staff("admin")
    turned = good(await admin.call("POST", f"/camera-sources/{source.key}/key", json={"version": 1}))
    problem(await source.send(), 401, "API_KEY_INVALID")
    source.client.token = turned["api_key"]
    await source.taken()
    change = {"version": 2, "active": False, "min_score": 0.8}
    changed = good(await admin.call("PATCH", f"/camera-sources/{source.key}", json=change))
    assert (changed["active"], changed["min_score"], changed["version"]) == (False, 0.8, 3)
    problem(await source.send(), 403, "SOURCE_PAUSED")
    problem(await admin.call("PATCH", f"/camera-sources/{source.key}", json=change), 409, "STALE")
    bad = {"version": 3, "classes": ["cats"]}
    problem(await admin.call("PATCH", f"/camera-sources/{source.key}", json=bad), 422, "INVALID")
    audit = district.services.database["audit"]
    query = {"object.id": source.key}

    async def told() -> bool:
        return bool(await audit.count_documents(query) == 3)

    await until(told)
    entries = [entry async for entry in audit.find(query)]
    assert {e["action"] for e in entries} == {f"camera_source.{a}" for a in ("create", "new_key", "change")}
    assert turned["api_key"] not in repr(entries)
    problem(await (await district.staff("dispatcher")).call("GET", "/cameras"), 403, "NO_PERMISSION")


async def test_a_unit_sees_no_camera_whatever_page_it_asks_for(district, source):
    """As the district's administrator, but of a unit."""
    session = await district.services[SessionService].staff(str((await district.staff("admin")).token))
    of_unit = replace(session, unit_id="roads")
    cameras = district.services[SnapshotServices].cameras.cameras
    assert (await cameras(session, None, None, 5))[0]
    for page in (None, key_mark("")):
        assert await cameras(of_unit, None, page, 5) == ([], None)


async def test_cameras_are_listed_changed_and_loaded_from_a_file_all_or_none(district, source):
    admin = await district.staff("admin")
    path, longitude, latitude = f"/camera-sources/{source.key}/cameras", *INSIDE
    head = "code,name,longitude,latitude,crs,address\n"
    rows = [f"c{n},路口 {n},{longitude},{latitude},gcj02,解放路" for n in range(3)]
    bad = head + "\n".join([*rows, "c1,重复,1,2,wgs84,", f"c9,无坐标系,{longitude},{latitude},,", "c8,远方,1,1,wgs84,"])
    refused = await admin.call("POST", path, files={"file": ("cameras.csv", bad.encode())})
    assert fields(problem(refused, 422, "BAD_CAMERA_FILE")) == {"第 5 行", "第 6 行", "第 7 行"}
    assert len((await admin.get("/cameras", source=source.key))["cameras"]) == 1
    for created, changed in ((3, 0), (0, 3)):
        whole = {"file": ("cameras.csv", ("\ufeff" + head + "\n".join(rows)).encode())}
        assert good(await admin.call("POST", path, files=whole)) == {
            "created": created,
            "changed": changed,
            "unread_sheets": [],
        }
    page = await admin.get("/cameras", source=source.key, size=3)
    following = await admin.get("/cameras", source=source.key, size=3, page=page["next_page"])
    assert [c["code"] for c in page["cameras"] + following["cameras"]] == ["44010601", "c0", "c1", "c2"]
    assert following["next_page"] is None
    camera = page["cameras"][1]
    assert (camera["crs"], camera["longitude"], len(camera["areas"])) == ("gcj02", longitude, 4)
    out = {"version": camera["version"], "active": False, "name": "改名"}
    changed = good(await admin.call("PATCH", f"/cameras/{camera['camera_id']}", json=out))
    assert (changed["active"], changed["name"], changed["longitude"]) == (False, "改名", longitude)
    problem(await source.send(camera="c0"), 422, "CAMERA_OUT_OF_USE")
    problem(await admin.call("PATCH", f"/cameras/{camera['camera_id']}", json=out), 409, "STALE")
    problem(
        await admin.call(
            "POST",
            "/cameras",
            json={"source": source.key, "code": "far", "name": "远方", "location": location(100.0, 30.0)},
        ),
        422,
        "OUTSIDE_DISTRICT",
    )


@pytest_asyncio.fixture
async def cameras_role(district):
    """A role that keeps cameras and does nothing else. Nobody has such a one at first; a district may make it."""
    key = f"cameras_{''.join(filter(str.isalpha, new_id()))}"
    await district.services[StaffService].put_role(Role(key=key, name="摄像机管理", permissions=["cameras.manage"]))
    yield key
    await district.services.database["staff"].delete_many({"roles": key})
    await district.services.database["roles"].delete_one({"_id": key})


async def test_who_keeps_the_cameras_of_a_street_keeps_no_others(district, source, cameras_role):
    services = district.services
    streets = [area.code for area in await services[PlaceService].areas(Level.STREET)]
    admin = await district.staff("admin")
    (camera,) = (await admin.get("/cameras", source=source.key))["cameras"]
    elsewhere = next(code for code in streets if code != camera["areas"][1])
    name = f"keeper-{new_id()}"
    await services[StaffService].create(
        NewStaff(username=name, name="管理", roles=[cameras_role], areas=[elsewhere]), PASSWORD
    )
    keeper = await district.staff(name)
    assert (await keeper.get("/cameras", source=source.key))["cameras"] == []
    change = {"version": camera["version"], "active": False}
    problem(await keeper.call("PATCH", f"/cameras/{camera['camera_id']}", json=change), 404, "NO_SUCH_CAMERA")
    new = {"source": source.key, "code": "mine", "name": "路口", "location": location()}
    problem(await keeper.call("POST", "/cameras", json=new), 422, "AREA_OUT_OF_REACH")
    problem(await keeper.call("PATCH", f"/camera-sources/{source.key}", json={"version": 1}), 403, "DISTRICT_WIDE")
    longitude, latitude = (await services[PlaceService].get(elsewhere)).centre
    rows = f"code,name,longitude,latitude,crs,address\n{camera['code']},搬走,{longitude},{latitude},wgs84,\n"
    moved = await keeper.call(
        "POST", f"/camera-sources/{source.key}/cameras", files={"file": ("cameras.csv", rows.encode())}
    )
    problem(moved, 422, "BAD_CAMERA_FILE")
    assert (await admin.get("/cameras", source=source.key))["cameras"] == [camera]


async def test_a_source_that_sends_more_than_it_was_granted_is_told_to_come_again(district):
    source = await new_source(district, per_minute=3)
    answers = [await source.send() for _ in range(5)]
    assert [a.status_code for a in answers] == [202, 202, 202, 429, 429]
    problem(answers[-1], 429, "SOURCE_RATE")
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 120
    assert await district.services.database["snapshots"].count_documents({"source": source.key}) == 3


def intake_with(district: District, **settings: Any) -> SnapshotIntake:
    """The intake as a process with other settings would have it."""
    services = district.services
    return SnapshotIntake(
        services.database,
        cameras=services[SnapshotServices].cameras,
        files=services[SnapshotServices].intake.files,
        cache=services.cache,
        settings=Snapshots(**settings),
    )


async def test_while_too_much_is_being_received_at_once_no_more_is_let_in(district, source):
    intake = intake_with(district, receiving_mb=11)
    key = await district.services[ApiKeyService].check(source.client.token, "ingest.snapshots")
    first = await intake.admit(key, None)
    second = await intake.admit(key, 1024 * 1024)
    with pytest.raises(TooManyRequests, match="正在接收的抓拍太多") as refused:
        await intake.admit(key, 1024)
    assert refused.value.code == "BUSY"
    second.leave()
    second.leave()
    (await intake.admit(key, 1024)).leave()
    first.leave()
