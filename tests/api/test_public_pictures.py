"""What others see of a photo: faces and plates are blurred, nothing is shown before; looks at originals are known."""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from accounts.api_keys import ApiKeyService
from core.clock import now
from core.ids import new_id
from inference.model_files import MODELS
from inference.photo_blurring import PhotoBlurring
from photos.service import PhotoService
from server.__main__ import blur
from tests.api.open311_support import ask, form, hand_in
from tests.api.support import collector, fields, problem
from tests.clock import later
from tests.district import INSIDE, Client, District, good, location, open_district, picture
from tests.photo_samples import FACE, PLATE, detail, jpeg, pixels, with_face, with_plate
from tests.timing import until

SHARP, SMOOTH = 7.0, 2.5
"""Of :func:`tests.photo_samples.detail`: in a face or a plate, and where it is blurred."""


async def fetched(district: District, link: str) -> bytes:
    answer = await district.http.get(link)
    assert answer.status_code == 200, answer.text
    return answer.content


async def ready(district: District, number: str, photo_id: str) -> None:
    """Wait until everybody may see the photo."""
    shown = {f"photo_verdicts.{photo_id}": "pass", f"photos_blurred.{photo_id}": True, "public": True}
    await until(lambda: district.services.database["reports"].find_one({"_id": number, **shown}))


async def reported(district: District, data: bytes) -> tuple[Client, str, str]:
    """Who reported it, the case's number, and its photo, which others see."""
    citizen = await district.citizen()
    photo_id = await citizen.photo(data)
    number = await district.submit(citizen, photo_ids=[photo_id])
    await ready(district, number, photo_id)
    return citizen, number, photo_id


@pytest_asyncio.fixture(scope="module")
async def with_a_face(district):
    """Reporter, case and photo of a face."""
    return await reported(district, jpeg(with_face()))


async def test_a_face_is_blurred_for_others_in_every_size_and_not_for_who_took_it(district, with_a_face):
    reporter, number, photo_id = with_a_face
    [own] = (await reporter.get(f"/reports/{number}"))["photos"]
    [others] = (await (await district.citizen()).get(f"/reports/{number}"))["photos"]
    assert (own["photo_id"], own["blurred"]) == (others["photo_id"], not others["blurred"]) == (photo_id, False)
    assert detail(await fetched(district, own["large"]), FACE) > SHARP
    assert detail(await fetched(district, others["large"]), FACE) < SMOOTH
    for size in ("medium", "thumb"):
        assert await fetched(district, own[size]) != await fetched(district, others[size])
    beside = (430, 20, 630, 460)
    as_taken, as_shown = [pixels(await fetched(district, each["large"]), beside) for each in (own, others)]
    assert abs(as_taken - as_shown).mean() < 2, "the rest is as it was"


async def test_a_number_plate_is_blurred(district):
    _, number, _ = await reported(district, jpeg(with_plate()))
    [shown] = (await (await district.citizen()).get(f"/reports/{number}"))["photos"]
    assert detail(await fetched(district, shown["large"]), PLATE) < SMOOTH


async def test_every_list_of_others_shows_the_blurred_photo(district, with_a_face):
    reporter, number, photo_id = with_a_face
    other = await district.citizen()
    await other.post(f"/reports/{number}/follow")
    place = {"longitude": INSIDE[0], "latitude": INSIDE[1]}
    lists = {
        "newest": await other.get("/reports"),
        "followed": await other.get("/reports", followed="true"),
        "near": await other.get("/reports", near=f"{INSIDE[0]},{INSIDE[1]}", metres=2000),
        "similar": await other.get("/reports/similar", **place, crs="wgs84", category="other"),
    }
    for name, found in lists.items():
        for line in found["reports"]:
            if line["number"] == number:
                assert line["photo"]["blurred"], name
                assert detail(await fetched(district, line["photo"]["large"]), FACE) < SMOOTH, name
        assert all(line["photo"] is None or line["photo"]["blurred"] for line in found["reports"]), name
    assert number in {line["number"] for line in lists["followed"]["reports"]}
    [mine] = (await reporter.get("/reports", mine="true"))["reports"]
    assert not mine["photo"]["blurred"]
    assert mine["photo"]["photo_id"] == photo_id


async def test_open_data_have_the_blurred_photo_alone_and_partners_their_own_too(district, with_a_face):
    _, number, _ = with_a_face
    [case] = await ask(district, f"requests/{number}")
    assert detail(await fetched(district, case["media_url"]), FACE) < SMOOTH
    _, key = await district.services[ApiKeyService].create("邻区热线", ["open311.write"], "test")
    theirs = await hand_in(district, form(key), files={"media": ("p.jpg", jpeg(with_face()), "image/jpeg")})

    async def with_photo() -> Any:
        [found] = await ask(district, f"requests/{theirs}", api_key=key)
        return found["media_url"]

    assert detail(await fetched(district, await until(with_photo)), FACE) < SMOOTH


