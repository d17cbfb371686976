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


async def test_others_may_not_report_findings_and_photos_have_to_be_ones_own(district):
    collector, verifier = await district.staff("collector"), await district.staff("verifier")
    body = await finding(collector)
    problem(await verifier.call("POST", "/findings", json=body), 403, "NO_PERMISSION")
    theirs = {**body, "photo_ids": [await verifier.photo()]}
    problem(await collector.call("POST", "/findings", json=theirs), 422, "PHOTO_UNKNOWN")
    bare = await collector.call("POST", "/findings", json={**body, "photo_ids": []})
    assert fields(problem(bare, 422, "INVALID")) == {"photo_ids"}
