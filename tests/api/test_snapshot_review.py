"""Reviewers before the queue: each sees their own areas, one of two decides, and what is confirmed is one case."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from accounts.models import NewStaff
from accounts.staff import StaffService
from core.ids import new_id
from photos.service import PhotoService
from places.models import Level
from places.service import PlaceService
from reports.snapshots.services import SnapshotServices
from tests.api.support import collector, fields, problem
from tests.api.test_snapshot_sifting import SEEN, saw, sifted
from tests.api.test_snapshots import Source, new_source
from tests.clock import later
from tests.district import INSIDE, Client, District, good, open_district, picture
from tests.seeding import PASSWORD
from tests.timing import until

PHOTOS = Path(__file__).resolve().parents[2].parent / "shared/data/photos"


@pytest.fixture
async def source(district):
    return await new_source(district, min_score=SEEN)


async def waiting(source: Source, label: str = "exposed_garbage", **about: Any) -> str:
    """The id of a snapshot that waits for a reviewer."""
    found = await sifted(source, await source.taken(boxes=saw(label), **about), "waiting")
    return str(found["_id"])


async def reviewer(district: District, areas: list[str], unit: str | None = None) -> Client:
    """Somebody of the intake who works in ``areas``."""
    name = f"reviewer-{new_id()}"
    await district.services[StaffService].create(
        NewStaff(username=name, name="审核员", roles=["intake"], areas=areas, unit_id=unit), PASSWORD
    )
    return await district.staff(name)


async def queue(client: Client, source: Source, **more: Any) -> list[dict[str, Any]]:
    """All pages of what the client has to review of the source's camera."""
    found: list[dict[str, Any]] = []
    camera = f"{source.key}:{source.camera}"
    page = await client.get("/snapshots", camera=camera, size=2, **more)
    while True:
        found += page["snapshots"]
        if page["next_page"] is None:
            return found
        page = await client.get("/snapshots", camera=camera, size=2, page=page["next_page"], **more)


async def cases_of(district: District, source: Source) -> list[dict[str, Any]]:
    """The cases of the source's cameras."""
    query = {"reporter.camera_id": {"$regex": f"^{source.key}:"}}
    return [dict(r) async for r in district.services.database["reports"].find(query)]


async def test_a_confirmed_snapshot_becomes_a_case_that_goes_the_way_of_every_case(district, source):
    sent = picture(size=(1600, 1200))
    snapshot_id = await waiting(source, data=sent)
    intake = await district.staff("intake")
    shown = await intake.get(f"/snapshots/{snapshot_id}")
    assert (shown["label"], shown["label_name"], shown["category"]) == (
        "exposed_garbage",
        "暴露垃圾",
        "exposed_garbage",
    )
    assert shown["boxes"] == saw("exposed_garbage")
    assert (await district.http.get(shown["picture"])).content == sent
    problem(await district.http.get(shown["picture"].replace("signature=", "signature=0")), 422, "INVALID")
    forged = shown["picture"][:-1] + ("0" if shown["picture"][-1] != "0" else "1")
    problem(await district.http.get(forged), 403, "PHOTO_LINK")
    done = await intake.post(f"/snapshots/{snapshot_id}/confirmation")
    number = done["report"]
    assert (done["state"], done["reviewed"]["by"], len(number)) == ("confirmed", "受理员", 20)
    report = await district.settled(number)
    assert (report["channel"], report["state"], report["unit_id"]) == ("camera", "dispatched", "sanitation")
    assert report["location"]["coordinates"] == pytest.approx(INSIDE)
    assert (report["place_precision"], len(report["areas"])) == ("exact", 4)
    assert not report["public"], "a camera's picture is not for everybody to see"
    assert [e["action"] for e in report["timeline"]] == ["submit", "file", "dispatch"]
    assert report["timeline"][0]["by"]["name"] == "受理员"
    case = await intake.get(f"/reports/{number}")
    assert (case["reporter"], case["channel"]) == ("摄像机：解放路口东", "camera")
    (photo,) = case["photos"]
    blurred = {"_id": photo["photo_id"], "blurred.at": {"$exists": True}}
    await until(lambda: district.services.database["photos"].find_one(blurred))
    for size, longest in (("large", 1600), ("medium", 800), ("thumb", 200)):
        image = Image.open(io.BytesIO((await district.http.get(photo[size])).content))
        assert max(image.size) == longest
    stored = await source.document(snapshot_id)
    assert (stored["photo_id"], stored["report"]) == (report["photos"][0], number)
    audit = district.services.database["audit"]
    assert await until(lambda: audit.find_one({"object.id": snapshot_id, "action": "snapshot.confirmed"}))


