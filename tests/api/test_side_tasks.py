"""Checks on site: to whom they are offered, who has them, what they change, and what waits for them."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
import pytest_asyncio

from accounts.models import NewStaff
from accounts.staff import StaffService
from accounts.staff_locations import StaffLocations
from core.ids import new_id
from core.queue.debts import Amendment
from places.service import PlaceService
from reports.lifecycle.required_checks import RequiredChecks
from reports.service import ReportService
from reports.site_checks.tasks import SiteChecks
from tests.api.support import collector, problem
from tests.clock import later
from tests.district import INSIDE, Client, District, good, location, open_district
from tests.seeding import PASSWORD
from tests.timing import PATIENCE, until

FIFTY = 50
_names = itertools.count()


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district in which no check is required, with its worker."""
    folder = tmp_path_factory.mktemp("checks")
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}") as opened:
        # The one whom all districts in the tests have would be offered everything.
        await opened.services.database["staff"].update_one({"username": "collector"}, {"$set": {"disabled": True}})
        yield opened


async def new_collector(district: District, areas: list[str], at: tuple[float, float] | None = None) -> Client:
    """A collector of ``areas``, who says where they are if ``at`` is given."""
    username = f"patrol-{next(_names)}"
    await district.services[StaffService].create(
        NewStaff(username=username, name=f"采集员{username}", roles=["collector"], areas=areas), PASSWORD
    )
    client = await district.staff(username)
    if at is not None:
        kept = await client.post("/position", {"location": location(*at), "consent": True})
        assert kept["kept_until"]
    return client


async def dismissed(district: District, *people: Client) -> None:
    """They are on no list of collectors any more."""
    ids = [p.facts["staff"]["staff_id"] for p in people]
    await district.services.database["staff"].update_many({"_id": {"$in": ids}}, {"$set": {"disabled": True}})
    await district.services.database["staff_positions"].delete_many({"_id": {"$in": ids}})


async def asked(district: District, number: str, who: str = "duty_chief") -> dict[str, Any]:
    """A check of the case that has been offered to somebody."""
    await district.action(who, number, "ask_check", reason="请看现场")
    return dict(await until(lambda: offered(district, number)))


async def offered(district: District, number: str) -> dict[str, Any] | None:
    found = await district.services.database["side_tasks"].find_one({"number": number, "offered_to": {"$ne": []}})
    return dict(found) if found else None


async def task_of(district: District, number: str) -> dict[str, Any]:
    found = await district.services.database["side_tasks"].find_one({"number": number})
    assert found is not None
    return dict(found)


async def submitted(district: District) -> str:
    """A case that nobody has filed: without a category."""
    number = await district.submit(await district.citizen(), category=None, answers={})
    await district.settled(number)
    return number


async def found(who: Client, task_id: str, verdict: str, **more: Any) -> Any:
    body = {"verdict": verdict, "photo_ids": [await who.photo()], "location": location(), **more}
    return await who.call("POST", f"/side-tasks/{task_id}/answer", json=body)


def staff_id(who: Client) -> str:
    return str(who.facts["staff"]["staff_id"])


async def waiting(district: District, number: str) -> list[str]:
    return list((await district.services[ReportService].get(number))["open_checks"])


