"""Whom a case is in reach of, and what of it others get to see: area, unit, other citizens, words, photos, phones."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from core.ids import new_id
from reports.service import ReportService
from tests.api.support import problem
from tests.district import Client, location, picture
from tests.timing import until

IN_FIRST_STREET = (113.2400, 23.1450)
"""Where the street-dispatcher works; the district's other reports lie in another street."""
PHONE = "13912345678"


@pytest.fixture(scope="module")
async def victim(district):
    """A citizen with a report that a unit works on, and a photo that is not in it."""
    citizen = await district.citizen()
    number = await district.submit(citizen)
    await district.drive(number, "accepted")
    await district.settled(number)
    citizen.facts |= {"number": number, "photo_id": await citizen.photo()}
    return citizen


async def listed(client: Client, **query: Any) -> set[str]:
    """The numbers of every page of a list."""
    found: set[str] = set()
    page: dict[str, str] = {}
    while True:
        answer = await client.get("/reports", **query, **page)
        found |= {r["number"] for r in answer["reports"]}
        if answer["next_page"] is None:
            return found
        page = {"page": answer["next_page"]}


async def assert_out_of_reach(client: Client, number: str, action: str, body: dict[str, Any]) -> None:
    """The case is not in the list, and every way to it answers as if it were not there."""
    assert number not in await listed(client)
    problem(await client.call("GET", f"/reports/{number}"), 404, "NO_SUCH_REPORT")
    problem(await client.call("POST", f"/reports/{number}/actions/{action}", json=body), 404, "NO_SUCH_REPORT")
    problem(await client.call("POST", f"/reports/{number}/contact", json={"reason": "回访"}), 404, "NO_SUCH_REPORT")


async def test_staff_of_a_street_see_and_act_on_the_cases_of_their_street_only(district):
    dispatcher = await district.staff("street-dispatcher")
    inside = await district.submit(await district.citizen(), location=location(*IN_FIRST_STREET))
    outside = await district.submit(await district.citizen())
    report = await district.settled(inside)
    await district.settled(outside)
    assert set(dispatcher.facts["staff"]["areas"]) < set(report["areas"])
    await assert_out_of_reach(dispatcher, outside, "dispatch", {"unit": "roads"})
    found = await listed(dispatcher)
    assert inside in found
    mine = {"areas": dispatcher.facts["staff"]["areas"][0]}
    assert found == {r["_id"] async for r in district.services.database["reports"].find(mine, {"_id": 1})}
    # Asking for another street's cases by the filter does not widen the reach either.
    elsewhere = (await district.settled(outside))["areas"][1]
    assert await listed(dispatcher, street=elsewhere) == set()
    done = await district.action("street-dispatcher", inside, "dispatch", unit="roads")
    assert done["state"] == "dispatched"


async def test_a_unit_sees_and_acts_on_its_own_cases_only(district):
    citizen = await district.citizen()
    number = await district.submit(citizen, contact_phone=PHONE)
    await district.settled(number)
    roads, sanitation = await district.staff("unit-roads"), await district.staff("unit-sanitation")
    for unit in (roads, sanitation):
        await assert_out_of_reach(unit, number, "note", {"note": "看看"})
    await district.drive(number, "dispatched")
    await assert_out_of_reach(roads, number, "accept", {})
    for other in await listed(roads, unit="sanitation"):  # that unit's cases, as far as this one helps with them
        assert "roads" in {unit["unit_id"] for unit in (await district.services[ReportService].get(other))["units"]}
        assert other != number
    assert number in await listed(sanitation)
    assert (await sanitation.get(f"/reports/{number}"))["contact_phone"] == "139****5678"
    assert (await sanitation.post(f"/reports/{number}/contact", {"reason": "核实位置"}))["phone"] == PHONE
    await sanitation.post(f"/reports/{number}/actions/refuse", {"reason": "不归我们管"})
    await assert_out_of_reach(sanitation, number, "accept", {})


