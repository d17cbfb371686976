"""Calling reporters back: what they said makes the hotline's rates, and what is excluded leaves them, on record."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.support import problem
from tests.api.test_indicators import counted, listed, period
from tests.district import good


@pytest.fixture(scope="module")
async def closed(district):
    """A closed case that the reporter rated: resolved, 5."""
    citizen = await district.citizen()
    number = await district.submit(citizen)
    await district.drive(number, "closed")
    await citizen.post(f"/reports/{number}/rating", {"resolved": "yes", "score": 5})
    await district.settled(number)
    return number


async def put(client: Any, number: str, what: str = "", **body: Any) -> Any:
    return await client.call("PUT", f"/reports/{number}/call-back{what}", json=body)


@pytest.mark.long
async def test_what_the_reporter_says_outranks_the_rating_and_an_exclusion_takes_it_out(district, closed):
    verifier, assessor = await district.staff("verifier"), await district.staff("assessor")
    await counted(district)
    assert closed in await listed(assessor, "resolution_rate", "numerator", **period())
    assert closed not in await listed(assessor, "contact_rate", "denominator", **period())

    answer = good(await put(verifier, closed, contacted=True, resolved="no", note="说路面又坏了"))
    assert (answer["call_back"]["by"], answer["call_back"]["resolved"]) == ("核查员", "no")
    await counted(district)
    assert closed in await listed(assessor, "contact_rate", "numerator", **period())
    assert closed in await listed(assessor, "resolution_rate", "denominator", **period())
    assert closed not in await listed(assessor, "resolution_rate", "numerator", **period())
    assert closed in await listed(assessor, "satisfaction_rate", "numerator", **period())  # not asked: as rated

    excluded = good(await put(assessor, closed, "/exclusion", reason="诉求不符合法律规定"))
    assert excluded["exclusion"]["approved_by"] == "考核员"
    assert await verifier.get(f"/reports/{closed}/call-back") == excluded
    await counted(district)
    for indicator in ("contact_rate", "resolution_rate", "satisfaction_rate"):
        assert closed not in await listed(assessor, indicator, "denominator", **period())
    good(await assessor.call("DELETE", f"/reports/{closed}/call-back/exclusion"))
    await counted(district)
    assert closed in await listed(assessor, "satisfaction_rate", "denominator", **period())

    report = await district.settled(closed)
    told = [e for e in report["timeline"] if "call_back" in e["action"]]
    assert [e["action"] for e in told] == ["call_back", "exclude_call_back", "include_call_back"]
    assert not any(e["shown"] for e in told)
    reasons = {"call_back": None, "exclude_call_back": "诉求不符合法律规定", "include_call_back": None}
    for action, reason in reasons.items():
        entries = (
            await (await district.staff("audit_admin")).get("/audit", action=f"report.{action}", object_id=closed)
        )["entries"]
        assert [e["reason"] for e in entries] == [reason]
        assert "路面" not in str(entries)  # what people said stays in the timeline


async def test_a_case_is_called_about_once_it_is_closed_and_nobody_approves_their_own(district, closed):
    chief = await district.staff("duty_chief")
    open_case = await district.submit(await district.citizen())
    await district.settled(open_case)
    problem(await put(chief, open_case, contacted=True), 409, "NOT_CLOSED")
    problem(await put(chief, closed), 422, "INVALID")
    version = (await chief.get(f"/reports/{closed}/call-back"))["version"]
    problem(await put(chief, closed, contacted=True, version=version + 1), 409, "STALE_VERSION")
    good(await put(chief, closed, contacted=True, version=version))
    problem(await put(chief, closed, "/exclusion", reason="自己批准"), 403, "OWN_CALL_BACK")
    assert (await chief.get(f"/reports/{closed}/call-back"))["exclusion"] is None
    problem(await put(await district.staff("dispatcher"), closed, contacted=True), 403, "NO_PERMISSION")
