"""Administering routing rules: what they decide from the next case on, what would happen, what is wrong with them."""

from __future__ import annotations

import asyncio
import random

import pytest_asyncio

from places.service import PlaceService
from tests.api.support import problem
from tests.api.test_categories_administration import new_category
from tests.api.test_staff_administration import STREET, on_record, somebody
from tests.district import INSIDE, good, location
from tests.seeding import RULES


@pytest_asyncio.fixture
async def admin(district):
    return await somebody(district, "admin")


@pytest_asyncio.fixture(autouse=True)
async def only_the_first_rules(district):
    """What a test adds goes with it."""
    rules = district.services.database["routing_rules"]
    before = [r async for r in rules.find()]
    yield
    await rules.delete_many({})
    await rules.insert_many(before)


def new_rule(**changes):
    rule = {"key": f"rule{random.randrange(10**9)}", "name": "本街道其他问题", "categories": ["other"]}
    return {**rule, "areas": [STREET], "unit": "roads", **changes}


async def keys(client):
    return [rule["key"] for rule in (await client.get("/routing/rules"))["rules"]]


async def outcome(client, category="other", **place):
    return await client.post("/routing/what-would-happen", {"category": category, **(place or {"area": STREET})})


async def test_a_new_rule_decides_from_the_next_case_on(district, admin):
    citizen = await district.citizen()
    number = await district.submit(citizen)
    assert (await district.settled(number))["state"] == "filed"
    foreseen = await outcome(admin, location=location())
    assert (foreseen["rule"], foreseen["unit"]) == (None, None)
    assert "人工派遣" in foreseen["why"]
    rule = await admin.post("/routing/rules", new_rule(areas=[foreseen["areas"][1]]))
    assert rule["version"] == 1
    report = await district.settled(await district.submit(citizen))
    assert (report["state"], report["unit_id"]) == ("dispatched", "roads")
    foreseen = await outcome(admin, location=location())
    assert foreseen["rule"]["key"] == rule["key"]
    assert (foreseen["unit"], foreseen["unit_name"]) == ("roads", "roads所")
    assert rule["name"] in foreseen["why"]
    await on_record(district, "routing.create", rule["key"])


async def test_what_would_happen_names_the_others_that_fit_and_changes_nothing(district, admin):
    first = await admin.post("/routing/rules", new_rule())
    second = await admin.post("/routing/rules", new_rule(categories=[], areas=[], unit="sanitation"))
    foreseen = await outcome(admin)
    assert (foreseen["rule"]["key"], [r["key"] for r in foreseen["others"]]) == (first["key"], [second["key"]])
    before = await district.services.database["reports"].count_documents({})
    await outcome(admin, category="road_damage")
    assert await district.services.database["reports"].count_documents({}) == before
    # By a position in another datum it is the same place.
    there = await outcome(admin, location={"longitude": INSIDE[0], "latitude": INSIDE[1], "crs": "wgs84"})
    assert [len(code) for code in there["areas"]] == [6, 9, 12, 15][: len(there["areas"])]


async def test_a_question_without_one_place_or_about_what_is_not_there_is_refused(district, admin):
    path = "/routing/what-would-happen"
    for body, code in (
        ({"category": "other"}, "INVALID"),
        ({"category": "other", "area": STREET, "location": location()}, "INVALID"),
        ({"category": "nonsense", "area": STREET}, "NO_SUCH_CATEGORY"),
        ({"category": "other", "area": "990101999"}, "NO_SUCH_AREA"),
        ({"category": "other", "location": location(0.0, 0.0)}, "OUTSIDE_DISTRICT"),
    ):
        problem(await admin.call("POST", path, json=body), 422, code)


async def test_rules_move_before_one_another_as_often_as_one_likes(district, admin):
    made = [(await admin.post("/routing/rules", new_rule()))["key"] for _ in range(3)]
    a, b, c = made
    listed = await keys(admin)
    assert listed[-3:] == made
    versions = dict.fromkeys(made, 1)
    expected = listed
    # Far more often than there are numbers between two rules: room has to be made, and the order never suffers.
    for turn in range(25):
        key, before = [(c, a), (b, c), (a, b)][turn % 3]
        after = await admin.post(f"/routing/rules/{key}/move", {"version": versions[key], "before": before})
        versions[key] += 1
        expected = [k for k in expected if k != key]
        expected.insert(expected.index(before), key)
        assert [r["key"] for r in after["rules"]] == expected
    await admin.post(f"/routing/rules/{a}/move", {"version": versions[a], "before": None})
    assert (await keys(admin))[-1] == a
    first = (await keys(admin))[0]
    rule = await admin.post("/routing/rules", new_rule(before=first))
    assert (await keys(admin))[:2] == [rule["key"], first]
    unknown = {"version": versions[b], "before": "nonsense"}
    problem(await admin.call("POST", f"/routing/rules/{b}/move", json=unknown), 422, "NO_SUCH_RULE")