async def test_what_a_unit_photographs_is_blurred_for_the_reporter_and_for_all(district):
    citizen = await district.citizen()
    number = await district.submit(citizen)
    await district.drive(number, "accepted")
    unit = await district.staff("unit-sanitation")
    evidence = await unit.photo(jpeg(with_face()))
    await district.action("unit-sanitation", number, "handle", note="已清理", photo_ids=[evidence])
    await ready(district, number, evidence)
    for who in (citizen, await district.citizen()):
        steps = (await who.get(f"/reports/{number}"))["timeline"]
        [shown] = next(s["photos"] for s in steps if s["action"] == "handle")
        assert shown["blurred"]
        assert detail(await fetched(district, shown["large"]), FACE) < SMOOTH


async def test_staff_see_the_blurred_photo_and_the_original_only_on_record(district, with_a_face):
    _, number, photo_id = with_a_face
    unit_less, verifier = await district.staff("dispatcher"), await district.staff("verifier")
    detailed = await verifier.get(f"/reports/{number}")
    for shown in (detailed["photo"], detailed["photos"][0], detailed["timeline"][0]["photos"][0]):
        assert shown["blurred"]
        assert detail(await fetched(district, shown["large"]), FACE) < SMOOTH
    audit = district.services.database["audit"]
    looks = {"action": "photo.view_original", "object.id": number}
    path = f"/reports/{number}/photos/{photo_id}/original"
    problem(await unit_less.call("POST", path, json={"reason": "看看"}), 403, "NO_PERMISSION")
    assert fields(problem(await verifier.call("POST", path, json={}), 422, "INVALID")) == {"reason"}
    elsewhere = path.replace(photo_id, await verifier.photo())
    problem(await verifier.call("POST", elsewhere, json={"reason": "核对现场"}), 404, "NO_SUCH_PHOTO")
    assert await audit.count_documents(looks) == 0
    original = await verifier.post(path, {"reason": "核对车牌"})
    assert not original["blurred"]
    assert detail(await fetched(district, original["large"]), FACE) > SHARP
    [look] = await audit.find(looks).to_list(None)
    assert (look["reason"], look["details"]) == ("核对车牌", {"photo": photo_id})
    assert look["subject"]["id"] == verifier.facts["staff"]["staff_id"]


async def test_the_address_of_the_blurred_photo_does_not_open_the_original(district, with_a_face):
    _, number, photo_id = with_a_face
    [shown] = (await (await district.citizen()).get(f"/reports/{number}"))["photos"]
    assert urlsplit(shown["large"]).path == f"/photos/{photo_id}/public-large"
    problem(await district.http.get(shown["large"].replace("public-large", "large")), 403, "PHOTO_LINK")


async def test_where_there_is_nothing_to_blur_all_see_the_same_and_it_is_kept_once(mongodb_url, redis_url, tmp_path):
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}") as district:
        plain = jpeg(with_face().crop((430, 0, 640, 480)))
        reporter, number, photo_id = await reported(district, plain)
        [own] = (await reporter.get(f"/reports/{number}"))["photos"]
        [shown] = (await (await district.citizen()).get(f"/reports/{number}"))["photos"]
        for size in ("large", "medium", "thumb"):
            assert await fetched(district, own[size]) == await fetched(district, shown[size])
        assert len([p for p in (tmp_path / "photos").rglob("*.jpg") if photo_id in p.name]) == 3


async def test_a_strip_too_narrow_for_a_thumbnail_is_looked_at_too(district):
    citizen = await district.citizen()
    photo_id = await citizen.photo(picture(size=(3000, 40)))
    number = await district.submit(citizen, photo_ids=[photo_id])
    await ready(district, number, photo_id)


async def test_of_many_photos_at_once_none_is_put_off_while_others_are_blurred(district):
    citizen = await district.citizen()
    ids = await asyncio.gather(*(citizen.photo() for _ in range(16)))
    stored = district.services.database["photos"]
    put_off = {"owed": {"$elemMatch": {"kind": "blur", "last_problem": {"$exists": True}}}}

    async def all_are_blurred() -> bool:
        assert await stored.find_one({"_id": {"$in": ids}, **put_off}) is None
        return not await stored.count_documents({"_id": {"$in": ids}, "blurred": None})

    await until(all_are_blurred)


@pytest.fixture
def weights(tmp_path):
    """A folder of weights to take some away from."""
    return shutil.copytree(MODELS, tmp_path / "models")


