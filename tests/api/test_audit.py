"""What staff do and see goes on record, whatever dies; and the record can be read, which is recorded too."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from core.audit import Sealer
from core.audit.macs import Macs
from core.audit.verification import verify
from core.clock import now
from core.ids import new_id
from reports.service import ReportService
from reports.states import STATE_NAMES
from tests.api.support import collector, problem
from tests.clock import unmoved_clock, wait
from tests.crash.fault_injection import Mortal
from tests.district import District, open_district
from tests.seeding import PASSWORD
from tests.timing import PATIENCE

LEASE = timedelta(seconds=30)


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district without a worker: the tests turn the collector by hand."""
    folder = tmp_path_factory.mktemp("audited")
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}", worker=False) as opened:
        yield opened


async def settle(place: District) -> None:
    """One worker, one document and one debt at a time, until nothing is due."""
    one_by_one = collector(place, "reports", concurrency=1)
    while await one_by_one.settle_due():
        pass


async def on_record(place: District, number: str) -> list[dict[str, Any]]:
    found = place.services.database["audit"].find({"object.id": number}).sort([("at", 1), ("_id", 1)])
    return [dict(entry) async for entry in found]


async def is_whole(place: District) -> bool:
    key = place.settings.keys.audit.get_secret_value()
    return (await verify(place.services.database, Macs(key))).problem is None


async def test_every_action_of_staff_is_recorded_with_what_it_changed_why_and_where_from(district):
    number = await district.submit(await district.citizen())
    await district.settled(number)
    dispatcher = await district.staff("dispatcher")
    request_id = f"asked-{new_id()}"
    path = f"/reports/{number}/actions/return_to_intake"
    await dispatcher.call("POST", path, json={"reason": "类别不对"}, headers={"X-Request-Id": request_id})
    await district.action("intake", number, "note", note="请看 13912345678 的照片")
    after = await district.settled(number)
    returned, noted = await on_record(district, number)
    entry = after["timeline"][-2]
    assert (returned["_id"], returned["at"], returned["action"]) == (
        entry["id"],
        entry["at"],
        "report.return_to_intake",
    )
    assert returned["subject"] == {
        "kind": "staff",
        "id": dispatcher.facts["staff"]["staff_id"],
        "name": dispatcher.facts["staff"]["name"],
    }
    assert returned["changes"]["state"] == {"before": "filed", "after": "submitted"}
    assert returned["changes"]["category"] == {"before": "other", "after": None}
    assert returned["changes"]["due_at"]["before"] is not None
    assert "unit_id" not in returned["changes"]
    assert (returned["reason"], returned["result"]) == ("类别不对", "done")
    assert (returned["request_id"], returned["address"]) == (request_id, "127.0.0.1")
    assert noted["changes"] == {}
    assert noted["details"].keys() == {"photos", "note_sha256"}
    assert "13912345678" not in str(noted)
    assert await is_whole(district)


async def test_what_the_system_and_citizens_do_is_in_the_timeline_alone(district):
    citizen = await district.citizen()
    number = await district.submit(citizen, category="exposed_garbage")
    await citizen.post(f"/reports/{number}/supplements", {"note": "更多了"})
    report = await district.settled(number)
    assert len(report["timeline"]) == 4
    assert await on_record(district, number) == []


async def test_an_action_that_is_refused_leaves_no_entry_of_a_change(district):
    number = await district.submit(await district.citizen())
    await district.settled(number)
    path = f"/reports/{number}/actions/close"
    problem(await (await district.staff("verifier")).call("POST", path, json={}), 409, "STALE_STATE")
    assert await on_record(district, number) == []


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_whatever_call_a_worker_dies_at_an_action_is_recorded_once(place, moment):
    async def noted() -> str:
        number: str = await place.submit(await place.citizen())
        await settle(place)
        await place.action("intake", number, "note", note="看看")
        assert [d["kind"] for d in (await place.services[ReportService].get(number))["owed"]] == ["audit"]
        return number

    number = await noted()
    alive = Mortal(0, "before")
    with alive.lifetime():
        await settle(place)
    assert len(await on_record(place, number)) == 1
    assert len(alive.calls) >= 3, "claimed, recorded, settled"
    for at in range(1, len(alive.calls) + 1):
        number = await noted()
        with unmoved_clock():
            with Mortal(at, moment).lifetime():
                await settle(place)
            wait(seconds=LEASE.total_seconds() + 1)
            await settle(place)
        assert (await place.services[ReportService].get(number))["owed"] == []
        assert len(await on_record(place, number)) == 1, f"death {moment} call {at}"
    assert await is_whole(place)
    assert await Sealer.of(place.settings, place.services.database).seal() > 0
    assert await is_whole(place)


