"""A suspended case goes on by itself once, whatever call its worker dies at on the day."""

from __future__ import annotations

from datetime import timedelta

import pytest
import pytest_asyncio

from core.clock import now, shanghai
from core.ids import new_id
from reports.lifecycle.case_clock import end_of
from reports.service import ReportService
from tests.clock import unmoved_clock, wait
from tests.crash.fault_injection import Mortal
from tests.crash.test_reports_die_anywhere import LEASE_SECONDS, settle
from tests.district import District, open_district


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district without a worker: the tests turn the collectors by hand."""
    folder = tmp_path_factory.mktemp("resuming")
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}", worker=False) as opened:
        yield opened


async def suspended(place: District) -> str:
    """A case that is suspended until the end of tomorrow, and owes nothing but going on."""
    number = await place.submit(await place.citizen())
    await settle(place, "reports")
    await place.action("dispatcher", number, "dispatch", unit="sanitation")
    await place.action("unit-sanitation", number, "accept")
    until = (shanghai(now()).date() + timedelta(days=1)).isoformat()
    await place.action("unit-sanitation", number, "request_suspension", reason="等材料进场", until=until)
    await place.action("duty_chief", number, "approve_suspension")
    await settle(place, "reports")
    assert [d["kind"] for d in (await place.services[ReportService].get(number))["owed"]] == ["resume"]
    return number


async def go_on(place: District, mortal: Mortal) -> None:
    with mortal.lifetime():
        await settle(place, "reports")


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_whatever_call_a_worker_dies_at_the_case_goes_on_once(place, moment):
    first, alive = await suspended(place), Mortal(0, "before")
    with unmoved_clock():
        wait(days=2, minutes=1)
        await go_on(place, alive)
    assert (await place.services[ReportService].get(first))["state"] == "accepted"
    for at in range(1, len(alive.calls) + 1):
        number = await suspended(place)
        before = await place.services[ReportService].get(number)
        with unmoved_clock():
            wait(days=2, minutes=1)
            await go_on(place, Mortal(at, moment))
            wait(seconds=LEASE_SECONDS + 1)
            await settle(place, "reports")
        after = await place.services[ReportService].get(number)
        assert (after["state"], after["owed"]) == ("accepted", []), f"death {moment} call {at}, {alive.calls[at - 1]}"
        assert [e["action"] for e in after["timeline"]].count("resume") == 1
        # However late the worker comes, the clock stood still until the date and no longer.
        assert after["pauses"] == before["pauses"]
        assert after["pauses"][-1]["until"] == end_of(shanghai(before["pauses"][-1]["from"]).date() + timedelta(days=1))
        assert after["due_at"] == before["due_at"]


async def test_what_was_resumed_by_hand_does_not_go_on_again(place):
    number = await suspended(place)
    await place.action("duty_chief", number, "resume")
    by_hand = await place.services[ReportService].get(number)
    assert by_hand["pauses"][-1]["until"] <= now()
    with unmoved_clock():
        wait(days=2, minutes=1)
        await settle(place, "reports")
    after = await place.services[ReportService].get(number)
    assert [e["action"] for e in after["timeline"]].count("resume") == 1
    assert after["due_at"] == by_hand["due_at"]
