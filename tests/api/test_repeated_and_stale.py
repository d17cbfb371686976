"""What was true a moment ago, and what is asked twice: states, tokens, photos, keys."""

from __future__ import annotations

import asyncio
import json
import math

import pytest
import pytest_asyncio

from core.ids import new_id
from places.coordinates import CRS, convert
from tests.api.support import Rows, blurred, fields, new_report, problem
from tests.clock import later
from tests.district import INSIDE, location, picture
from tests.timing import until


@pytest_asyncio.fixture(scope="module")
async def citizen(district):
    return await district.citizen()


@pytest.mark.parametrize("crs", list(CRS))
async def test_one_place_given_in_any_coordinate_system_is_stored_as_the_same_place(district, citizen, crs):
    given = convert(INSIDE, CRS.WGS84, crs)
    number = await district.submit(citizen, location=location(*given, crs))
    stored = await district.services.database["reports"].find_one({"_id": number})
    longitude, latitude = stored["location"]["coordinates"]
    metres = math.hypot((longitude - INSIDE[0]) * 102_000, (latitude - INSIDE[1]) * 111_000)
    assert metres < 1, metres
    assert stored["given_location"] == {"coordinates": list(given), "crs": crs.value}


@pytest.mark.parametrize(
    "words",
    [
        "圾" * 500,
        "井盖没了😱👨‍👩‍👧‍👦🕳️",
        "第一行\n第二行\t表格",
        "<script>alert(1)</script>",
        '$where: {"$gt": 1}',
        "'; DROP TABLE--",
    ],
    ids=["500 characters", "emoji", "breaks and tabs", "markup", "operators", "quotes"],
)
async def test_words_of_any_kind_come_back_as_they_were_given(district, citizen, words):
    number = await district.submit(citizen, description=words, address=words[:200])
    shown = await citizen.get(f"/reports/{number}")
    assert (shown["description"], shown["address"]) == (words, words[:200])


async def test_a_token_ends_when_it_is_closed_and_after_its_days(district):
    citizen = await district.citizen()
    days = district.settings.sessions.citizen_days
    with later(days=days, seconds=-60):
        assert (await citizen.call("GET", "/me")).status_code == 200
    with later(days=days, seconds=1):
        problem(await citizen.call("GET", "/me"), 401, "SESSION_EXPIRED")
        photo = await citizen.call("POST", "/photos", files={"photo": picture()})
        problem(photo, 401, "SESSION_EXPIRED")
    again = await district.citizen(citizen.facts["name"])
    assert (await citizen.call("DELETE", "/session")).status_code == 204
    problem(await citizen.call("GET", "/me"), 401, "SESSION_EXPIRED")
    assert (await again.call("GET", "/me")).status_code == 200, "the other phone stays signed in"


async def test_a_photo_in_two_reports_stays_with_both_and_both_learn_its_verdict(district, citizen):
    photo = await citizen.photo()
    numbers = [await district.submit(citizen, photo_ids=[photo]) for _ in range(2)]
    for number in numbers:
        await district.settled(number)
    photos, reports = district.services.database["photos"], district.services.database["reports"]
    stored = await until(lambda: photos.find_one({"_id": photo, "owed": []}))
    assert sorted(user["id"] for user in stored["attached_to"]) == numbers
    for number in numbers:
        report = await reports.find_one({"_id": number})
        assert report["photo_verdicts"] == {photo: "pass"}


async def test_an_action_on_a_state_that_has_passed_is_told_the_present_one(district, citizen):
    number = await district.submit(citizen)
    report = await district.settled(number)
    staff = await district.staff("dispatcher")
    stale = await staff.call(
        "POST", f"/reports/{number}/actions/dispatch", json={"unit": "roads", "version": report["version"] - 1}
    )
    details = problem(stale, 409, "STALE_VERSION")
    assert (details["state"], details["version"]) == ("filed", report["version"])
    assert "dispatch" in details["actions"]
    done = await staff.post(f"/reports/{number}/actions/dispatch", {"unit": "roads", "version": report["version"]})
    twice = await staff.call("POST", f"/reports/{number}/actions/dispatch", json={"unit": "roads"})
    details = problem(twice, 409, "STALE_STATE")
    assert (details["state"], details["version"]) == ("dispatched", done["version"])
    too_late = problem(await citizen.call("POST", f"/reports/{number}/withdrawal", json={}), 409, "STALE_STATE")
    assert too_late["state"] == "dispatched"
    assert too_late["actions"] == ["supplement", "urge"]
    assert (await district.services.database["reports"].find_one({"_id": number}))["version"] == done["version"]


