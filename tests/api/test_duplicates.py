"""Reports of one problem: suggested to citizens and staff with reasons, whatever else lies there; merged by no rule."""

from __future__ import annotations

import asyncio
import copy
import io
import itertools
import random
from datetime import timedelta
from itertools import count
from typing import Any

import pytest_asyncio
from PIL import Image, ImageFilter

from core.clock import now, shanghai
from core.ids import new_id
from reports.search import grams
from reports.similarity import Traits, words_of
from reports.triage.duplicates import INDEX, MOST, Duplicates
from tests.api.support import cost, problem, seen
from tests.district import INSIDE, District, location, open_district
from tests.timing import PATIENCE

_NUMBERS = count(1)
WORDS = "学校门口的井盖坏了，车一过就响，晚上很危险"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district of this file's own: around each place lie only the cases that a test puts there."""
    folder = tmp_path_factory.mktemp("duplicates")
    async with open_district(mongodb_url, redis_url, folder, database=f"t_{new_id()}") as district:
        yield district


_spots = count()


def spot(east: float = 0.0, north: float = 0.0, *, of: int | None = None) -> dict[str, Any]:
    """A place so many metres from a corner that no other test has, unless ``of`` names one."""
    number = next(_spots) if of is None else of
    return location(INSIDE[0] - 0.02 + number * 0.004 + east / 102_350, INSIDE[1] + north / 110_800)


def scene(seed: int, *, quality: int = 90, brighter: float = 1.0) -> bytes:
    """A photo of one thing, as often as it is asked for; encoded anew it is the same picture in other bytes."""
    rng = random.Random(seed)
    small = Image.frombytes("L", (12, 9), bytes(rng.randrange(256) for _ in range(108)))
    image = small.resize((480, 360), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))
    out = io.BytesIO()
    image.point(lambda v: min(255, int(v * brighter))).convert("RGB").save(out, "JPEG", quality=quality)
    return out.getvalue()


async def report(district: District, citizen: Any, where: dict[str, Any], photo: bytes, **fields: Any) -> str:
    photo_id = await citizen.photo(photo)
    return await district.submit(citizen, location=where, photo_ids=[photo_id], **fields)


async def settled(district: District, *numbers: str) -> None:
    """Wait until nothing is owed, and WeChat has judged the photos."""
    async with asyncio.timeout(PATIENCE):
        for number in numbers:
            for _ in itertools.count():
                if "pending" not in (await district.settled(number))["photo_verdicts"].values():
                    break
                await asyncio.sleep(0.02)


async def test_a_citizen_is_shown_the_same_problem_first_with_what_speaks_for_it(place):
    other, me = await place.citizen(), await place.citizen()
    here = next(_spots)
    same = await report(place, other, spot(of=here), scene(1), description=WORDS, category="other")
    near = await report(
        place, other, spot(30, of=here), scene(2), description="小区外面的窨井盖丢失了没有人管", category="other"
    )
    await settled(place, same, near)
    mine = await me.photo(scene(1, quality=50, brighter=1.05))
    asked = dict(**spot(12, of=here), category="other", description="学校门口井盖坏了，晚上很危险", photo_ids=[mine])
    first, second = (await me.get("/reports/similar", **asked))["reports"]
    assert [first["number"], second["number"]] == [same, near]
    assert first["reasons"] == ["相距 12 米", "两小时内", "同一类别", first["reasons"][3], "照片几乎相同"]
    assert first["reasons"][3].startswith("文字有")
    assert first["score"] > 0.9 > second["score"] > 0
    assert first["metres"] < second["metres"]


async def test_words_or_a_photo_make_up_for_another_category_and_nothing_else_does(place):
    other, me = await place.citizen(), await place.citizen()
    here = next(_spots)
    number = await report(place, other, spot(of=here), scene(3), description=WORDS, category="other")
    await settled(place, number)
    asked = {**spot(40, of=here), "category": "road_damage"}
    assert (await me.get("/reports/similar", **asked))["reports"] == []
    found = await me.get("/reports/similar", **asked, photo_ids=[await me.photo(scene(3, quality=60))])
    assert [r["number"] for r in found["reports"]] == [number]
    assert "照片几乎相同" in found["reports"][0]["reasons"]
    assert "同一类别" not in found["reports"][0]["reasons"]


async def test_citizens_meet_their_own_and_what_is_public_and_compare_with_their_own_photos_only(place):
    owner, other = await place.citizen(), await place.citizen()
    here = next(_spots)
    number = await report(place, owner, spot(of=here), scene(4), description=WORDS, category="other")
    await settled(place, number)
    await place.services.database["reports"].update_one({"_id": number}, {"$set": {"public": False}})
    assert (await other.get("/reports/similar", **spot(of=here), description=WORDS))["reports"] == []
    (own,) = (await owner.get("/reports/similar", **spot(of=here), description=WORDS))["reports"]
    assert (own["number"], own["mine"]) == (number, True)
    photo = await owner.photo()
    refused = await other.call("GET", "/reports/similar", params={**spot(of=here), "photo_ids": [photo]})
    problem(refused, 422, "PHOTO_UNKNOWN")