@pytest.mark.long
async def test_without_detectors_others_see_no_photo_until_they_are_mended(mongodb_url, redis_url, tmp_path, weights):
    (weights / "faces.onnx").rename(weights / "away")
    photos = {"store": (tmp_path / "photos").as_uri(), "detectors": str(weights)}
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}", photos=photos) as district:
        reporter = await district.citizen()
        photo_id = await reporter.photo(jpeg(with_face()))
        number = await district.submit(reporter, photo_ids=[photo_id])
        await district.settled(number)
        stored = district.services.database["photos"]
        waiting = {"owed": {"$elemMatch": {"kind": "blur", "last_problem": {"$regex": "faces"}}}}
        await until(lambda: stored.find_one({"_id": photo_id, **waiting, "check.verdict": "pass"}))
        other, staff = await district.citizen(), await district.staff("verifier")
        shown = await other.get(f"/reports/{number}")
        assert shown["checked"]
        assert shown["photos"] == shown["timeline"][0]["photos"] == []
        near = f"{INSIDE[0]},{INSIDE[1]}"
        for found in (await other.get("/reports"), await other.get("/reports", near=near)):
            assert [line["photo"] for line in found["reports"]] == [None]
        [case] = await ask(district, f"requests/{number}")
        assert case["media_url"] is None
        link = (await staff.get(f"/reports/{number}"))["photos"][0]["large"]
        problem(await district.http.get(link), 404, "PHOTO_NOT_READY")
        [own] = (await reporter.get(f"/reports/{number}"))["photos"]
        assert detail(await fetched(district, own["large"]), FACE) > SHARP
        (weights / "away").rename(weights / "faces.onnx")
        await ready(district, number, photo_id)
        [shown] = (await other.get(f"/reports/{number}"))["photos"]
        assert detail(await fetched(district, shown["large"]), FACE) < SMOOTH


@pytest.mark.long
async def test_photos_of_before_are_withheld_and_blurred_by_and_by(mongodb_url, redis_url, tmp_path):
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}") as district:
        _, number, photo_id = await reported(district, jpeg(with_face()))
        database, photos = district.services.database, district.services[PhotoService]
        await database["photos"].update_one({"_id": photo_id}, {"$unset": {"blurred": ""}})
        await database["reports"].update_one({"_id": number}, {"$unset": {"photos_blurred": ""}})
        other = await district.citizen()
        assert (await other.get(f"/reports/{number}"))["photos"] == []
        assert await photos.not_blurred() == 1
        assert (await photos.owe_blurring(10), await photos.owe_blurring(10)) == (1, 0)
        await ready(district, number, photo_id)
        [shown] = (await other.get(f"/reports/{number}"))["photos"]
        assert detail(await fetched(district, shown["large"]), FACE) < SMOOTH
        assert await photos.not_blurred() == 0


async def test_a_photo_whose_file_is_damaged_stays_withheld(mongodb_url, redis_url, tmp_path):
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}", worker=False) as district:
        citizen = await district.citizen()
        photo_id = await citizen.photo(jpeg(with_face()))
        [large] = [p for p in (tmp_path / "photos").rglob("*.large.jpg") if photo_id in p.name]
        large.write_bytes(large.read_bytes()[:2000])
        number = await district.submit(citizen, photo_ids=[photo_id], location=location())
        photo = dict(await district.services.database["photos"].find_one({"_id": photo_id}) or {})
        payment = await district.services[PhotoBlurring].pay_blur(photo, {"attempts": 1})
        assert payment.amendment.set["blurred"]["problem"] == "PHOTO_DAMAGED"
        await district.services.database["photos"].update_one({"_id": photo_id}, payment.amendment.pipeline())
        link = district.services[PhotoService].link(photo_id, "large")
        problem(await district.http.get(link), 404, "PHOTO_NOT_READY")
        assert good(await citizen.call("GET", f"/reports/{number}"))["photos"]


async def test_the_command_has_stored_photos_blurred_and_says_when_it_is_done(mongodb_url, redis_url, tmp_path, capsys):
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}") as district:
        _, number, photo_id = await reported(district, jpeg(with_face()))
        await district.services.database["photos"].update_many({}, {"$unset": {"blurred": ""}})
        await blur(district.settings)
        assert "1 photos had no public picture" in capsys.readouterr().out
        await ready(district, number, photo_id)
        link = district.services[PhotoService].link(photo_id, "large")
        assert detail(await fetched(district, link), FACE) < SMOOTH


async def test_readiness_tells_of_photos_that_wait_for_too_long(mongodb_url, redis_url, tmp_path):
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}", worker=False) as district:
        await (await district.citizen()).photo()

        async def told() -> bool:
            answer = await district.nobody("").get("/readyz")
            return any("人脸和车牌" in warning for warning in answer["warnings"])

        assert not await told()
        dated_back = {"$set": {"created_at": now() - timedelta(hours=3)}}
        await district.services.database["photos"].update_many({}, dated_back)
        assert not await told(), "what is dated back has not waited since then"
        with later(minutes=16):
            assert await told()
        while await collector(district, "photos").settle_due():
            pass
        with later(minutes=16):
            assert not await told()