async def test_an_action_says_what_is_missing_and_what_it_does_not_take(district, citizen):
    number = await district.submit(citizen)
    await district.settled(number)
    await blurred(district, number)
    staff, path = await district.staff("dispatcher"), f"/reports/{number}/actions"
    everything_but_verdicts = {"photo_verdicts": 0}  # they come when they come
    before = await district.services.database["reports"].find_one({"_id": number}, everything_but_verdicts)
    assert fields(problem(await staff.call("POST", f"{path}/dispatch", json={}), 422, "INVALID")) == {"unit"}
    too_much = await staff.call("POST", f"{path}/dispatch", json={"unit": "roads", "category": "other"})
    assert fields(problem(too_much, 422, "INVALID")) == {"category"}
    problem(await staff.call("POST", f"{path}/dispatch", json={"unit": "army"}), 422, "NO_SUCH_UNIT")
    problem(await staff.call("POST", f"{path}/dispatch", json={"unit": "roads", "version": 0}), 422, "INVALID")
    big = await staff.call("POST", f"{path}/dispatch", json={"unit": "roads", "version": 2**80})
    assert big.status_code in {409, 422}, big.text
    assert big.json()["code"] in {"STALE_VERSION", "INVALID"}
    problem(await citizen.call("POST", f"/reports/{number}/supplements", json={}), 422, "INVALID")
    late = {"resolved": "yes", "score": 5}
    problem(await citizen.call("POST", f"/reports/{number}/rating", json=late), 409, "STALE_STATE")
    for wrong in ({"resolved": "yes", "score": True}, {"resolved": "yes", "score": 6}, {"resolved": "no"}):
        problem(await citizen.call("POST", f"/reports/{number}/rating", json=wrong), 422, "INVALID")
    after = await district.services.database["reports"].find_one({"_id": number}, everything_but_verdicts)
    assert after == before


async def test_the_same_key_and_body_are_answered_the_same_and_done_once(district, citizen):
    rows, key = Rows(district), new_id()
    body = new_report(await citizen.photo())
    first = await citizen.post("/reports", body, key=key)
    before = await rows.count()
    answers = await asyncio.gather(*(citizen.post("/reports", body, key=key) for _ in range(5)))
    spaced = await citizen.call(
        "POST",
        "/reports",
        content=json.dumps(dict(reversed(body.items())), indent=3),
        headers={"Content-Type": "application/json", "Idempotency-Key": key},
    )
    assert [*answers, spaced.json()] == [first] * 6
    await district.settled(first["number"])
    after = await rows.count()
    assert (after["reports"], after["idempotency"]) == (before["reports"], before["idempotency"])


async def test_a_key_that_stands_for_something_else_is_refused(district, citizen):
    key, rows = new_id(), Rows(district)
    body = new_report(await citizen.photo())
    number = (await citizen.post("/reports", body, key=key))["number"]
    await district.settled(number)
    other = await district.citizen()
    theirs = new_report(await other.photo())
    before = await rows.count()
    headers = {"Idempotency-Key": key}

    changed = await citizen.call("POST", "/reports", json=body | {"description": "另一件事情，不一样"}, headers=headers)
    assert problem(changed, 422, "IDEMPOTENCY_KEY_REUSED")["differs_in"] == ["body"]
    elsewhere = await citizen.call("POST", f"/reports/{number}/supplements", json={"note": "补充"}, headers=headers)
    assert "path" in problem(elsewhere, 422, "IDEMPOTENCY_KEY_REUSED")["differs_in"]
    assert await rows.count() == before
    # Another person's it never was: theirs stands for what they do with it.
    made = [await other.post("/reports", theirs, key=key) for _ in range(2)]
    assert made[0]["number"] == made[1]["number"] != number
    assert (await citizen.post("/reports", body, key=key))["number"] == number


async def test_a_key_claimed_before_keys_were_peoples_own_goes_on_answering_its_person_alone(district, citizen):
    key, body = new_id(), new_report(await citizen.photo())
    number = (await citizen.post("/reports", body, key=key))["number"]
    keys = district.services.database["idempotency"]
    claimed = await keys.find_one_and_delete({"key": key})
    del claimed["key"]
    await keys.insert_one({**claimed, "_id": key})  # as it was stored
    assert (await citizen.post("/reports", body, key=key))["number"] == number
    other_words = {**body, "description": "另一件事情，不一样"}
    changed = await citizen.call("POST", "/reports", json=other_words, headers={"Idempotency-Key": key})
    assert problem(changed, 422, "IDEMPOTENCY_KEY_REUSED")["differs_in"] == ["body"]
    other = await district.citizen()
    theirs = await other.post("/reports", new_report(await other.photo()), key=key)
    assert theirs["number"] != number
    assert await keys.count_documents({"_id": key}) == 1


async def test_a_staff_action_under_a_key_is_done_once(district, citizen):
    number = await district.submit(citizen)
    await district.settled(number)
    staff, headers = await district.staff("dispatcher"), {"Idempotency-Key": new_id()}
    path = f"/reports/{number}/actions/dispatch"
    first = await staff.call("POST", path, json={"unit": "roads"}, headers=headers)
    second = await staff.call("POST", path, json={"unit": "roads"}, headers=headers)
    assert (first.status_code, second.status_code) == (200, 200)
    timeline = second.json()["timeline"]
    assert [s["action"] for s in timeline].count("dispatch") == 1