async def test_a_photo_that_has_not_passed_the_check_does_not_give_its_case_away(place):
    owner, other = await place.citizen(), await place.citizen()
    here = next(_spots)
    number = await report(place, owner, spot(of=here), scene(5), description=WORDS, category="other")
    await settled(place, number)
    (photo_id,) = (await place.settled(number))["photos"]
    verdict = f"photo_verdicts.{photo_id}"
    asked = {**spot(60, of=here), "photo_ids": [await other.photo(scene(5))]}
    for checked, shown in (("pass", True), ("risky", False), ("pending", False)):
        await place.services.database["reports"].update_one({"_id": number}, {"$set": {verdict: checked}})
        (found,) = (await other.get("/reports/similar", **asked))["reports"]
        assert ("照片几乎相同" in found["reasons"]) is shown, checked


async def test_staff_see_what_may_be_merged_and_which_way(place):
    citizen, other = await place.citizen(), await place.citizen()
    here = next(_spots)
    early = await report(place, citizen, spot(of=here), scene(6), description=WORDS, category="other")
    late = await report(place, other, spot(8, of=here), scene(6, quality=40), description=WORDS, category="other")
    away = await report(place, other, spot(8, 260, of=here), scene(6), description=WORDS, category="other")
    await settled(place, early, late, away)
    dispatcher = await place.staff("dispatcher")
    (found,) = (await dispatcher.get(f"/reports/{late}/similar"))["similar"]
    assert (found["report"]["number"], found["earlier"]) == (early, True)
    assert found["score"] > 0.95
    assert {"相距 8 米", "文字几乎相同", "照片几乎相同"} <= set(found["reasons"])
    (back,) = (await dispatcher.get(f"/reports/{early}/similar"))["similar"]
    assert (back["report"]["number"], back["earlier"], back["score"]) == (late, False, found["score"])
    # Nothing merges by itself; and once a person has, it is none of the open ones any more.
    assert [(await place.settled(n))["state"] for n in (early, late)] == ["filed", "filed"]
    await place.action("dispatcher", late, "merge", into=early, reason="同一个井盖")
    assert (await dispatcher.get(f"/reports/{early}/similar"))["similar"] == []


async def test_staff_see_only_what_they_reach(place):
    citizen = await place.citizen()
    here = next(_spots)
    one = await report(place, citizen, spot(of=here), scene(7), description=WORDS, category="other")
    two = await report(place, citizen, spot(5, of=here), scene(7), description=WORDS, category="other")
    await settled(place, one, two)
    await place.action("dispatcher", one, "dispatch", unit="sanitation")
    unit = await place.staff("unit-sanitation")
    assert (await unit.get(f"/reports/{one}/similar"))["similar"] == []
    problem(await unit.call("GET", f"/reports/{two}/similar"), 404, "NO_SUCH_REPORT")
    await place.action("dispatcher", two, "dispatch", unit="sanitation")
    assert [s["report"]["number"] for s in (await unit.get(f"/reports/{one}/similar"))["similar"]] == [two]


async def test_parts_of_a_case_are_no_duplicates_of_each_other(place):
    citizen = await place.citizen()
    number = await report(place, citizen, spot(), scene(8), description=WORDS, category="other")
    await settled(place, number)
    parts = [{"description": WORDS}, {"description": WORDS}]
    version = await seen(place, number)
    await place.action("dispatcher", number, "split", children=parts, reason="两个部门的事", version=version)
    children = (await place.settled(number))["children"]
    assert len(children) == 2
    await settled(place, *children)
    dispatcher = await place.staff("dispatcher")
    for case in (number, *children):
        assert (await dispatcher.get(f"/reports/{case}/similar"))["similar"] == []