async def test_what_the_reviewer_says_of_it_is_what_the_case_says(district, source):
    snapshot_id = await waiting(source, "fire_smoke")
    intake = await district.staff("intake")
    path = f"/snapshots/{snapshot_id}/confirmation"
    problem(await intake.call("POST", path, json={"category": "cats"}), 422, "NO_SUCH_CATEGORY")
    assert fields(problem(await intake.call("POST", path, json={"descriptions": "x"}), 422, "INVALID")) == {
        "descriptions"
    }
    done = await intake.post(path, {"category": "road_damage", "description": "路面塌陷冒烟，请尽快查看"})
    report = await district.settled(done["report"])
    assert (report["category"], report["description"]) == ("road_damage", "路面塌陷冒烟，请尽快查看")
    assert report["unit_id"] == "roads"


async def test_of_two_reviewers_one_wins_and_one_who_clicks_twice_gets_the_same_case(district, source):
    snapshot_id = await waiting(source)
    division = district.settings.reports.division
    reviewers = [await reviewer(district, [division]) for _ in range(3)]
    path = f"/snapshots/{snapshot_id}"
    calls = [client.call("POST", f"{path}/confirmation", json={}) for client in reviewers for _ in range(3)]
    calls += [client.call("POST", f"{path}/rejection", json={}) for client in reviewers]
    answers = await asyncio.gather(*calls)
    won = [a for a in answers if a.status_code == 200]
    for answer in answers:
        if answer.status_code != 200:
            problem(answer, 409, "ALREADY_REVIEWED")
    stored = await source.document(snapshot_id)
    assert len({a.json()["report"] for a in won}) == 1
    assert len(await cases_of(district, source)) == (1 if stored["state"] == "confirmed" else 0)
    assert len(won) == (3 if stored["state"] == "confirmed" else 1)

    async def paid() -> bool:
        return not (await source.document(snapshot_id))["owed"]

    await until(paid)
    assert await district.services.database["audit"].count_documents({"object.id": snapshot_id}) == 1


async def test_a_rejected_snapshot_says_what_it_really_shows_and_is_rejected_once(district, source):
    snapshot_id = await waiting(source, "manhole")
    intake = await district.staff("intake")
    path = f"/snapshots/{snapshot_id}/rejection"
    assert fields(problem(await intake.call("POST", path, json={"label": "cats"}), 422, "INVALID")) == {"label"}
    done = await intake.post(path, {"label": "road_damage", "reason": "路面破损，不是井盖"})
    assert (done["state"], done["report"], done["reviewed"]["label"]) == ("rejected", None, "road_damage")
    again = await intake.post(path, {"label": "road_damage"})
    assert again | {"picture": None} == done | {"picture": None}, "said again it stays as it was"
    problem(await intake.call("POST", f"/snapshots/{snapshot_id}/confirmation", json={}), 409, "ALREADY_REVIEWED")
    other = await reviewer(district, [district.settings.reports.division])
    details = problem(await other.call("POST", path, json={}), 409, "ALREADY_REVIEWED")
    assert details == {"state": "rejected", "report": None}
    assert await cases_of(district, source) == []


async def label_of(district: District, snapshot_id: str) -> dict[str, Any]:
    """The label that came of the decision."""
    return dict(await until(lambda: district.services.database["labels"].find_one({"subject.snapshot": snapshot_id})))