async def test_a_check_goes_to_the_nearest_collectors_and_its_answer_into_the_timeline(place):
    grid = await place.services[PlaceService].locate(*INSIDE)
    near = [await new_collector(place, [grid.district.code], (INSIDE[0] + i / 2000, INSIDE[1])) for i in range(4)]
    number = await submitted(place)
    task = await asked(place, number)
    assert task["offered_to"] == [staff_id(c) for c in near[:3]], "the three nearest, nearest first"
    assert task["kind"] == "pre_filing_check"
    mine = (await near[0].get("/side-tasks"))["tasks"]
    assert [(t["task_id"], t["state"], t["number"]) for t in mine] == [(task["_id"], "offered", number)]
    assert [v["verdict"] for v in mine[0]["verdicts"]] == ["found", "not_found", "inaccessible"]
    assert (await near[3].get("/side-tasks"))["tasks"] == []
    problem(await near[3].call("POST", f"/side-tasks/{task['_id']}/take", json={}), 404, "NO_SUCH_TASK")
    problem(await found(near[0], task["_id"], "found"), 409, "TASK_NOT_TAKEN")
    taken = await near[1].post(f"/side-tasks/{task['_id']}/take")
    assert taken["state"] == "taken"
    details = problem(await near[0].call("POST", f"/side-tasks/{task['_id']}/take", json={}), 409, "TASK_TAKEN")
    assert details == {"state": "taken"}
    done = good(await found(near[1], task["_id"], "found", note="垃圾约两方"))
    assert (done["state"], done["verdict"], done["metres_away"]) == ("done", "found", 0)
    await until(lambda: _no_longer(waiting(place, number)))
    case = await place.settled(number)
    entry = case["timeline"][-1]
    assert (entry["action"], entry["says"], entry["note"]) == ("check_result", "现场核实：情况属实", "垃圾约两方")
    assert (entry["by"]["kind"], entry["by"]["id"]) == ("staff", staff_id(near[1]))
    assert case["version"] == len(case["timeline"])
    photo = await place.services.database["photos"].find_one({"_id": entry["photos"][0]})
    assert photo["attached_to"] == [{"kind": "report", "id": number}]
    of_case = (await (await place.staff("duty_chief")).get(f"/reports/{number}/side-tasks"))["tasks"]
    assert [(t["task_id"], t["taken_by"]) for t in of_case] == [(task["_id"], near[1].facts["staff"]["name"])]
    await dismissed(place, *near)


async def _no_longer(found: Any) -> bool:
    return not await found


async def test_without_positions_it_goes_to_the_grid_then_the_street_then_everybody(place):
    located = await place.services[PlaceService].locate(*INSIDE)
    of_grid = await new_collector(place, [located.grid.code])
    of_street = await new_collector(place, [located.street.code])
    of_district = await new_collector(place, [located.district.code])
    number = await submitted(place)
    task = await asked(place, number)
    assert task["offered_to"] == [staff_id(of_grid)]
    await of_grid.post(f"/side-tasks/{task['_id']}/decline")
    await of_grid.post(f"/side-tasks/{task['_id']}/decline")
    task = await until(lambda: offered(place, number))
    assert task["offered_to"] == [staff_id(of_street)], "declined by all who were asked: offered wider at once"
    with later(minutes=11):
        collectors = collector(place, "side_tasks")
        await until(lambda: _after(collectors.settle_due(), lambda: _offered_to(place, number, 2)))
    task = await task_of(place, number)
    assert task["offered_to"] == [staff_id(of_street), staff_id(of_district)], "after its time it is offered wider"
    assert task["declined"] == [staff_id(of_grid)]
    await dismissed(place, of_grid, of_street, of_district)


async def _after(first: Any, then: Any) -> Any:
    await first
    return await then()


async def _offered_to(district: District, number: str, count: int) -> bool:
    return len((await task_of(district, number))["offered_to"]) == count


async def test_a_position_is_kept_for_minutes_or_until_it_is_taken_back(place):
    located = await place.services[PlaceService].locate(*INSIDE)
    who = await new_collector(place, [located.district.code], INSIDE)
    positions = place.services[StaffLocations]
    point = {"type": "Point", "coordinates": list(INSIDE)}

    async def nearest() -> list[str]:
        return list(await positions.nearest(["collector"], located.areas, point, metres=500, limit=5))

    assert await nearest() == [staff_id(who)]
    with later(minutes=31):
        assert await nearest() == []
    answer = await who.call("POST", "/position", json={"location": location()})
    problem(answer, 422, "INVALID")
    answer = await who.call("POST", "/position", json={"location": location(), "consent": False})
    problem(answer, 422, "INVALID")
    assert (await who.call("DELETE", "/position")).status_code == 204
    assert await nearest() == []
    assert await place.services.database["staff_positions"].count_documents({"_id": staff_id(who)}) == 0
    await dismissed(place, who)


