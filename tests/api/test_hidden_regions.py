"""Staff hide in a public picture what the detectors missed, and show what they took wrongly for a face or a plate."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from core.ids import new_id
from core.room import payers
from inference.photo_blurring import PhotoBlurring
from photos.service import PhotoService
from reports.service import ReportService
from tests.api.support import collector, fields, problem
from tests.api.test_public_pictures import SHARP, SMOOTH, fetched, ready, reported
from tests.district import Client, District, location, open_district, picture
from tests.photo_samples import FACE, PLATE, detail, jpeg, with_face, with_plate
from tests.timing import until

WIDTH, HEIGHT = 640, 480
SUIT = (300, 300, 410, 390)
"""A part of the portrait of :func:`with_face` that is no face."""


def drawn(box: tuple[int, int, int, int] = SUIT) -> dict[str, float]:
    """The box as staff draw it."""
    left, top, right, bottom = box
    return {"left": left / WIDTH, "top": top / HEIGHT, "right": right / WIDTH, "bottom": bottom / HEIGHT}


def path(number: str, photo_id: str, more: str = "") -> str:
    return f"/reports/{number}/photos/{photo_id}/hidden-regions{more}"


async def whole(staff: Client, number: str, photo_id: str) -> dict[str, Any]:
    """What is hidden, once the picture is ready."""

    async def listed() -> Any:
        found = await staff.get(path(number, photo_id))
        return found if found["ready"] else None

    found: dict[str, Any] = await until(listed)
    return found


async def seen(district: District, number: str, photo_id: str) -> dict[str, Any]:
    """The photo as any other citizen is given it, once it is there."""
    other = await district.citizen()

    async def shown() -> Any:
        return next(iter((await other.get(f"/reports/{number}"))["photos"]), None)

    found: dict[str, Any] = await until(shown)
    assert found["photo_id"] == photo_id
    return found


async def own(reporter: Client, number: str) -> dict[str, Any]:
    """The photo as who took it is given it."""
    [photo] = (await reporter.get(f"/reports/{number}"))["photos"]
    assert not photo["blurred"]
    return dict(photo)


async def ready_again(district: District, number: str, photo_id: str, revision: int) -> None:
    """Wait until the case has been told of that revision of the picture."""
    told = {"_id": number, f"photos_blurred.{photo_id}": revision}
    await until(lambda: district.services.database["reports"].find_one(told))


@pytest_asyncio.fixture
async def with_a_face(district):
    """Reporter, case and photo of a face."""
    return await reported(district, jpeg(with_face()))


async def test_what_was_missed_is_blurred_for_all_and_the_original_stays(district, with_a_face):
    reporter, number, photo_id = with_a_face
    verifier = await district.staff("verifier")
    before = await seen(district, number, photo_id)
    assert detail(await fetched(district, before["large"]), SUIT) > SHARP
    [face] = (await whole(verifier, number, photo_id))["regions"]
    assert face["kind"] == "face"
    assert face["left"] < (FACE[0] + FACE[2]) / 2 / WIDTH < face["right"]

    answer = await verifier.post(path(number, photo_id), {"regions": [drawn()], "reason": "漏了一处"})

    assert not answer["ready"]
    assert [(r["kind"], r["left"]) for r in answer["regions"]] == [("drawn", round(SUIT[0] / WIDTH, 4))]
    after = await whole(verifier, number, photo_id)
    assert [r["kind"] for r in after["regions"]] == ["face", "drawn"]
    await ready_again(district, number, photo_id, 1)
    shown = await seen(district, number, photo_id)
    assert shown["large"] != before["large"], "a phone that kept the earlier picture fetches this one"
    large = await fetched(district, shown["large"])
    assert await fetched(district, before["large"]) == large, "an earlier address opens nothing earlier"
    assert detail(large, SUIT) < SMOOTH
    assert detail(large, FACE) < SMOOTH, "what was found stays blurred"
    as_taken = await own(reporter, number)
    for size in ("medium", "thumb"):
        assert await fetched(district, shown[size]) != await fetched(district, as_taken[size])
    assert detail(await fetched(district, as_taken["large"]), SUIT) > SHARP


async def test_a_photo_without_any_find_is_blurred_where_staff_draw(district):
    _, number, photo_id = await reported(district, jpeg(with_face().crop((100, 250, 420, 400)).resize((640, 300))))
    staff = await district.staff("dispatcher")
    for region in (await whole(staff, number, photo_id))["regions"]:
        assert region["kind"] == "plate" or region["kind"] == "face"
    box = {"left": 0.1, "top": 0.1, "right": 0.9, "bottom": 0.9}
    sharp = await fetched(district, (await seen(district, number, photo_id))["large"])
    await staff.post(path(number, photo_id), {"regions": [box], "reason": "有人"})
    await ready_again(district, number, photo_id, 1)
    smooth = await fetched(district, (await seen(district, number, photo_id))["large"])
    assert detail(smooth, (64, 30, 576, 270)) < 2 < detail(sharp, (64, 30, 576, 270))


async def test_nothing_is_shown_until_the_new_picture_is_made(mongodb_url, redis_url, tmp_path):
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}", worker=False) as district:
        citizen = await district.citizen()
        photo_id = await citizen.photo(jpeg(with_face()))
        number = await district.submit(citizen, photo_ids=[photo_id], location=location())
        photos, reports = collector(district, "photos"), collector(district, "reports")

        async def settle() -> None:
            while await photos.settle_due() + await reports.settle_due():
                pass

        await settle()
        await ready(district, number, photo_id)
        verifier, other = await district.staff("verifier"), await district.citizen()
        [before] = (await other.get(f"/reports/{number}"))["photos"]
        files = {p.name for p in (tmp_path / "photos").rglob("*.jpg")}

        await verifier.post(path(number, photo_id), {"regions": [drawn()], "reason": "漏了一处"})

        problem(await district.http.get(before["large"]), 404, "PHOTO_NOT_READY")
        problem(await district.http.get(before["thumb"]), 404, "PHOTO_NOT_READY")
        assert not await district.services[PhotoService].blurring_is_late(), "it waits since now"
        await settle()
        await ready_again(district, number, photo_id, 1)
        [shown] = (await other.get(f"/reports/{number}"))["photos"]
        assert detail(await fetched(district, shown["large"]), SUIT) < SMOOTH
        now_there = {p.name for p in (tmp_path / "photos").rglob("*.jpg")}
        assert len(now_there) == len(files), "the public picture of before is gone"
        assert {n for n in now_there if "public" not in n} == {n for n in files if "public" not in n}


async def test_a_worker_who_is_late_with_the_picture_of_before_shows_nothing_of_it(mongodb_url, redis_url, tmp_path):
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}", worker=False) as district:
        citizen = await district.citizen()
        photo_id = await citizen.photo(jpeg(with_face()))
        number = await district.submit(citizen, photo_ids=[photo_id], location=location())
        stored = district.services.database["photos"]
        held_up = dict(await stored.find_one({"_id": photo_id}) or {})
        photos, reports = collector(district, "photos"), collector(district, "reports")
        while await reports.settle_due():
            pass
        verifier = await district.staff("verifier")
        await verifier.post(path(number, photo_id), {"regions": [drawn()], "reason": "漏了一处"})
        while await photos.settle_due():
            pass
        await district.services[PhotoBlurring].pay_blur(held_up, {"attempts": 1})
        await payers(district.services)["photos"]["tell_blurred"](
            {**held_up, "marks": {"revision": 1}, "attached_to": [{"kind": "report", "id": number}]}, {}
        )
        link = district.services[PhotoService].link(photo_id, "large")
        assert detail(await fetched(district, link), SUIT) < SMOOTH
        photo = await stored.find_one({"_id": photo_id})
        assert photo is not None
        assert photo["blurred"]["revision"] == 1
        report = await district.services[ReportService].get(number)
        assert report["photos_blurred"] == {photo_id: 1}, "who is late with the withdrawal takes nothing away"
        first = {**photo, "blurred": {**photo["blurred"], "revision": 0}}
        await payers(district.services)["photos"]["tell_blurred"](first, {})
        report = await district.services[ReportService].get(number)
        assert report["photos_blurred"][photo_id] is not True, "who is late with the picture of before tells of none"


async def test_what_was_taken_wrongly_is_shown_and_what_was_drawn_is_taken_out(district):
    _, number, photo_id = await reported(district, jpeg(with_plate()))
    chief = await district.staff("duty_chief")
    await chief.post(path(number, photo_id), {"regions": [drawn((500, 430, 600, 470))], "reason": "漏了一处"})
    found = await whole(chief, number, photo_id)
    by_kind: dict[str, list[str]] = {}
    for region in found["regions"]:
        by_kind.setdefault(region["kind"], []).append(region["region_id"])
    assert by_kind.keys() >= {"plate", "drawn"}
    everything = [r["region_id"] for r in found["regions"]]

    answer = await chief.post(path(number, photo_id, "/removal"), {"regions": everything, "reason": "不是车牌，是店招"})

    assert answer == {"photo_id": photo_id, "ready": False, "regions": []}
    assert (await whole(chief, number, photo_id))["regions"] == []
    await ready_again(district, number, photo_id, 2)
    shown = await seen(district, number, photo_id)
    assert detail(await fetched(district, shown["large"]), PLATE) > SHARP
    gone = await chief.call("POST", path(number, photo_id, "/removal"), json={"regions": everything, "reason": "再次"})
    problem(gone, 404, "NO_SUCH_REGION")
    # Whoever sees that it was one after all draws it.
    await chief.post(path(number, photo_id), {"regions": [drawn(PLATE)], "reason": "还是车牌"})
    await ready_again(district, number, photo_id, 3)
    shown = await seen(district, number, photo_id)
    assert detail(await fetched(district, shown["large"]), PLATE) < SMOOTH


async def test_who_did_it_when_and_why_is_on_record(district, with_a_face):
    _, number, photo_id = with_a_face
    intake = await district.staff("intake")
    await intake.post(path(number, photo_id), {"regions": [drawn()], "reason": "漏了一处"})
    [region] = [r for r in (await whole(intake, number, photo_id))["regions"] if r["kind"] == "drawn"]
    shown = {"regions": [region["region_id"]], "reason": "画错了"}
    await intake.post(path(number, photo_id, "/removal"), shown)
    audit = district.services.database["audit"]
    for action, reason in (("photo.hide_regions", "漏了一处"), ("photo.show_regions", "画错了")):
        entry = await until(partial(audit.find_one, {"action": action, "object.id": number}))
        assert entry["reason"] == reason
        assert entry["subject"]["id"] == intake.facts["staff"]["staff_id"]
        assert entry["details"]["photo"] == photo_id
        [box] = entry["details"]["boxes"]
        assert box == [round(v, 4) for v in drawn().values()]


async def test_the_same_box_drawn_twice_counts_once_and_withdraws_nothing(district, with_a_face):
    _, number, photo_id = with_a_face
    unit = await district.staff("verifier")
    body = {"regions": [drawn(), drawn()], "reason": "漏了一处"}
    await unit.post(path(number, photo_id), body)
    first = await whole(unit, number, photo_id)
    again = await unit.post(path(number, photo_id), body)
    assert again == first
    assert [r["kind"] for r in first["regions"]].count("drawn") == 1


@pytest.mark.parametrize(
    ("region", "wrong"),
    [
        ({**drawn(), "right": 1.2}, "right"),
        ({**drawn(), "left": -0.1}, "left"),
        ({"left": 300, "top": 300, "right": 410, "bottom": 390}, "left"),
        ({**drawn(), "right": drawn()["left"]}, "regions"),
        ({"left": 0.5, "top": 0.8, "right": 0.9, "bottom": 0.2}, "regions"),
        ({"left": 0.1, "top": 0.1, "right": 0.2}, "bottom"),
        ({**drawn(), "angle": 3}, "angle"),
        ({**drawn(), "left": "nan"}, "left"),
    ],
)
async def test_a_box_outside_the_picture_or_no_box_is_refused(district, with_a_face, region, wrong):
    _, number, photo_id = with_a_face
    staff = await district.staff("verifier")
    answer = await staff.call("POST", path(number, photo_id), json={"regions": [region], "reason": "漏了一处"})
    assert any(wrong in name for name in fields(problem(answer, 422, "INVALID")))
    assert (await staff.get(path(number, photo_id)))["ready"]


async def test_refusals_change_nothing(district, with_a_face):
    _, number, photo_id = with_a_face
    staff, collects = await district.staff("verifier"), await district.staff("collector")
    body = {"regions": [drawn()], "reason": "漏了一处"}
    removal = {"regions": ["face-1-2-3-4"], "reason": "不是人脸"}
    problem(await collects.call("POST", path(number, photo_id), json=body), 403, "NO_PERMISSION")
    problem(await staff.call("POST", path(number, photo_id, "/removal"), json=removal), 403, "NO_PERMISSION")
    chief = await district.staff("duty_chief")
    problem(await chief.call("POST", path(number, photo_id, "/removal"), json=removal), 404, "NO_SUCH_REGION")
    no_reason = await staff.call("POST", path(number, photo_id), json={"regions": [drawn()]})
    assert fields(problem(no_reason, 422, "INVALID")) == {"reason"}
    assert fields(
        problem(await staff.call("POST", path(number, photo_id), json={**body, "regions": []}), 422, "INVALID")
    )
    not_of_case = await staff.photo(picture())
    for method, json in (("POST", body), ("GET", None)):
        answer = await staff.call(method, path(number, not_of_case), json=json)
        problem(answer, 404, "NO_SUCH_PHOTO")
    problem(await chief.call("POST", path(number, not_of_case, "/removal"), json=removal), 404, "NO_SUCH_PHOTO")
    assert (await staff.get(path(number, photo_id)))["ready"]
    photo = await district.services.database["photos"].find_one({"_id": photo_id})
    assert "marks" not in photo


async def test_photos_of_cases_out_of_reach_are_not_found(district):
    reports = district.services.database["reports"]
    _, number, photo_id = await reported(district, jpeg(with_face()))
    # The street's dispatcher sees one street; the case is moved to another.
    areas = (await district.settled(number))["areas"]
    await reports.update_one({"_id": number}, {"$set": {"areas": [areas[0], "999999999"]}})
    street = await district.staff("street-dispatcher")
    body = {"regions": [drawn()], "reason": "漏了一处"}
    problem(await street.call("POST", path(number, photo_id), json=body), 404, "NO_SUCH_REPORT")
    problem(await street.call("GET", path(number, photo_id)), 404, "NO_SUCH_REPORT")
    await reports.update_one({"_id": number}, {"$set": {"areas": areas}})


async def test_those_who_draw_at_once_lose_nothing_of_each_other(district, with_a_face):
    _, number, photo_id = with_a_face
    staff = await district.staff("verifier")
    boxes = [drawn((20 * n, 440, 20 * n + 15, 470)) for n in range(8)]
    bodies = [{"regions": [box], "reason": "漏了一处"} for box in boxes]
    answers = await asyncio.gather(*(staff.call("POST", path(number, photo_id), json=body) for body in bodies))
    assert {a.status_code for a in answers} <= {200, 409}
    taken = [round(b["left"], 4) for b, a in zip(boxes, answers, strict=True) if a.status_code == 200]
    for answer in answers:
        if answer.status_code == 409:
            problem(answer, 409, "CHANGED")
    kept = [r["left"] for r in (await whole(staff, number, photo_id))["regions"] if r["kind"] == "drawn"]
    assert sorted(kept) == sorted(taken)