async def test_among_five_hundred_open_cases_around_a_place_the_duplicate_is_found(place):
    citizen, me = await place.citizen(), await place.citizen()
    here = next(_spots)
    template = await report(place, citizen, spot(0, 150, of=here), scene(9), description=WORDS, category="other")
    whole = await place.settled(template)
    rng = random.Random(1)
    crowd = []
    for _ in range(500):
        other: dict[str, Any] = copy.deepcopy(whole)
        moment = now() - timedelta(hours=rng.uniform(0, 300))
        where = spot(rng.uniform(-100, 100), rng.uniform(-100, 100), of=here)
        words = "".join(rng.sample("垃圾没有清理路灯不亮人行道破损请尽快处理停车占道噪音扰民井盖丢失积水", 20))
        other |= {
            "_id": f"990101{shanghai(moment):%Y%m%d}7{next(_NUMBERS):05d}",
            "created_at": moment,
            "description": words,
            "grams": grams(words),
            "location": {"type": "Point", "coordinates": [where["longitude"], where["latitude"]]},
            "photo_facts": [
                {**whole["photo_facts"][0], "id": new_id(), "perceptual_hash": f"{rng.getrandbits(64):016x}"}
            ],
        }
        crowd.append(other)
    await place.services.database["reports"].insert_many(crowd)
    assert len(crowd) < MOST
    asked = {**spot(of=here), "category": "other"}
    # The duplicate is farther away than nearly all of them: its words alone, or its photo alone, have to bring it up.
    for known in ({"description": WORDS}, {"photo_ids": [await me.photo(scene(9, quality=50))]}):
        found = (await me.get("/reports/similar", **asked, **known))["reports"]
        assert found[0]["number"] == template, found[0]
        assert found[0]["score"] > 0.5
    again = await report(place, me, spot(of=here), scene(9, quality=60), description=WORDS, category="other")
    await settled(place, again)
    similar = (await (await place.staff("dispatcher")).get(f"/reports/{again}/similar"))["similar"]
    assert similar[0]["report"]["number"] == template
    await place.services.database["reports"].delete_many({"_id": {"$in": [c["_id"] for c in crowd]}})


async def test_the_open_cases_alone_are_read_from_their_index(place):
    citizen = await place.citizen()
    number = await report(place, citizen, spot(), scene(10), description=WORDS, category="other")
    whole = await place.settled(number)
    closed = [
        {**copy.deepcopy(whole), "_id": f"9901012026110180{i:04d}", "state": "closed", "timeline": []}
        for i in range(300)
    ]
    reports = place.services.database["reports"]
    await reports.insert_many(closed)
    longitude, latitude = whole["location"]["coordinates"]
    sought = Traits(longitude, latitude, now(), whole["category"], words_of(WORDS))
    read = await cost(reports, place.services[Duplicates].nearest(sought, {}), INDEX)
    assert INDEX in read["plan"]
    assert read["documents"] < 20
    await reports.delete_many({"_id": {"$in": [c["_id"] for c in closed]}})


async def test_a_new_case_says_in_the_list_how_many_it_is_likely_to_be_the_same_as(place):
    citizen, other = await place.citizen(), await place.citizen()
    here = next(_spots)
    early = await report(place, citizen, spot(of=here), scene(11), description=WORDS, category="other")
    await settled(place, early)
    apart = await report(
        place, other, spot(100, of=here), scene(12), description="公园长椅断了一条腿", category="other"
    )
    late = await report(place, other, spot(9, of=here), scene(11, quality=50), description=WORDS, category="other")
    await settled(place, apart, late)
    dispatcher = await place.staff("dispatcher")
    lines = {line["number"]: line for line in (await dispatcher.get("/reports", size=10))["reports"]}
    assert {n: lines[n]["likely_duplicates"] for n in (early, apart, late)} == {early: 0, apart: 0, late: 1}
    (found,) = (await dispatcher.get(f"/reports/{late}"))["duplicates"]
    assert found["number"] == early
    assert found["score"] > 0.95
    assert {"相距 9 米", "文字几乎相同", "照片几乎相同"} <= set(found["reasons"])
    # The unit that gets it has not got the other one: its number is not told.
    await place.action("dispatcher", late, "dispatch", unit="sanitation")
    assert (await (await place.staff("unit-sanitation")).get(f"/reports/{late}"))["duplicates"] == []


async def test_what_is_written_down_is_the_five_likest_and_writing_it_twice_changes_nothing(place):
    citizen = await place.citizen()
    here = next(_spots)
    numbers = [
        await report(place, citizen, spot(5 * n, of=here), scene(13), description=WORDS, category="other")
        for n in range(7)
    ]
    await settled(place, *numbers)
    last = await place.settled(numbers[-1])
    stored = last["likely_duplicates"]
    assert len(stored) == 5
    assert [d["score"] for d in stored] == sorted((d["score"] for d in stored), reverse=True)
    assert {d["number"] for d in stored} == set(numbers[1:6]), "the nearest of those that are alike in all else"
    again = await place.services[Duplicates].pay_find_duplicates(last, {})
    assert [d["number"] for d in again.amendment.set["likely_duplicates"]] == [d["number"] for d in stored]


async def test_citizens_are_not_told_what_staff_are(place):
    citizen = await place.citizen()
    here = next(_spots)
    one, two = [
        await report(place, citizen, spot(of=here), scene(14), description=WORDS, category="other") for _ in range(2)
    ]
    await settled(place, one, two)
    assert (await place.settled(two))["likely_duplicates"]
    assert "duplicate" not in (await citizen.call("GET", f"/reports/{two}")).text
    assert "duplicate" not in (await citizen.call("GET", "/reports", params={"mine": "true"})).text