async def test_changes_at_once_against_one_version_do_not_overwrite_each_other(district, admin):
    key = (await admin.post("/routing/rules", new_rule()))["key"]
    path = f"/routing/rules/{key}"
    answers = await asyncio.gather(
        admin.call("PATCH", path, json={"version": 1, "unit": "sanitation"}),
        admin.call("PATCH", path, json={"version": 1, "name": "另一个名字"}),
        admin.call("POST", f"{path}/move", json={"version": 1, "before": None}),
        admin.call("DELETE", f"{path}?version=1"),
    )
    assert len([a for a in answers if a.is_success]) == 1
    for answer in answers:
        if not answer.is_success:
            assert answer.json()["code"] in {"STALE", "NO_SUCH_RULE"}


async def test_a_deleted_rule_decides_no_more_and_its_key_is_not_used_again(district, admin):
    rule = await admin.post("/routing/rules", new_rule())
    assert (await admin.call("DELETE", f"/routing/rules/{rule['key']}?version=1")).status_code == 204
    assert (await outcome(admin))["rule"] is None
    assert rule["key"] not in await keys(admin)
    problem(await admin.call("DELETE", f"/routing/rules/{rule['key']}?version=2"), 404, "NO_SUCH_RULE")
    problem(await admin.call("POST", "/routing/rules", json=new_rule(key=rule["key"])), 409, "KEY_TAKEN")
    await on_record(district, "routing.delete", rule["key"])


async def test_a_rule_names_what_is_there(district, admin):
    for changes, field in (
        ({"unit": "nonsense"}, "unit"),
        ({"categories": ["nonsense"]}, "categories"),
        ({"areas": ["990101999"]}, "areas"),
    ):
        details = problem(await admin.call("POST", "/routing/rules", json=new_rule(**changes)), 422, "INVALID")
        assert [f["field"] for f in details["fields"]] == [field]
    rule = await admin.post("/routing/rules", new_rule())
    answer = await admin.call("PATCH", f"/routing/rules/{rule['key']}", json={"version": 1, "unit": "nonsense"})
    problem(answer, 422, "INVALID")


async def test_the_check_finds_gaps_shadows_and_names_that_lead_nowhere(district, admin):
    checked = await admin.get("/routing/check")
    gaps = {(g["category"], g["street"]) for g in checked["gaps"]}
    assert ("other", STREET) in gaps
    assert not [g for g in gaps if g[0] in RULES]
    assert all(g["whole"] for g in checked["gaps"])
    # A rule that an earlier one leaves nothing to.
    shadowed = await admin.post("/routing/rules", new_rule(categories=["road_damage"]))
    checked = await admin.get("/routing/check")
    assert checked["shadows"] == [{"rule": shadowed["key"], "by": ["rule_road_damage"], "matches": "never"}]
    # In front of it, it is none.
    await admin.post(f"/routing/rules/{shadowed['key']}/move", {"version": 1, "before": "rule_road_damage"})
    assert (await admin.get("/routing/check"))["shadows"] == []
    # A rule for a part of a street leaves the rest of it open.
    community = (await district.services[PlaceService].areas(parent=STREET))[0].code
    await admin.post("/routing/rules", new_rule(areas=[community]))
    (gap,) = [
        g for g in (await admin.get("/routing/check"))["gaps"] if (g["category"], g["street"]) == ("other", STREET)
    ]
    assert not gap["whole"]
    assert gap["places"]
    assert not [p for p in gap["places"] if p.startswith(community)]
    category = await admin.post("/categories", new_category())
    rule = await admin.post("/routing/rules", new_rule(categories=[category["key"]]))
    await admin.post(f"/categories/{category['key']}/retire", {"version": 1})
    (reference,) = (await admin.get("/routing/check"))["references"]
    assert reference == {"rule": rule["key"], "what": "retired_category", "name": category["key"]}


async def test_only_who_administers_the_whole_district_changes_rules(district, admin):
    in_street = await somebody(district, "admin", areas=[STREET])
    problem(await in_street.call("POST", "/routing/rules", json=new_rule()), 403, "DISTRICT_WIDE")
    dispatcher = await somebody(district, "dispatcher")
    problem(await dispatcher.call("GET", "/routing/rules"), 403, "NO_PERMISSION")
    good(await in_street.call("GET", "/routing/check"))
