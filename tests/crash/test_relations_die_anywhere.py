"""Merging, splitting and checks on site are done once, whatever call to the database their worker died at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from core.ids import new_id
from reports.service import ReportService
from tests.api.support import collector, seen
from tests.clock import unmoved_clock, wait
from tests.crash.fault_injection import Mortal
from tests.district import Client, District, location, open_district
from tests.sampling import sample

LEASE_SECONDS = 30
MOMENTS = ("before", "after")


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district without a worker: the tests turn the collectors by hand."""
    folder = tmp_path_factory.mktemp("relations")
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}", worker=False) as opened:
        await (await opened.staff("collector")).post("/position", {"location": location(), "consent": True})
        yield opened


async def settle(place: District) -> None:
    """One worker, one document and one debt at a time, until nothing is due."""
    collectors = [collector(place, name, concurrency=1) for name in ("reports", "side_tasks")]
    for _ in range(100):
        if not sum([await each.settle_due() for each in collectors]):
            return
    raise AssertionError("there is always something due")


Prepare = Callable[[District], Awaitable[Any]]
Check = Callable[[District, Any], Awaitable[None]]


async def at_every_call(place: District, what: str, moment: Any, prepare: Prepare, check: Check) -> list[str]:
    """Have the worker die at each call that the work makes, and another one finish it; the calls of a whole life."""
    facts = await prepare(place)
    alive = Mortal(0, "before")
    with alive.lifetime():
        await settle(place)
    await check(place, facts)
    for at in sample(f"deaths of {what} {moment}", range(1, len(alive.calls) + 1), 6):
        facts = await prepare(place)
        with Mortal(at, moment, spared=2).lifetime():
            await settle(place)
        with unmoved_clock():
            wait(seconds=LEASE_SECONDS + 1)
            await settle(place)
        try:
            await check(place, facts)
        except AssertionError as error:
            raise AssertionError(f"death {moment} call {at}, {alive.calls[at - 1]}") from error
    return alive.calls


async def submitted(place: District, **fields: Any) -> tuple[Client, str]:
    """A settled case, and who reported it."""
    citizen = await place.citizen()
    number = await place.submit(citizen, **fields)
    await settle(place)
    return citizen, number


async def case(place: District, number: str) -> dict[str, Any]:
    """The case, of which nothing is owed and whose timeline is whole."""
    found = await place.services[ReportService].get(number)
    assert found["owed"] == []
    assert len({e["id"] for e in found["timeline"]}) == len(found["timeline"]) == found["version"]
    return found


def actions(found: dict[str, Any], *names: str) -> list[str]:
    return [e["action"] for e in found["timeline"] if e["action"] in names]


@pytest.mark.parametrize("moment", MOMENTS)
async def test_what_a_merged_case_brings_is_brought_once(place, moment):
    async def merge(place: District) -> Any:
        _, earlier = await submitted(place)
        second, later = await submitted(place)
        await second.post(f"/reports/{later}/supplements", {"note": "还有", "photo_ids": [await second.photo()]})
        await settle(place)
        await place.action("duty_chief", later, "merge", into=earlier, reason="同一处")
        return second, earlier, later

    async def whole(place: District, facts: Any) -> None:
        second, earlier, later = facts
        found, merged = await case(place, earlier), await case(place, later)
        assert actions(found, "absorb", "take_over") == ["absorb", "take_over", "take_over"]
        assert (found["absorbed"], found["followers"]) == ([later], [second.facts["citizen_id"]])
        assert (merged["state"], merged["followers"]) == ("merged", [])
        for entry in found["timeline"]:
            for photo_id in entry["photos"]:
                photo = await place.services.database["photos"].find_one({"_id": photo_id})
                assert photo is not None
                assert {"kind": "report", "id": earlier} in photo["attached_to"]

    calls = await at_every_call(place, "merging", moment, merge, whole)
    assert len(calls) >= 8


@pytest.mark.parametrize("moment", MOMENTS)
async def test_the_parts_of_a_case_are_made_once_and_it_waits_for_them_from_the_first_moment(place, moment):
    async def split(place: District) -> Any:
        _, number = await submitted(place)
        parts = [{"description": "第一处的垃圾"}, {"description": "第二处的垃圾"}]
        told = {"version": await seen(place, number), "reason": "两处"}
        detail = await place.action("duty_chief", number, "split", children=parts, **told)
        assert detail["open_children"] == detail["children"]
        return number, detail["children"]

    async def whole(place: District, facts: Any) -> None:
        number, children = facts
        assert (await case(place, number))["open_children"] == children
        assert await place.services.database["reports"].count_documents({"parent": number}) == 2
        for child in children:
            assert actions(await case(place, child), "submit", "file") == ["submit", "file"]

    calls = await at_every_call(place, "splitting", moment, split, whole)
    assert calls.count("insert_one") >= 2


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_parent_is_told_once_that_a_part_is_over(place, moment):
    async def end(place: District) -> Any:
        _, number = await submitted(place)
        parts = [{"description": "第一处的垃圾"}, {"description": "第二处的垃圾"}]
        told = {"version": await seen(place, number), "reason": "两处"}
        detail = await place.action("duty_chief", number, "split", children=parts, **told)
        await settle(place)
        await place.action("duty_chief", detail["children"][0], "void", reason="并无此事")
        return number, detail["children"]

    async def whole(place: District, facts: Any) -> None:
        number, children = facts
        found = await case(place, number)
        assert found["open_children"] == children[1:]
        assert actions(found, "child_changed") == ["child_changed"]

    await at_every_call(place, "the end of a part", moment, end, whole)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_check_is_made_and_offered_once(place, moment):
    async def ask(place: District) -> Any:
        _, number = await submitted(place, category=None, answers={})
        await place.action("duty_chief", number, "ask_check")
        return number

    async def whole(place: District, number: Any) -> None:
        tasks = [t async for t in place.services.database["side_tasks"].find({"number": number})]
        assert len(tasks) == 1
        task, found = tasks[0], await case(place, number)
        assert found["open_checks"] == [task["_id"]]
        collectors = [(await place.staff("collector")).facts["staff"]["staff_id"]]
        assert (task["state"], task["round"], task["offered_to"]) == ("offered", 0, collectors)
        assert sorted(d["kind"] for d in task["owed"]) == ["expire", "offer"]

    await at_every_call(place, "asking", moment, ask, whole)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_case_is_told_once_what_was_found(place, moment):
    who = await place.staff("collector")

    async def answer(place: District) -> Any:
        _, number = await submitted(place, category=None, answers={})
        await place.action("duty_chief", number, "ask_check")
        await settle(place)
        task = await place.services.database["side_tasks"].find_one({"number": number})
        assert task is not None
        await who.post(f"/side-tasks/{task['_id']}/take")
        found = {"verdict": "not_found", "photo_ids": [await who.photo()], "location": location()}
        await who.post(f"/side-tasks/{task['_id']}/answer", found)
        return number

    async def whole(place: District, number: Any) -> None:
        found = await case(place, number)
        assert (found["open_checks"], actions(found, "check_result")) == ([], ["check_result"])
        assert [c["verdict"] for c in found["checks"]] == ["not_found"]
        task = await place.services.database["side_tasks"].find_one({"number": number})
        assert task is not None
        assert task["owed"] == []
        audit = place.services.database["audit"]
        assert await audit.count_documents({"object.id": task["_id"]}) == 2

    await at_every_call(place, "answering", moment, answer, whole)
