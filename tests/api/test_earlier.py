"""Which of two cases is the earlier is a matter of the moment: numbers come in blocks, and a later case may have a
smaller one."""

from __future__ import annotations

from datetime import timedelta
from itertools import count

import pytest_asyncio

from reports.lifecycle.blockers import is_earlier
from reports.service import ReportService
from reports.similarity import Likeness
from reports.triage.duplicates import _order
from tests.api.support import problem
from tests.district import INSIDE, location
from tests.timing import until

_spots = count()


@pytest_asyncio.fixture
async def crossed(district):
    """Two cases of one problem, (earlier, later): the one reported an hour earlier has the greater number.

    They lie out of reach of all other cases, of which enough alike would crowd them out of what staff are shown.
    """
    place = location(INSIDE[0] - 0.02 + 0.004 * next(_spots), INSIDE[1] + 0.006)
    citizen = await district.citizen()
    later = await district.submit(citizen, location=place)
    earlier = await district.submit(await district.citizen(), location=place)
    assert later < earlier
    for number in (later, earlier):
        await district.settled(number)
    reports = district.services.database["reports"]
    moment = (await reports.find_one({"_id": later}))["created_at"] - timedelta(hours=1)
    await reports.update_one({"_id": earlier}, {"$set": {"created_at": moment}})
    return citizen, earlier, later


async def test_the_later_case_is_merged_into_the_earlier_whatever_their_numbers(district, crossed):
    _, earlier, later = crossed
    staff = await district.staff("dispatcher")
    due = (await district.settled(earlier))["due_at"]
    body = {"into": later, "reason": "同一处"}
    problem(await staff.call("POST", f"/reports/{earlier}/actions/merge", json=body), 422, "MERGE_INTO_EARLIER")
    await district.action("dispatcher", later, "merge", into=earlier, reason="同一处")
    reports = district.services.database["reports"]
    case = await until(lambda: reports.find_one({"_id": earlier, "absorbed": later}))
    assert (case["state"], case["due_at"]) == ("filed", due), "the clock of who reported first goes on"


async def test_staff_are_told_which_of_two_alike_is_the_earlier(district, crossed):
    _, earlier, later = crossed
    staff = await district.staff("dispatcher")

    async def told(of: str, other: str) -> bool:
        found = (await staff.get(f"/reports/{of}/similar"))["similar"]
        return bool(next(c["earlier"] for c in found if c["report"]["number"] == other))

    assert await told(later, earlier)
    assert not await told(earlier, later)


async def test_of_two_equally_alike_the_earlier_comes_first(district, crossed):
    _, earlier, later = crossed
    one, other = [await district.services[ReportService].get(number) for number in (earlier, later)]
    alike = Likeness(0.5, 0.0, ())
    assert sorted([(other, alike), (one, alike)], key=_order)[0][0]["_id"] == earlier
    assert is_earlier(one, other)
    assert not is_earlier(other, one)
    assert not is_earlier(one, one)


async def test_a_persons_export_is_in_the_order_in_which_they_reported(district, crossed):
    citizen, _, later = crossed
    again = await district.submit(citizen)
    await district.settled(again)
    reports = district.services.database["reports"]
    moment = (await reports.find_one({"_id": later}))["created_at"] - timedelta(days=1)
    await reports.update_one({"_id": again}, {"$set": {"created_at": moment}})
    assert again > later
    assert [r["number"] for r in (await citizen.get("/me/export"))["reports"]] == [again, later]