async def test_what_reviewers_decide_becomes_labels_with_the_picture_to_train_on(district, source):
    intake, photos = await district.staff("intake"), district.services.database["photos"]
    rejected, confirmed, other = [await waiting(source, c) for c in ("graffiti", "manhole", "overflow_bin")]
    sent = await source.document(rejected)
    await intake.post(f"/snapshots/{rejected}/rejection", {"label": "ad_signboard"})
    label = await label_of(district, rejected)
    assert (label["kind"], label["label"], label["source"]) == ("photo", "ad_signboard", "snapshot_rejected")
    assert (label["by"]["name"], label["model"]) == ("受理员", sent["judged"]["model"])
    assert label["judged"] == {name: sent["judged"][name] for name in ("label", "confidence")}
    photo = await photos.find_one({"_id": label["subject"]["photo_id"]})
    assert (photo["sha256"], photo["attached_to"]) == (sent["sha256"], [{"kind": "snapshot", "id": rejected}])
    with later(days=31):
        await district.services[SnapshotServices].clearing.delete_files()
        await district.services[PhotoService].clear_unused()
    assert (await source.document(rejected))["file"] is None
    assert await photos.find_one({"_id": photo["_id"]}), "what is trained on stays when the snapshot's picture goes"

    done = await intake.post(f"/snapshots/{confirmed}/confirmation")
    label = await label_of(district, confirmed)
    assert (label["label"], label["source"]) == ("manhole", "snapshot_confirmed")
    report = await district.settled(done["report"])
    assert label["subject"]["photo_id"] == report["photos"][0]

    await intake.post(f"/snapshots/{other}/confirmation", {"category": "exposed_garbage"})

    async def settled() -> bool:
        return not (await source.document(other))["owed"]

    await until(settled)
    said = await district.services.database["labels"].find_one({"subject.snapshot": other})
    assert said is None, "under another category it is no example of the class that it was taken for"


async def test_a_reviewer_sees_and_decides_in_their_own_areas_alone(district, source):
    snapshot_id = await waiting(source)
    areas = (await source.document(snapshot_id))["areas"]
    streets = [a.code for a in await district.services[PlaceService].areas(Level.STREET)]
    here, elsewhere = areas[1], next(code for code in streets if code != areas[1])
    near, far = await reviewer(district, [here]), await reviewer(district, [elsewhere])
    unit = await reviewer(district, [district.settings.reports.division], "sanitation")
    assert [s["snapshot_id"] for s in await queue(near, source)] == [snapshot_id]
    for stranger in (far, unit):
        assert await queue(stranger, source) == []
        problem(await stranger.call("GET", f"/snapshots/{snapshot_id}"), 404, "NO_SUCH_SNAPSHOT")
        for decision in ("confirmation", "rejection"):
            answer = await stranger.call("POST", f"/snapshots/{snapshot_id}/{decision}", json={})
            problem(answer, 404, "NO_SUCH_SNAPSHOT")
    problem(await (await district.staff("verifier")).call("GET", "/snapshots"), 403, "NO_PERMISSION")
    assert (await source.document(snapshot_id))["state"] == "waiting"
    assert (await near.post(f"/snapshots/{snapshot_id}/confirmation"))["report"]


async def test_the_queue_is_paged_by_time_or_by_score(district, source):
    kept = []
    for label in ("graffiti", "manhole", "overflow_bin", "exposed_garbage"):
        found = await sifted(source, await source.taken(boxes=saw(label)), "waiting")
        kept.append((found["_id"], found["score"]))
    intake = await district.staff("intake")
    assert [s["snapshot_id"] for s in await queue(intake, source)] == [i for i, _ in reversed(kept)]
    by_score = await queue(intake, source, order="score")
    assert [s["score"] for s in by_score] == sorted((score for _, score in kept), reverse=True)
    problem(await intake.call("GET", "/snapshots?order=score&state=rejected"), 422, "ORDER_OF_WAITING_ONLY")
    for order in ("time", "score"):
        problem(await intake.call("GET", f"/snapshots?order={order}&page=nonsense"), 400, "BAD_PAGE")
    await intake.post(f"/snapshots/{kept[0][0]}/rejection")
    assert len(await queue(intake, source)) == len(kept) - 1
    assert [s["snapshot_id"] for s in await queue(intake, source, state="rejected")] == [kept[0][0]]


