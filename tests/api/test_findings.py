"""Collectors' own findings: the ordinary way, settled on the spot, and the duty to see them closed."""

from __future__ import annotations

import asyncio
from typing import Any

from core.ids import new_id
from tests.api.support import fields, problem
from tests.district import Client, location


async def finding(collector: Client, **changes: Any) -> dict[str, Any]:
    return {
        "description": "人行道边有一袋垃圾",
        "category": "exposed_garbage",
        "photo_ids": [await collector.photo()],
        "location": location(),
        **changes,
    }


async def test_a_finding_is_dispatched_by_the_rules_and_stays_on_the_list_until_it_is_closed(district):
    collector = await district.staff("collector")
    taken = await collector.post("/findings", await finding(collector))
    number = taken["number"]
    report = await district.settled(number)
    assert (report["state"], report["channel"], report["unit_id"]) == ("dispatched", "collector", "sanitation")
    assert report["public"], "staff's own words and photos need no check"
    assert report["milestones"]["filed_by"] == "system"
    own = [r["number"] for r in (await collector.get("/findings", size=100))["reports"]]
    assert number in own
    unit = await district.staff("unit-sanitation")
    await unit.post(f"/reports/{number}/actions/accept")
    await unit.post(f"/reports/{number}/actions/handle", {"note": "已清理", "photo_ids": [await unit.photo()]})
    assert number in [r["number"] for r in (await collector.get("/findings", size=100))["reports"]]
    await district.action("verifier", number, "close")
    assert number not in [r["number"] for r in (await collector.get("/findings", size=100))["reports"]]
    everything = await collector.get("/findings", all="true", size=100)
    assert number in [r["number"] for r in everything["reports"]]
    citizens = await district.submit(await district.citizen())
    assert citizens not in [r["number"] for r in everything["reports"]]


async def test_sent_many_times_under_one_key_a_finding_is_one_case(district):
    collector, key = await district.staff("collector"), new_id()
    body = await finding(collector)
    answers = await asyncio.gather(*(collector.post("/findings", body, key=key) for _ in range(6)))
    assert len({a["number"] for a in answers}) == 1
    report = await district.settled(answers[0]["number"])
    assert [e["action"] for e in report["timeline"]] == ["submit", "file", "dispatch"]


async def settled(collector: Client, **changes: Any) -> dict[str, Any]:
    done = {"note": "已捡拾放入垃圾桶", "photo_ids": [await collector.photo()]}
    return await finding(collector, settled={**done, **changes})


async def test_what_is_settled_on_the_spot_is_filed_handled_and_closed_in_one_step(district):
    collector = await district.staff("collector")
    body = await settled(collector)
    taken = await collector.post("/findings", body)
    assert taken["state"] == "closed"
    report = await district.settled(taken["number"])
    assert report["state"] == "closed"
    assert [e["action"] for e in report["timeline"]] == ["submit", "settle"]
    before, after = report["timeline"]
    assert (before["photos"], after["photos"]) == (body["photo_ids"], body["settled"]["photo_ids"])
    milestones, who = report["milestones"], collector.facts["staff"]["staff_id"]
    assert milestones["filed_at"] == milestones["handled_at"] == milestones["closed_at"] is not None
    assert {milestones[f"{step}_by"] for step in ("filed", "handled", "closed")} == {who}
    assert milestones["dispatched_at"] is None
    audit = district.services.database["audit"]
    entry = await audit.find_one({"object.id": taken["number"], "action": "report.settle"})
    assert entry["changes"]["state"] == {"before": "submitted", "after": "closed"}
    photo = await district.services.database["photos"].find_one({"_id": body["settled"]["photo_ids"][0]})
    assert photo["attached_to"] == [{"kind": "report", "id": taken["number"]}]
    assert taken["number"] not in [r["number"] for r in (await collector.get("/findings", size=100))["reports"]]
    await district.action("verifier", taken["number"], "rework", reason="抽查发现没有清理干净")
    assert (await district.settled(taken["number"]))["unit_id"] == "sanitation", "somebody has to do it again"


async def test_settling_under_one_key_is_done_once_and_finished_where_it_was_cut_off(district):
    collector, key = await district.staff("collector"), new_id()
    body = await settled(collector)
    answers = await asyncio.gather(*(collector.post("/findings", body, key=key) for _ in range(6)))
    (number,) = {a["number"] for a in answers}
    report = await district.settled(number)
    assert [e["action"] for e in report["timeline"]] == ["submit", "settle"]
    # What a crash between the two steps leaves: the report, whose routing waits.
    undone = {"state": "submitted", "timeline": report["timeline"][:1], "version": 1}
    await district.services.database["reports"].update_one({"_id": number}, {"$set": undone})
    assert (await collector.post("/findings", body, key=key))["state"] == "closed"


async def test_only_ones_own_finding_is_settled_with_photos_of_after_and_a_unit_behind_it(district):
    collector, reports = await district.staff("collector"), district.services.database["reports"]
    before = await reports.count_documents({})
    answer = await collector.call("POST", "/findings", json=await settled(collector, photo_ids=[]))
    assert fields(problem(answer, 422, "INVALID")) == {"settled.photo_ids"}
    unknown = await settled(collector, photo_ids=[new_id()])
    problem(await collector.call("POST", "/findings", json=unknown), 422, "PHOTO_UNKNOWN")
    body = await finding(collector)
    twice = {**body, "settled": {"note": "已清理", "photo_ids": body["photo_ids"]}}
    problem(await collector.call("POST", "/findings", json=twice), 422, "PHOTO_REPEATED")
    nobodys = {**await settled(collector), "category": "other", "answers": {"danger": "no"}}
    problem(await collector.call("POST", "/findings", json=nobodys), 422, "NO_UNIT_TO_SETTLE_FOR")
    assert await reports.count_documents({}) == before, "nothing half-done"
    theirs = await district.submit(await district.citizen(), category=None, answers={})
    await district.settled(theirs)
    given = {"category": "exposed_garbage", "unit": "sanitation", "note": "已清理"}
    path = f"/reports/{theirs}/actions/settle"
    answer = await collector.call("POST", path, json={**given, "photo_ids": [await collector.photo()]})
    problem(answer, 409, "NOT_YOUR_FINDING")


async def test_others_may_not_report_findings_and_photos_have_to_be_ones_own(district):
    collector, verifier = await district.staff("collector"), await district.staff("verifier")
    body = await finding(collector)
    problem(await verifier.call("POST", "/findings", json=body), 403, "NO_PERMISSION")
    theirs = {**body, "photo_ids": [await verifier.photo()]}
    problem(await collector.call("POST", "/findings", json=theirs), 422, "PHOTO_UNKNOWN")
    bare = await collector.call("POST", "/findings", json={**body, "photo_ids": []})
    assert fields(problem(bare, 422, "INVALID")) == {"photo_ids"}