async def test_looking_at_a_phone_is_recorded_and_refused_looks_are_not_answered(district):
    number = await district.submit(await district.citizen(), contact_phone=PHONE, anonymous=True)
    await district.drive(number, "dispatched")
    unit, chief = await district.staff("unit-sanitation"), await district.staff("duty_chief")
    shown = await unit.get(f"/reports/{number}")
    assert (shown["contact_phone"], shown["reporter"]) == (None, "匿名")
    answer = await unit.call("POST", f"/reports/{number}/contact", json={"reason": "核实位置"})
    problem(answer, 403, "ANONYMOUS_REPORT")
    assert (await chief.post(f"/reports/{number}/contact", {"reason": "核实位置"}))["phone"] == PHONE
    audit = district.services.database["audit"]
    looks = audit.find({"object.id": number, "action": "report.view_contact"}).sort("_id")
    assert [(a["subject"]["id"], a["reason"], a["result"]) async for a in looks] == [
        (unit.facts["staff"]["staff_id"], "核实位置", "refused"),
        (chief.facts["staff"]["staff_id"], "核实位置", "done"),
    ]


async def assert_hidden(district, number: str, other: Client) -> None:
    """Another citizen meets the report on no way."""
    problem(await other.call("GET", f"/reports/{number}"), 404, "NO_SUCH_REPORT")
    problem(await other.call("POST", f"/reports/{number}/follow", json={}), 404, "NO_SUCH_REPORT")
    report = await district.services.database["reports"].find_one({"_id": number})
    longitude, latitude = report["location"]["coordinates"]
    assert number not in await listed(other)
    assert number not in await listed(other, status=report["state"])
    assert number not in await listed(other, near=f"{longitude},{latitude}", metres=1)
    similar = await other.get("/reports/similar", longitude=longitude, latitude=latitude, crs="wgs84")
    assert number not in {r["number"] for r in similar["reports"]}


async def test_a_checked_report_is_seen_by_others_until_it_is_void_or_withdrawn(district):
    citizen, other = await district.citizen(), await district.citizen()
    # Places of their own, since lists by distance give the nearest fifty.
    places = [location(113.2650 + i / 5000, 23.1650) for i in range(2)]
    numbers = [await district.submit(citizen, location=place) for place in places]
    for number, place in zip(numbers, places, strict=True):
        await district.settled(number)
        assert (await other.get(f"/reports/{number}"))["mine"] is False
        assert number in await listed(other, near=f"{place['longitude']},{place['latitude']}", metres=1)
    await district.action("intake", numbers[0], "void", reason="重复上报")
    await citizen.post(f"/reports/{numbers[1]}/withdrawal", {})
    for number in numbers:
        await district.settled(number)
        await assert_hidden(district, number, other)
        assert (await citizen.get(f"/reports/{number}"))["mine"] is True


@pytest.mark.parametrize("words", ["有人在这里聚众赌博闹得很晚", "这里有人发贷款小广告贴满墙"])
async def test_a_report_whose_words_did_not_pass_the_check_is_seen_by_its_reporter_and_staff_alone(district, words):
    citizen, other = await district.citizen(), await district.citizen()
    number = await district.submit(citizen, description=words)
    assert (await district.settled(number))["public"] is False
    await assert_hidden(district, number, other)
    assert (await citizen.get(f"/reports/{number}"))["description"] == words
    assert (await (await district.staff("intake")).get(f"/reports/{number}"))["description"] == words


async def test_what_is_added_later_is_shown_to_others_only_when_it_passed_the_check(district):
    citizen, other = await district.citizen(), await district.citizen()
    number = await district.submit(citizen)
    await district.settled(number)
    for note in ("又多了一袋垃圾", "旁边有人赌博"):
        await citizen.post(f"/reports/{number}/supplements", {"note": note})
    await district.settled(number)
    await district.drive(number, "closed")
    await citizen.post(f"/reports/{number}/rating", {"resolved": "no", "score": 1, "comment": "傻逼"})
    await district.action("verifier", number, "note", note="只给内部看的备注")
    await district.settled(number)
    notes = {}
    for name, client in (("reporter", citizen), ("other", other)):
        shown = await client.get(f"/reports/{number}")
        notes[name] = {s["note"] for s in shown["timeline"] if s["note"]} | {shown["rating"]["comment"]}
        assert "只给内部看的备注" not in json.dumps(shown, ensure_ascii=False)
    assert notes["reporter"] == {"又多了一袋垃圾", "旁边有人赌博", "已清理", "傻逼"}
    assert notes["other"] == {"又多了一袋垃圾", "已清理", None}