async def test_while_the_case_is_open_its_camera_and_class_are_counted_on_it_and_put_before_nobody(district, source):
    first = await waiting(source)
    intake = await district.staff("intake")
    number = (await intake.post(f"/snapshots/{first}/confirmation"))["report"]
    await district.settled(number)
    with later(hours=2):
        again = await sifted(source, await source.taken(boxes=saw("exposed_garbage")), "filtered")
    assert (again["reason"], again["repeat_of"]) == ("open_case", first)
    assert (await intake.get(f"/snapshots/{first}"))["repeats"] == 1
    unit = await district.staff("unit-sanitation")
    await unit.post(f"/reports/{number}/actions/accept")
    await unit.post(f"/reports/{number}/actions/handle", {"note": "已清运", "photo_ids": [await unit.photo()]})
    await district.action("verifier", number, "close")
    with later(hours=2):
        news = await sifted(source, await source.taken(boxes=saw("exposed_garbage")), "waiting")
    assert news["repeat_of"] is None, "it lies there again"


async def cut_off(district: District, source: Source, label: str) -> str:
    """A snapshot as a death between the decision and the case leaves it: confirmed, and no case."""
    snapshot_id = await waiting(source, label)

    async def dies(snapshot: Any) -> Any:
        raise RuntimeError("the process died here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(district.services[SnapshotServices].cases, "open", dies)
        intake = await district.staff("intake")
        assert (await intake.call("POST", f"/snapshots/{snapshot_id}/confirmation", json={})).status_code == 500
    assert (await source.document(snapshot_id))["state"] == "confirmed"
    return snapshot_id


async def test_a_case_that_was_cut_off_is_finished_by_the_one_who_clicks_again(district, source):
    snapshot_id = await cut_off(district, source, "exposed_garbage")
    done = await (await district.staff("intake")).post(f"/snapshots/{snapshot_id}/confirmation")
    assert (await district.settled(done["report"]))["unit_id"] == "sanitation"
    assert len(await cases_of(district, source)) == 1


async def test_a_case_that_was_cut_off_is_finished_by_a_worker(district, source):
    snapshot_id = await cut_off(district, source, "exposed_garbage")

    async def opened() -> bool:
        found = await source.document(snapshot_id)
        return found["photo_id"] is not None and not found["owed"]

    with later(seconds=15):
        await until(opened)
        report = await district.settled((await source.document(snapshot_id))["report"])
    assert (report["channel"], report["unit_id"]) == ("camera", "sanitation")
    assert len(await cases_of(district, source)) == 1


async def test_past_the_backlog_senders_are_told_to_come_again_and_then_let_in(mongodb_url, redis_url, tmp_path):
    name = f"test_{new_id()}"
    few = {"backlog": 3, "store": (tmp_path / "snapshots").as_uri()}
    async with open_district(mongodb_url, redis_url, tmp_path, database=name, worker=False, snapshots=few) as district:
        source = await new_source(district, min_score=SEEN)
        answers = [await source.send(boxes=saw("graffiti")) for _ in range(6)]
        assert [a.status_code for a in answers] == [202, 202, 202, 429, 429, 429]
        problem(answers[-1], 429, "BACKLOG")
        assert answers[-1].headers["Retry-After"] == "5"
        snapshots = district.services.database["snapshots"]
        assert await snapshots.count_documents({}) == 3, "what was refused is not kept"
        while await collector(district, "snapshots").settle_due():
            pass
        assert await snapshots.count_documents({"state": "received"}) == 0

        async def let_in():
            return (await source.send()).status_code == 202

        await until(let_in)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the labelled photos are not here")
async def test_a_real_photo_goes_the_whole_way_by_what_the_classifier_sees(district):
    source = await new_source(district, min_score=0.6, window_minutes=1)
    admin = await district.staff("admin")
    files = sorted((PHOTOS / "exposed_garbage").glob("*.jpg"))[:4]
    ids = []
    for n, file in enumerate(files):
        camera = {"source": source.key, "code": f"real-{n}", "name": f"路口 {n}"}
        location = {"longitude": INSIDE[0], "latitude": INSIDE[1], "crs": "wgs84"}
        good(await admin.call("POST", "/cameras", json={**camera, "location": location}))
        ids.append(await source.taken(file.read_bytes(), camera=f"real-{n}"))
    found = [await sifted(source, i) for i in ids]
    seen = [s for s in found if s["state"] == "waiting" and s["label"] == "exposed_garbage"]
    assert seen, [(s["label"], s["score"], s["reason"]) for s in found]
    done = await (await district.staff("intake")).post(f"/snapshots/{seen[0]['_id']}/confirmation")
    report = await district.settled(done["report"])
    assert (report["state"], report["category"]) == ("dispatched", "exposed_garbage")
