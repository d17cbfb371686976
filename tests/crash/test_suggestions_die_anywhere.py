"""A photo is seen and a report suggested for, filed and dispatched once, whatever call their worker died at."""

from __future__ import annotations

import pytest
import pytest_asyncio

from core.clock import now
from core.ids import new_id
from inference.service import InferenceService
from reports.service import ReportService
from tests.api.support import collector
from tests.api.test_suggestions import LAMPS, SURE, lamps_go_to_the_roads
from tests.clock import unmoved_clock, wait
from tests.crash.fault_injection import Mortal
from tests.crash.test_reports_die_anywhere import LEASE_SECONDS, judged, settle
from tests.district import District, open_district
from tests.sampling import sample


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district without a worker, in which street lamps are the roads' business and photos are looked at."""
    folder = tmp_path_factory.mktemp("mortal-suggestions")
    async with open_district(
        mongodb_url, redis_url, folder, database=f"test_{new_id()}", worker=False, inference={"automatic_at": SURE}
    ) as opened:
        await lamps_go_to_the_roads(opened)
        await opened.services[InferenceService].unavailable()  # weights are opened before the first death, not in it
        yield opened


async def submitted(place: District, *, seen: bool) -> tuple[str, str]:
    """A report without a category, whose photo has been judged by WeChat, and seen or not: (number, photo)."""
    citizen = await place.citizen()
    photo_id = await citizen.photo()
    if seen:
        await settle(place, "photos")
        await judged(place, photo_id)
        await settle(place, "photos")
    return await place.submit(citizen, description=LAMPS, category=None, photo_ids=[photo_id]), photo_id


async def check_done_once(place: District, number: str) -> None:
    report = await place.services[ReportService].get(number)
    assert report["owed"] == []
    assert [e["action"] for e in report["timeline"]] == ["submit", "file", "dispatch"]
    assert (report["state"], report["category"], report["unit_id"]) == ("dispatched", "street_light", "roads")
    assert report["suggestion"]["automatic"]
    assert (report["routing"]["basis"], report["routing"]["rerouted"]) == ("suggestion", None)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_whatever_call_a_worker_dies_at_a_report_is_filed_by_its_suggestion_once(place, moment):
    number, _ = await submitted(place, seen=True)
    alive = Mortal(0, "before")
    with alive.lifetime():
        await settle(place, "reports")
    await check_done_once(place, number)
    for at in sample(f"deaths of a suggestion {moment}", range(1, len(alive.calls) + 1), 6):
        number, _ = await submitted(place, seen=True)
        with Mortal(at, moment, spared=2).lifetime():
            await settle(place, "reports")
        with unmoved_clock():
            wait(seconds=LEASE_SECONDS + 1)
            await settle(place, "reports")
        try:
            await check_done_once(place, number)
        except AssertionError as error:
            raise AssertionError(f"death {moment} call {at}, {alive.calls[at - 1]}") from error


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_whatever_call_a_worker_dies_at_a_photo_is_seen_and_its_report_waits_for_it(place, moment):
    """Claimed with the check, asked of WeChat, noted: the debt of looking at it outlives each."""
    for at in (1, 2, 3, 4):
        number, photo_id = await submitted(place, seen=False)
        photos = place.services.database["photos"]
        with unmoved_clock():
            with Mortal(at, moment).lifetime():
                await settle(place, "photos")
            photo = await photos.find_one({"_id": photo_id})
            assert photo is not None
            if "seen" not in photo:
                assert "see" in [d["kind"] for d in photo["owed"]]
                await settle(place, "reports")
                report = await place.services[ReportService].get(number)
                assert (report["state"], report["suggestion"]) == ("submitted", None)
                assert "suggest" in [d["kind"] for d in report["owed"]]
            wait(seconds=2 * LEASE_SECONDS + 1)
            await settle(place, "photos")
            assert "seen" in (await photos.find_one({"_id": photo_id}) or {})
            await settle(place, "reports")
        await check_done_once(place, number)


async def test_a_report_behind_many_photos_asks_ever_more_rarely_and_at_least_twice_a_minute(place):
    number, photo_id = await submitted(place, seen=False)
    reports = place.services.database["reports"]
    pauses = []
    with unmoved_clock():
        for _ in range(25):
            await collector(place, "reports").settle_due()
            ((due_at, attempts),) = [
                (debt["due_at"], debt["attempts"])
                for debt in (await reports.find_one({"_id": number}))["owed"]
                if debt["kind"] == "suggest"
            ]
            pauses.append((due_at - now()).total_seconds())
            wait(seconds=pauses[-1] + 0.1)
            assert attempts == len(pauses)
    assert 0 < pauses[0] < 1
    assert pauses[:15] == sorted(pauses[:15])
    assert 29 < max(pauses) < 31
    await settle(place, "photos")
    assert "seen" in (await place.services.database["photos"].find_one({"_id": photo_id}) or {})
