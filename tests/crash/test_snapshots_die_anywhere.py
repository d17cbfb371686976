"""A snapshot is sifted once and a confirmed one becomes one case, whatever call to the database somebody died at."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from accounts.models import StaffSession
from core.ids import new_id
from reports.snapshots.services import SnapshotServices
from tests.api.test_snapshot_sifting import SEEN, saw
from tests.api.test_snapshots import Source, new_source
from tests.clock import unmoved_clock, wait
from tests.crash.fault_injection import Mortal
from tests.crash.test_reports_die_anywhere import LEASE_SECONDS, place, settle
from tests.district import District, good, location
from tests.sampling import sample

DIVISION = "990101"
REVIEWER = StaffSession("s1", "审核员", ("intake",), frozenset({"snapshot.review"}), (DIVISION,), None)


__all__ = ["place"]  # the fixture


@pytest_asyncio.fixture(scope="module")
async def source(place):
    return await new_source(place, min_score=SEEN)


async def camera(place: District, source: Source) -> str:
    """A camera that has sent nothing yet."""
    code = new_id()
    body = {"source": source.key, "code": code, "name": "路口", "location": location()}
    good(await (await place.staff("admin")).call("POST", "/cameras", json=body))
    return code


async def confirmed(place: District, snapshot_id: str) -> None:
    await place.services[SnapshotServices].review.confirm(REVIEWER, snapshot_id, category=None, description=None)


async def check_one_case(place: District, source: Source, snapshot_id: str) -> dict[str, Any]:
    found = await source.document(snapshot_id)
    assert (found["state"], found["owed"]) == ("confirmed", [])
    reports = place.services.database["reports"]
    (report,) = [dict(r) async for r in reports.find({"reporter.camera_id": found["camera"]})]
    assert (report["_id"], report["photos"]) == (found["report"], [found["photo_id"]])
    audited = {"object.id": snapshot_id, "action": "snapshot.confirmed"}
    assert await place.services.database["audit"].count_documents(audited) == 1
    return found


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("finish", ["worker", "click"])
async def test_whatever_call_a_confirmation_dies_at_there_is_one_case(place, source, moment, finish):
    async def waiting() -> str:
        code = await camera(place, source)
        taken = str(await source.taken(boxes=saw("exposed_garbage"), camera=code))
        await settle(place, "snapshots")
        return taken

    snapshot_id = await waiting()
    alive = Mortal(0, "before")
    with alive.lifetime():
        await confirmed(place, snapshot_id)
    await settle(place, "snapshots")
    await check_one_case(place, source, snapshot_id)
    assert len(alive.calls) >= 6, "read, decided, photo, number, case, written down"
    for at in sample(f"deaths of a confirmation {moment}", range(1, len(alive.calls) + 1), 6):
        snapshot_id = await waiting()
        with Mortal(at, moment, spared=2).lifetime():
            await confirmed(place, snapshot_id)
        decided = (await source.document(snapshot_id))["state"] == "confirmed"
        with unmoved_clock():
            wait(seconds=LEASE_SECONDS + 1)
            if finish == "click" or not decided:
                await confirmed(place, snapshot_id)
            await settle(place, "snapshots")
        try:
            await check_one_case(place, source, snapshot_id)
        except (AssertionError, ValueError) as error:
            raise AssertionError(f"death {moment} call {at}, {alive.calls[at - 1]}") from error


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_whatever_call_sifting_dies_at_a_snapshot_waits_or_is_counted_once(place, source, moment):
    async def two() -> tuple[str, str]:
        code = await camera(place, source)
        first = await source.taken(boxes=saw("graffiti"), camera=code)
        await settle(place, "snapshots")
        return first, await source.taken(boxes=saw("graffiti"), camera=code)

    first, second = await two()
    alive = Mortal(0, "before")
    with alive.lifetime():
        await settle(place, "snapshots")
    assert (await source.document(first))["repeats"] == 1
    for at in sample(f"deaths of sifting {moment}", range(1, len(alive.calls) + 1), 6):
        first, second = await two()
        with Mortal(at, moment, spared=2).lifetime():
            await settle(place, "snapshots")
        with unmoved_clock():
            wait(seconds=LEASE_SECONDS + 1)
            await settle(place, "snapshots")
        stands, repeat = await source.document(first), await source.document(second)
        assert (stands["state"], stands["repeats"], stands["owed"]) == ("waiting", 1, []), f"death {moment} call {at}"
        assert (repeat["reason"], repeat["repeat_of"], repeat["owed"]) == ("repeat", first, []), at