async def test_an_answer_has_to_come_from_the_place_with_a_photo_and_a_verdict_of_its_kind(place):
    located = await place.services[PlaceService].locate(*INSIDE)
    who = await new_collector(place, [located.district.code], INSIDE)
    number = await submitted(place)
    task = await asked(place, number)
    await who.post(f"/side-tasks/{task['_id']}/take")
    problem(await found(who, task["_id"], "fixed"), 422, "INVALID")
    problem(await found(who, task["_id"], "found", photo_ids=[]), 422, "INVALID")
    away = location(INSIDE[0] + 0.01, INSIDE[1])
    problem(await found(who, task["_id"], "found", location=away), 422, "TOO_FAR")
    foreign = await (await place.staff("intake")).photo()
    problem(await found(who, task["_id"], "found", photo_ids=[foreign]), 422, "PHOTO_UNKNOWN")
    photo = await who.photo()
    await place.services.database["photos"].update_one(
        {"_id": photo}, {"$set": {"position": [INSIDE[0] + 0.01, INSIDE[1]]}}
    )
    problem(await found(who, task["_id"], "found", photo_ids=[photo]), 422, "TOO_FAR")
    good(await found(who, task["_id"], "inaccessible", location=away))
    await dismissed(place, who)


@pytest.mark.long
async def test_while_a_check_is_open_the_case_is_neither_filed_nor_closed(place):
    located = await place.services[PlaceService].locate(*INSIDE)
    who = await new_collector(place, [located.district.code], INSIDE)
    chief = await place.staff("duty_chief")
    number = await submitted(place)
    task = await asked(place, number)
    file = {"category": "other", "condition": "ordinary"}
    details = problem(await chief.call("POST", f"/reports/{number}/actions/file", json=file), 409, "CHECK_OPEN")
    assert details["open_checks"] == [task["_id"]]
    problem(await chief.call("POST", f"/reports/{number}/actions/ask_check", json={}), 409, "CHECK_OPEN")
    await place.action("duty_chief", number, "cancel_check", reason="照片已足够清楚")
    await until(lambda: _is(place, number, "cancelled"))
    problem(await who.call("POST", f"/side-tasks/{task['_id']}/take", json={}), 409, "TASK_OVER")
    await place.action("duty_chief", number, "file", **file)
    await place.drive(number, "handled")
    again = await asked_again(place, number, {task["_id"]})
    assert again["kind"] == "closing_check"
    problem(await chief.call("POST", f"/reports/{number}/actions/close", json={}), 409, "CHECK_OPEN")
    await who.post(f"/side-tasks/{again['_id']}/take")
    good(await found(who, again["_id"], "fixed"))
    await until(lambda: _no_longer(waiting(place, number)))
    await place.action("duty_chief", number, "close")
    await dismissed(place, who)


async def asked_again(district: District, number: str, before: set[str]) -> dict[str, Any]:
    await district.action("duty_chief", number, "ask_check")
    tasks = district.services.database["side_tasks"]
    query = {"number": number, "_id": {"$nin": list(before)}, "offered_to": {"$ne": []}}
    return dict(await until(lambda: tasks.find_one(query)))


async def _is(district: District, number: str, state: str) -> bool:
    return bool((await task_of(district, number))["state"] == state)


async def test_a_case_that_goes_another_way_calls_its_check_off(place):
    located = await place.services[PlaceService].locate(*INSIDE)
    who = await new_collector(place, [located.district.code], INSIDE)
    number = await submitted(place)
    await asked(place, number)
    await place.action("duty_chief", number, "void", reason="不属受理范围")
    await until(lambda: _is(place, number, "cancelled"))
    assert (await who.get("/side-tasks"))["tasks"] == []
    assert await waiting(place, number) == []
    await dismissed(place, who)