async def test_signing_in_and_out_and_failing_to_are_recorded(district):
    nobody = district.nobody("/admin/api/v1")
    since = now()
    wrong = {"username": "collector", "password": "Wrong-Password-1"}
    problem(await nobody.call("POST", "/session", json=wrong), 401, "WRONG_PASSWORD")
    opened = await nobody.post("/session", {"username": "collector", "password": PASSWORD})
    headers = {"Authorization": f"Bearer {opened['token']}"}
    assert (await nobody.call("DELETE", "/session", headers=headers)).is_success
    ids = ["collector", opened["staff"]["staff_id"]]
    found = district.services.database["audit"].find({"subject.id": {"$in": ids}, "at": {"$gte": since}})
    assert [(e["action"], e["result"], e["address"]) async for e in found.sort("written_at")] == [
        ("staff.sign_in", "refused", "127.0.0.1"),
        ("staff.sign_in", "done", "127.0.0.1"),
        ("staff.sign_out", "done", "127.0.0.1"),
    ]


async def test_the_log_is_read_by_who_what_and_when_page_by_page(district):
    number = await district.submit(await district.citizen())
    await district.drive(number, "closed")
    await district.settled(number)
    auditor = await district.staff("audit_admin")
    whole = await auditor.get("/audit", object_kind="report", object_id=number)
    actions = [e["action"].partition(".")[2] for e in whole["entries"]]
    assert actions == ["close", "handle", "accept", "dispatch"]
    assert whole["next_page"] is None
    first = whole["entries"][0]
    assert first["object"] == {"kind": "report", "id": number, "name": None}
    assert first["changes"]["state"] == {"before": "handled", "after": "closed"}
    assert first["changes"]["state"]["after"] in STATE_NAMES
    paged: list[Any] = []
    page: dict[str, str] = {}
    while True:
        answer = await auditor.get("/audit", object_id=number, size=1, **page)
        paged += answer["entries"]
        if answer["next_page"] is None:
            break
        page = {"page": answer["next_page"]}
    assert paged == whole["entries"]
    unit = whole["entries"][1]["subject"]["id"]
    mine = await auditor.get("/audit", object_id=number, subject=unit)
    assert [e["action"] for e in mine["entries"]] == ["report.handle", "report.accept"]
    accepted = await auditor.get("/audit", object_id=number, action="report.accept")
    assert len(accepted["entries"]) == 1
    later = (now() + timedelta(hours=1)).isoformat()
    assert (await auditor.get("/audit", object_id=number, since=later))["entries"] == []
    assert len((await auditor.get("/audit", object_id=number, until=later))["entries"]) == 4
    problem(await auditor.call("GET", "/audit", params={"page": "nonsense"}), 400, "BAD_PAGE")
    problem(await auditor.call("GET", "/audit", params={"object": number}), 422, "INVALID")


async def test_reading_the_log_is_itself_recorded_with_what_was_asked_for(district):
    auditor = await district.staff("audit_admin")
    subject = new_id()
    assert (await auditor.get("/audit", subject=subject))["entries"] == []
    seen = await auditor.get("/audit", action="audit.view", size=1)
    (entry,) = seen["entries"]
    assert entry["subject"]["id"] == auditor.facts["staff"]["staff_id"]
    assert entry["details"] == {"filters": {"subject": subject}}
    for role in ("dispatcher", "duty_chief", "unit-roads", "assessor", "admin", "security_admin"):
        problem(await (await district.staff(role)).call("GET", "/audit"), 403, "NO_PERMISSION")


async def test_the_worker_seals_what_was_written(mongodb_url, redis_url, tmp_path):
    name = f"test_{new_id()}"
    async with open_district(mongodb_url, redis_url, tmp_path, database=name, audit={"seal_seconds": 0.1}) as opened:
        await opened.staff("admin")
        seals = opened.services.database["audit_seals"]
        async with asyncio.timeout(PATIENCE):
            while await seals.find_one({}) is None:  # noqa: ASYNC110 - another task fills it
                await asyncio.sleep(0.05)
        assert await is_whole(opened)