async def test_a_photo_is_shown_to_others_only_when_it_passed_the_check(district):
    citizen, other = await district.citizen(), await district.citizen()
    await district.control(
        "POST", "/verdicts", {"kind": "image", "suggest": "risky", "openid": citizen.facts["openid"], "times": 1}
    )
    risky = await citizen.photo()
    photos = district.services.database["photos"]

    async def judged(photo_id: str) -> bool:
        return await photos.find_one({"_id": photo_id, "check.verdict": {"$ne": "pending"}}) is not None

    await until(lambda: judged(risky))
    fine = await citizen.photo()
    await until(lambda: judged(fine))
    number = await district.submit(citizen, photo_ids=[risky, fine])
    report = await district.settled(number)
    assert report["photo_verdicts"] == {risky: "risky", fine: "pass"}

    async def seen_by(client: Client) -> list[str]:
        return [p["photo_id"] for p in (await client.get(f"/reports/{number}"))["photos"]]

    async def shown() -> bool:  # others wait until faces are blurred, too
        return await seen_by(other) != []

    await until(shown)
    assert await seen_by(other) == [fine]
    assert await seen_by(citizen) == await seen_by(await district.staff("intake")) == [risky, fine]
    assert risky not in (await other.call("GET", "/reports")).text


async def test_photos_of_others_cannot_be_used_and_are_not_told_from_ones_that_are_not_there(district, victim):
    citizen = await district.citizen()
    texts = set()
    for photo_id in (victim.facts["photo_id"], new_id()):
        body = {"description": "人行道上有一堆垃圾没人清理", "photo_ids": [photo_id], "location": location()}
        answer = await citizen.call("POST", "/reports", json=body)
        assert problem(answer, 422, "PHOTO_UNKNOWN") == {"photo_ids": [photo_id]}
        texts.add(answer.json()["message"])
    assert len(texts) == 1
    # Nor a citizen's by staff, nor staff's by a citizen.
    unit = await district.staff("unit-sanitation")
    path = f"/reports/{victim.facts['number']}/actions/handle"
    answer = await unit.call("POST", path, json={"note": "已清理", "photo_ids": [victim.facts["photo_id"]]})
    problem(answer, 422, "PHOTO_UNKNOWN")
    answer = await victim.call(
        "POST", f"/reports/{victim.facts['number']}/supplements", json={"photo_ids": [await unit.photo()]}
    )
    problem(answer, 422, "PHOTO_UNKNOWN")


async def test_a_photos_file_is_given_only_by_its_own_signed_address(district):
    citizen = await district.citizen()
    taken = await citizen.call("POST", "/photos", files={"photo": ("p.jpg", picture(), "image/jpeg")})
    link = taken.json()["photo"]["thumb"]
    other = await citizen.photo()
    photo_id = taken.json()["photo_id"]
    assert (await district.http.get(link)).headers["Content-Type"] == "image/jpeg"
    expires = int(httpx.URL(link).params["expires"])
    for forged in (
        link.replace("/thumb?", "/large?"),
        link.replace(photo_id, other),
        link.replace(f"expires={expires}", f"expires={expires + 60}"),
        link[:-1] + ("0" if link[-1] != "0" else "1"),
    ):
        assert forged != link
        problem(await district.http.get(forged), 403, "PHOTO_LINK")
    problem(await district.http.get(link.partition("?")[0]), 422, "INVALID")
    # Being signed in is no address: not even its owner's token opens it.
    problem(await citizen.call("GET", f"~/photos/{photo_id}/thumb"), 422, "INVALID")


async def test_a_citizen_cannot_act_on_anothers_report(district, victim):
    other = await district.citizen()
    number = victim.facts["number"]
    assert (await other.get(f"/reports/{number}"))["actions"] == []
    for path, body in (
        ("supplements", {"note": "我也看到了"}),
        ("withdrawal", {}),
        ("rating", {"resolved": "yes", "score": 5}),
    ):
        answer = await other.call("POST", f"/reports/{number}/{path}", json=body)
        problem(answer, 404, "NO_SUCH_REPORT")