async def test_whoever_takes_it_and_does_not_answer_loses_it_and_nobody_at_all_lets_it_expire(place):
    located = await place.services[PlaceService].locate(*INSIDE)
    first = await new_collector(place, [located.district.code], INSIDE)
    number = await submitted(place)
    task = await asked(place, number)
    await first.post(f"/side-tasks/{task['_id']}/take")
    second = await new_collector(place, [located.street.code])
    side_tasks = collector(place, "side_tasks")
    with later(minutes=61):
        await until(lambda: _after(side_tasks.settle_due(), lambda: _offered_to(place, number, 1)))
        task = await task_of(place, number)
        assert (task["state"], task["offered_to"], task["declined"]) == (
            "offered",
            [staff_id(second)],
            [staff_id(first)],
        )
    with later(hours=5):
        await until(lambda: _after(side_tasks.settle_due(), lambda: _is(place, number, "expired")))
        await until(lambda: _after(side_tasks.settle_due(), lambda: _no_longer(waiting(place, number))))
    case = await place.services[ReportService].get(number)
    assert case["timeline"][-1]["says"] == "现场核实：超时无人完成"
    assert case["checks"][-1]["verdict"] == "expired"
    await dismissed(place, first, second)


async def fifty(district: District) -> tuple[list[Client], dict[str, Any]]:
    """Fifty people to whom one check is offered."""
    number = await submitted(district)
    located = await district.services[PlaceService].locate(*INSIDE)
    who = await new_collector(district, [located.district.code], INSIDE)
    task = await asked(district, number)
    others = [await new_collector(district, [located.district.code]) for _ in range(4)]
    people = [who, *others]
    await district.services.database["side_tasks"].update_one(
        {"_id": task["_id"]}, {"$set": {"offered_to": [staff_id(p) for p in people]}}
    )
    return [people[i % len(people)] for i in range(FIFTY)], task


