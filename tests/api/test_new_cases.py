"""Every case begins alike, however it came in, and says when it was closed, however it was."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from core.clock import shanghai
from reports.channels import CHANNELS
from reports.service import ReportService
from tests.api.test_splitting import divided
from tests.district import location

ONLY_OF_PARTS = {"checks", "child_versions"}


async def test_a_part_of_a_case_begins_with_all_that_any_case_begins_with(district):
    [whole, *parts] = await divided(district)
    reports = district.services.database["reports"]
    reported = await reports.find_one({"_id": await district.submit(await district.citizen())})
    for number in parts:
        part = await reports.find_one({"_id": number})
        assert reported.keys() - part.keys() == set()
        assert CHANNELS[part["channel"]].name == "拆分"
        assert part["parent"] == whole


async def test_a_case_closed_on_the_spot_was_updated_when_it_was_closed(district):
    collector = await district.staff("collector")
    made = await collector.post(
        "/findings",
        {
            "category": "exposed_garbage",
            "description": "路边有一袋垃圾，已带走",
            "photo_ids": [await collector.photo()],
            "location": location(),
            "settled": {"note": "已清走", "photo_ids": [await collector.photo()]},
        },
    )
    report = await district.settled(made["number"])
    closed = report["milestones"]["closed_at"]
    assert closed is not None
    await district.services.database["reports"].update_one(
        {"_id": made["number"]}, {"$set": {"updated_at": report["updated_at"].replace(year=2030)}}
    )
    [case] = (await district.nobody().call("GET", f"~/open311/v2/requests/{made['number']}.json")).json()
    assert datetime.fromisoformat(case["updated_datetime"]) == shanghai(closed).replace(microsecond=0)


async def test_a_service_for_another_policy_plans_by_that_one(district):
    reports = district.services[ReportService]
    other = reports.under(replace(reports.policy, dormant_days=reports.policy.dormant_days + 7))
    number = await district.submit(await district.citizen())
    case = await district.settled(number)
    moments = [r.remind_at(case["state"], case["created_at"]) for r in (reports, other)]
    assert moments[0] != moments[1]
    assert reports.under(reports.policy).remind_at(case["state"], case["created_at"]) == moments[0]
