"""Photos over HTTP: what they tell is taken out, links are signed, WeChat's verdicts come and are asked for."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import pytest_asyncio

from core.ids import new_id
from photos.service import PhotoService
from places.coordinates import CRS, convert
from tests.api.support import blurred, collector, new_report, problem, push
from tests.clock import later
from tests.core import picture_samples as samples
from tests.district import good, open_district, picture
from tests.timing import until


@pytest_asyncio.fixture(scope="module")
async def citizen(district):
    return await district.citizen()


async def upload(who, data: bytes, name: str = "p.jpg", kind: str = "image/jpeg"):
    return await who.call("POST", "/photos", files={"photo": (name, data, kind)})


async def fetched(district, link):
    answer = await district.http.get(link)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "image/jpeg"
    return answer.content


async def judged(district, photo_id, verdict):
    photos = district.services.database["photos"]
    return dict(await until(lambda: photos.find_one({"_id": photo_id, "check.verdict": verdict})))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
async def test_where_and_when_are_read_out_and_are_in_no_stored_size(district, citizen, kind):
    marked = samples.saved(samples.scene(2400, 1800), kind, exif=samples.exif(offset="+08:00"))
    assert samples.hidden_texts(marked, b"SecretMaker")
    taken = good(await upload(citizen, marked))
    assert (taken["width"], taken["height"]) == (2400, 1800)
    assert taken["taken_at"] == "2024-05-06T07:08:09+08:00"
    where = taken["location"]
    assert (where["longitude"], where["latitude"]) == pytest.approx((119.295, 26.075))
    assert where["gcj02"] == pytest.approx(convert((119.295, 26.075), CRS.WGS84, CRS.GCJ02), abs=1e-6)
    for size, longest in (("large", 2048), ("medium", 800), ("thumb", 200)):
        stored = await fetched(district, taken["photo"][size])
        assert samples.hidden_texts(stored, b"SecretMaker", b"2024:05:06", b"Exif", b"GPS") == []
        assert max(samples.opened(stored).size) == longest
        samples.assert_colours(samples.opened(stored))


async def test_a_photo_that_tells_nothing_has_neither_time_nor_place(citizen):
    taken = good(await upload(citizen, picture()))
    assert (taken["taken_at"], taken["location"]) == (None, None)


async def test_how_far_from_the_report_a_photo_was_taken_is_told_to_staff_alone(district, citizen):
    exif = samples.exif(latitude=(23, 9, (396, 10)), longitude=(113, 15, (396, 10)))
    taken = good(await upload(citizen, samples.jpeg(exif=exif)))
    number = await district.submit(citizen, photo_ids=[taken["photo_id"]])
    case = await (await district.staff("dispatcher")).get(f"/reports/{number}")
    assert case["photo_facts"][0]["taken_at"] == "2024-05-06T07:08:09+08:00"
    assert case["photo_facts"][0]["metres_away"] < 100
    assert "photo_facts" not in await citizen.get(f"/reports/{number}")


REFUSED = {
    "a text named jpg": (b"hello, I am a photo" * 100, 415, "PHOTO_KIND"),
    "a page": (b"<html><script>alert(1)</script></html>", 415, "PHOTO_KIND"),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, "PHOTO_KIND"),
    "a GIF": (samples.saved(samples.scene(), "GIF"), 415, "PHOTO_KIND"),
    "a program": (b"\x7fELF" + bytes(2000), 415, "PHOTO_KIND"),
    "nothing": (b"", 415, "PHOTO_KIND"),
    "a JPEG's beginning": (samples.jpeg()[:300], 422, "PHOTO_DAMAGED"),
    "half a JPEG": (samples.jpeg(samples.busy_scene(800, 600))[:20_000], 422, "PHOTO_DAMAGED"),
    "half a PNG": (samples.saved(samples.busy_scene(300, 200), "PNG")[:-2000], 422, "PHOTO_DAMAGED"),
    "a page behind a JPEG's first bytes": (b"\xff\xd8\xff" + b"<html>" * 200, 415, "PHOTO_KIND"),
    "a dot": (samples.jpeg(samples.scene(8, 8)), 422, "PHOTO_TOO_SMALL"),
    "a PNG bomb": (samples.png_header_bomb(), 413, "PHOTO_TOO_MANY_PIXELS"),
    "a WebP bomb": (samples.webp_canvas_bomb(), 413, "PHOTO_TOO_MANY_PIXELS"),
    "a bomb of scans": (samples.scan_bomb(), 422, "PHOTO_DAMAGED"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_photo_is_refused_by_its_bytes_and_not_kept(district, citizen, name):
    data, status, code = REFUSED[name]
    photos = district.services.database["photos"]
    before = await photos.count_documents({})
    problem(await upload(citizen, data, "holiday.jpg", "image/jpeg"), status, code)
    problem(await upload(await district.staff("verifier"), data), status, code)
    assert await photos.count_documents({}) == before


async def test_a_photo_is_taken_whatever_it_calls_itself(citizen):
    taken = good(await upload(citizen, samples.saved(samples.scene(), "PNG"), "../../etc/passwd\x00.exe", "text/html"))
    assert (taken["width"], taken["height"]) == (320, 240)


def altered(link: str, **changes: str) -> str:
    parts = urlsplit(link)
    query = {k: v[0] for k, v in parse_qs(parts.query).items()} | changes
    return parts._replace(query=urlencode(query)).geturl()


async def test_a_link_opens_one_size_of_one_photo_and_nothing_else(district, citizen):
    first, second = good(await upload(citizen, picture())), good(await upload(citizen, picture()))
    link = first["photo"]["thumb"]
    await fetched(district, link)
    expires, signature = (parse_qs(urlsplit(link).query)[k][0] for k in ("expires", "signature"))
    forged = [
        link.replace("/thumb", "/large"),
        link.replace(first["photo_id"], second["photo_id"]),
        altered(link, expires=str(int(expires) + 1)),
        altered(link, signature="0" * 32),
        altered(link, signature=signature[:-1] + ("0" if signature[-1] != "0" else "1")),
    ]
    for address in forged:
        problem(await district.http.get(address), 403, "PHOTO_LINK")
    for address in (altered(link, signature="x"), altered(link, expires="-1"), link.partition("&")[0]):
        problem(await district.http.get(address), 422, "INVALID")
    problem(await district.http.get(altered(link, more="x")), 422, "INVALID")


async def test_a_link_is_good_for_its_time_and_no_longer(district, citizen):
    link = good(await upload(citizen, picture()))["photo"]["large"]
    minutes = district.settings.photos.url_minutes
    with later(minutes=minutes):
        await fetched(district, link)
    with later(minutes=minutes * 1.25, seconds=1):
        problem(await district.http.get(link), 403, "PHOTO_LINK")


async def test_a_link_to_what_is_gone_is_not_found(district):
    photos = district.services[PhotoService]
    link = photos.link(new_id(), "large")
    answer = await district.http.get(link)
    assert answer.status_code == 404
    problem(answer, 404, answer.json()["code"])


async def test_only_what_wechat_passes_is_shown_to_other_citizens(district, citizen):
    other = await district.citizen()
    numbers = {}
    for suggest in ("pass", "review", "risky"):
        order = {"kind": "image", "suggest": suggest, "openid": citizen.facts["openid"], "times": 1}
        await district.control("POST", "/verdicts", order)
        photo = await citizen.photo()
        await judged(district, photo, suggest)
        numbers[suggest] = await district.submit(citizen, photo_ids=[photo])
    for suggest, number in numbers.items():
        report = await district.settled(number)
        assert list(report["photo_verdicts"].values()) == [suggest]
        await blurred(district, number)
        shown = await other.get(f"/reports/{number}")
        assert len(shown["photos"]) == (1 if suggest == "pass" else 0)
        mine = await citizen.get(f"/reports/{number}")
        assert [p["verdict"] for p in mine["photos"]] == [suggest]
        case = await (await district.staff("dispatcher")).get(f"/reports/{number}")
        assert [p["verdict"] for p in case["photos"]] == [suggest]


@pytest.mark.long
async def test_a_verdict_that_comes_after_the_report_reaches_it(district, citizen):
    await district.control("POST", "/settings", {"verdict_delay_s": 5})
    try:
        photo = await citizen.photo()
        asked = await until(
            lambda: district.services.database["photos"].find_one({"_id": photo, "check.trace_id": {"$exists": True}})
        )
        assert asked["check"]["verdict"] == "pending"
        number = await district.submit(citizen, photo_ids=[photo])
        report = await district.settled(number)
        assert report["photo_verdicts"] == {photo: "pending"}
        reports = district.services.database["reports"]
        await until(lambda: reports.find_one({"_id": number, f"photo_verdicts.{photo}": "pass"}))
    finally:
        await district.control("POST", "/settings", {"verdict_delay_s": 0.05})


@pytest.mark.parametrize("form", ["json", "xml"])
async def test_a_verdict_counts_once_and_its_repeats_change_nothing(district, citizen, form):
    await district.control("POST", "/settings", {"verdict_delay_s": 1500, "push_format": form})
    try:
        photo = await citizen.photo()
        photos = district.services.database["photos"]
        asked = await until(lambda: photos.find_one({"_id": photo, "check.trace_id": {"$exists": True}}))
        event = {
            "Event": "wxa_media_check",
            "trace_id": asked["check"]["trace_id"],
            "errcode": 0,
            "result": {"suggest": "risky", "label": 20002},
        }
        assert (await push(district, event)).text == "success"
        # Once the worker has told it on, a repeat must leave the whole document as it is: no verdict, no debt is added.
        owed = {"$nin": ["tell_verdict", "see", "blur", "tell_blurred"]}
        told = {"_id": photo, "owed.kind": owed, "check.verdict": "risky"}
        first = await until(lambda: photos.find_one(told))
        assert first["check"]["label"] == "20002"
        assert (await push(district, event)).text == "success"
        assert await photos.find_one({"_id": photo}) == first
        assert (await push(district, event | {"result": {"suggest": "pass", "label": 100}})).text == "success"
        assert await photos.find_one({"_id": photo}) == first
    finally:
        await district.control("POST", "/settings", {"verdict_delay_s": 0.05, "push_format": "json"})


async def test_a_picture_that_wechat_could_not_fetch_is_checked_again(district, citizen):
    await district.control("POST", "/settings", {"verdict_delay_s": 1500})
    try:
        photo = await citizen.photo()
        photos = district.services.database["photos"]
        asked = await until(lambda: photos.find_one({"_id": photo, "check.trace_id": {"$exists": True}}))
        trace = asked["check"]["trace_id"]
        event = {"Event": "wxa_media_check", "trace_id": trace, "errcode": -1008, "errmsg": "download media failed"}
        assert (await push(district, event)).text == "success"
        told = await photos.find_one({"_id": photo})
        assert (told["check"]["verdict"], told["check"]["rounds"]) == ("pending", 1)
        assert "check" in [d["kind"] for d in told["owed"]]
        await district.control("POST", "/settings", {"verdict_delay_s": 0.05})
        with later(minutes=2):
            await judged(district, photo, "pass")
    finally:
        await district.control("POST", "/settings", {"verdict_delay_s": 0.05})


async def test_a_verdict_that_never_comes_is_asked_for_again(district, citizen):
    await district.control("POST", "/settings", {"verdict_delay_s": 1800})
    try:
        photo = await citizen.photo()
        photos = district.services.database["photos"]
        first = await until(lambda: photos.find_one({"_id": photo, "check.trace_id": {"$exists": True}}))
        assert {d["kind"] for d in first["owed"]} - {"see", "blur", "tell_blurred"} == {"await_verdict"}
        await district.control("POST", "/settings", {"verdict_delay_s": 0.05})
        asked_once = first["check"]["trace_id"]
        with later(minutes=36):
            await until(lambda: photos.find_one({"_id": photo, "check.trace_id": {"$ne": asked_once}}))
        # The clock is back: WeChat's pushes carry the true time, and one far from ours would be refused.
        row = await judged(district, photo, "pass")
        assert row["check"]["rounds"] == 1
    finally:
        await district.control("POST", "/settings", {"verdict_delay_s": 0.05})


@pytest.mark.parametrize(
    "changed",
    [
        {"msg_signature": "0" * 40},
        {"msg_signature": ""},
        {"nonce": "1"},
        {"timestamp": "1700000000"},
        {"encrypt_type": "raw"},
        {"msg_signature": "签名"},
    ],
    ids=str,
)
async def test_a_push_that_is_not_wechats_is_refused(district, citizen, changed):
    photo = await citizen.photo()
    await judged(district, photo, "pass")
    row = await district.services.database["photos"].find_one({"_id": photo})
    event = {"Event": "wxa_media_check", "trace_id": row["check"]["trace_id"], "result": {"suggest": "risky"}}
    problem(await push(district, event, **changed), 403, "WECHAT_PUSH_REFUSED")
    revoke = {"Event": "user_authorization_revoke", "OpenID": citizen.facts["openid"]}
    problem(await push(district, revoke, **changed), 403, "WECHAT_PUSH_REFUSED")
    assert (await citizen.get("/me"))["citizen_id"] == citizen.facts["citizen_id"]


@pytest.mark.parametrize("body", [b"", b"{}", b"<xml/>", b"\xff\xfe", b'<!DOCTYPE x [<!ENTITY a "b">]><xml>&a;</xml>'])
async def test_a_push_that_cannot_be_read_is_refused(district, body):
    answer = await district.http.post("/wechat/push", params={"encrypt_type": "aes"}, content=body)
    problem(answer, 403, "WECHAT_PUSH_REFUSED")


async def test_wechats_check_of_the_address_is_answered(district):
    assert (await district.control("POST", "/push-check"))["ok"]
    forged = {"signature": "0" * 40, "timestamp": "1", "nonce": "1", "echostr": "x"}
    problem(await district.http.get("/wechat/push", params=forged), 403, "WECHAT_PUSH_REFUSED")


@pytest.mark.long
async def test_a_push_that_overtakes_its_note_is_repeated_until_it_counts(mongodb_url, redis_url, tmp_path):
    """The verdict arrives before the answer with its trace id is stored: WeChat is asked to push it again."""
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}", worker=False) as district:
        citizen = await district.citizen()
        photo = await citizen.photo()
        photos: Any = district.services.database["photos"]
        row = await photos.find_one({"_id": photo})
        payment = await district.services[PhotoService].pay_check(row, row["owed"][0])

        async def refused():
            (record,) = (await district.control("GET", "/received", kind="pushes"))["pushes"] or ({"attempts": []},)
            return record["attempts"]

        first = (await until(refused))[0]
        assert re.search("503|TRACE_UNKNOWN", first), first
        assert (await photos.find_one({"_id": photo}))["check"] == {"verdict": "pending"}
        await photos.find_one_and_update({"_id": photo}, payment.amendment.pipeline())
        await judged(district, photo, "pass")


async def test_unused_photos_go_after_a_day_and_used_ones_stay(mongodb_url, redis_url, tmp_path):
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}") as district:
        citizen = await district.citizen()
        used, unused = await citizen.photo(), await citizen.photo()
        evidence = await (await district.staff("verifier")).photo()
        number = await district.submit(citizen, photo_ids=[used])
        await district.settled(number)
        files = dict.fromkeys((used, unused, evidence), tmp_path / "photos")

        def stored(photo: str) -> bool:
            return any(photo in str(path) for path in files[photo].rglob("*"))

        clear = district.services[PhotoService].clear_unused
        with later(hours=23, minutes=59):
            assert await clear() == 0
            late = await citizen.call("POST", "/reports", json=new_report(unused))
            assert late.status_code in {401, 422}
            # Nobody may use what the clearing is about to delete.
            problem(late, 422, "PHOTO_UNKNOWN")
        assert all(map(stored, files))
        with later(hours=24, minutes=1):
            assert await clear() == 2
            assert await clear() == 0
        assert [p for p in files if stored(p)] == [used]
        assert [p["_id"] async for p in district.services.database["photos"].find()] == [used]
        await fetched(district, (await citizen.get(f"/reports/{number}"))["photos"][0]["large"])
        problem(await citizen.call("POST", "/reports", json=new_report(unused)), 422, "PHOTO_UNKNOWN")


async def test_the_check_is_given_up_after_some_rounds_and_the_photo_stays_hidden(mongodb_url, redis_url, tmp_path):
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}", worker=False) as district:
        await district.control("POST", "/settings", {"verdict_delay_s": 1800})
        citizen = await district.citizen()
        photo = await citizen.photo()
        photos: Any = district.services.database["photos"]
        turn = collector(district, "photos")
        for turned in range(30):
            with later(minutes=36 * turned):
                # Staying signed in to WeChat's side: it checks pictures of people who were active within two hours.
                await district.control("GET", "/login-code", user=citizen.facts["name"])
                for _ in range(4):
                    await turn.settle_due()
            row = await photos.find_one({"_id": photo})
            if row["check"]["verdict"] != "pending":
                break
        assert row["check"]["verdict"] == "unchecked"
        checks = await district.control("GET", "/received", kind="image_checks")
        assert len(checks["image_checks"]) == 5