class Gate:
    """The side tasks, whose updates wait until fifty are there; without ``condition`` by the id alone."""

    def __init__(self, tasks: Any, *, condition: bool) -> None:
        self._tasks, self._condition = tasks, condition
        self._waiting = asyncio.Barrier(FIFTY)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tasks, name)

    async def find_one_and_update(self, condition: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        async with asyncio.timeout(PATIENCE):
            await self._waiting.wait()
        found = condition if self._condition else {"_id": condition["_id"]}
        return await self._tasks.find_one_and_update(found, *args, **kwargs)


@pytest.mark.parametrize("condition", [True, False])
async def test_of_fifty_who_take_it_at_once_one_has_it(place, monkeypatch, condition):
    """And the control: without the condition in the update, each of them would."""
    callers, task = await fifty(place)
    service = place.services[SiteChecks]
    monkeypatch.setattr(service, "_tasks", Gate(service._tasks, condition=condition))
    answers = await asyncio.gather(*(who.call("POST", f"/side-tasks/{task['_id']}/take", json={}) for who in callers))
    winners = {staff_id(who) for who, answer in zip(callers, answers, strict=True) if answer.is_success}
    taken = await task_of(place, task["number"])
    audited = [d for d in taken["owed"] if d["kind"] == "audit"]
    if condition:
        assert winners == {taken["taken_by"]["id"]}
        for who, answer in zip(callers, answers, strict=True):
            if staff_id(who) not in winners:
                problem(answer, 409, "TASK_TAKEN")
        assert len([d for d in taken["owed"] if d["kind"] == "lapse"]) == 1
        assert len(audited) <= 1
    else:
        assert len(winners) == 5
    await dismissed(place, *dict.fromkeys(callers))


async def test_what_is_done_with_a_task_is_on_record(place):
    located = await place.services[PlaceService].locate(*INSIDE)
    who = await new_collector(place, [located.district.code], INSIDE)
    number = await submitted(place)
    task = await asked(place, number)
    await who.post(f"/side-tasks/{task['_id']}/take")
    good(await found(who, task["_id"], "not_found"))
    audit = place.services.database["audit"]
    query = {"object.id": task["_id"]}
    await until(lambda: _count(audit, query, 2))
    assert {e["action"] async for e in audit.find(query)} == {"side_task.take", "side_task.answer"}
    await dismissed(place, who)


async def _count(collection: Any, query: dict[str, Any], count: int) -> bool:
    return bool(await collection.count_documents(query) == count)


@pytest.mark.long
async def test_a_category_that_requires_a_check_is_filed_and_closed_only_after_it(mongodb_url, redis_url, tmp_path):
    required = {"before_filing": ["exposed_garbage"], "before_closing": ["exposed_garbage"]}
    async with open_district(
        mongodb_url, redis_url, tmp_path, database=f"test_{new_id()}", side_tasks=required
    ) as place:
        who = await place.staff("collector")
        number = await place.submit(await place.citizen(), category="exposed_garbage")
        task = await until(lambda: offered(place, number))
        case = await place.settled(number)
        assert case["state"] == "submitted", "the rule waits for the check"
        chief = await place.staff("duty_chief")
        body = {"category": "exposed_garbage", "condition": "household"}
        problem(await chief.call("POST", f"/reports/{number}/actions/file", json=body), 409, "CHECK_OPEN")
        await place.action("duty_chief", number, "cancel_check", reason="不必")
        problem(await chief.call("POST", f"/reports/{number}/actions/file", json=body), 409, "CHECK_REQUIRED")
        task = await asked_again(place, number, {task["_id"]})
        await who.post(f"/side-tasks/{task['_id']}/take")
        good(await found(who, task["_id"], "found"))
        await until(lambda: _stands(place, number, "dispatched"))
        await place.action("unit-sanitation", number, "accept")
        photo = await (await place.staff("unit-sanitation")).photo()
        await place.action("unit-sanitation", number, "handle", note="已清理", photo_ids=[photo])
        problem(await chief.call("POST", f"/reports/{number}/actions/close", json={}), 409, "CHECK_OPEN")
        closing = await until(lambda: _closing(place, number))
        await who.post(f"/side-tasks/{closing['_id']}/take")
        good(await found(who, closing["_id"], "not_fixed"))
        await until(lambda: _no_longer(waiting(place, number)))
        await place.action("duty_chief", number, "rework", reason="现场没有清理")
        await place.action("unit-sanitation", number, "handle", note="已清理", photo_ids=[photo])
        assert len(await waiting(place, number)) == 1, "what was found before the rework does not count"


async def _stands(district: District, number: str, state: str) -> bool:
    return bool((await district.services[ReportService].get(number))["state"] == state)


async def _closing(district: District, number: str) -> Any:
    query = {"number": number, "kind": "closing_check", "offered_to": {"$ne": []}}
    return await district.services.database["side_tasks"].find_one(query)


def test_a_check_that_found_nothing_keeps_the_rule_from_filing():
    required = RequiredChecks(frozenset({"other"}), frozenset())
    case: dict[str, Any] = {"category": "other", "open_checks": [], "checks": [], "handled_at": None}
    assert not required.files_by_itself(case)
    checked = {**case, "checks": [{"kind": "pre_filing_check", "verdict": "found"}]}
    assert required.files_by_itself(checked)
    assert not required.files_by_itself({**checked, "open_checks": ["one"]})
    assert not required.files_by_itself({**case, "checks": [{"kind": "pre_filing_check", "verdict": "not_found"}]})
    assert not required.files_by_itself({**case, "checks": [{"kind": "closing_check", "verdict": "fixed"}]})
    assert RequiredChecks().files_by_itself(case)
    assert RequiredChecks().on_submission("other") == Amendment()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ({"offered_to": "x", "state": "offered"}, "offered"),
        ({"taken_by.id": "x", "state": "done"}, "taken"),
        ({"number": "1"}, "number"),
    ],
)
async def test_every_list_is_read_off_an_index(place, query, index):
    found = place.services.database["side_tasks"].find(query).sort([("created_at", -1), ("_id", -1)])
    plan = (await found.explain())["queryPlanner"]["winningPlan"]
    assert index in str(plan)
    assert "SORT" not in str(plan).replace("SORT_MERGE", "")
