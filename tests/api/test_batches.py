"""One action for many cases: an answer for each, none stopped by another, and the same again under the same key."""

from __future__ import annotations

import asyncio
from typing import Any

from core.errors import Unavailable
from core.ids import new_id
from reports.service import ReportService
from tests.api.support import fields, problem


async def filed(district, count: int) -> list[str]:
    """Cases that wait for a dispatcher."""
    citizen = await district.citizen()
    numbers = [await district.submit(citizen) for _ in range(count)]
    for number in numbers:
        assert (await district.settled(number))["state"] == "filed"
    return numbers


async def batch(client, numbers: list[str], action: str, *, key: str | None = None, **given: Any) -> dict[str, Any]:
    body = {"action": action, "numbers": numbers, **given}
    answer: dict[str, Any] = await client.post("/reports/batch", body, key=key)
    assert [item["number"] for item in answer["items"]] == numbers
    assert answer["done"] + answer["failed"] == len(numbers)
    return answer


async def test_each_case_is_answered_for_itself_and_none_stops_another(district):
    first, gone_on, last = await filed(district, 3)
    await district.action("dispatcher", gone_on, "dispatch", unit="roads")
    missing = first[:14] + "999999"
    dispatcher = await district.staff("dispatcher")
    answer = await batch(dispatcher, [first, missing, gone_on, last], "dispatch", unit="sanitation")
    assert (answer["done"], answer["failed"]) == (2, 2)
    assert [i["ok"] for i in answer["items"]] == [True, False, False, True]
    assert [i["state_name"] for i in answer["items"]] == ["已派遣", None, None, "已派遣"]
    assert [i["code"] for i in answer["items"]] == [None, "NO_SUCH_REPORT", "STALE_STATE", None]
    assert answer["items"][2]["details"]["state"] == "dispatched"
    for number in (first, last):
        report = await district.settled(number)
        assert report["unit_id"] == "sanitation"
        entry = await district.services.database["audit"].find_one({"object.id": number, "action": "report.dispatch"})
        assert entry["subject"]["id"] == dispatcher.facts["staff"]["staff_id"]
        assert entry["request_id"]


async def test_the_same_key_repeats_the_same_answers_though_the_cases_have_moved_on(district):
    numbers = await filed(district, 2)
    dispatcher, key = await district.staff("dispatcher"), new_id()
    first = await batch(dispatcher, numbers, "dispatch", key=key, unit="sanitation")
    await district.action("unit-sanitation", numbers[0], "accept")
    assert await batch(dispatcher, numbers, "dispatch", key=key, unit="sanitation") == first
    assert [e["action"] for e in (await district.settled(numbers[1]))["timeline"]].count("dispatch") == 1
    body = {"action": "dispatch", "numbers": numbers[:1], "unit": "sanitation"}
    again = await dispatcher.call("POST", "/reports/batch", json=body, headers={"Idempotency-Key": key})
    problem(again, 422, "IDEMPOTENCY_KEY_REUSED")


async def test_sent_many_times_at_once_every_case_is_done_once(district):
    numbers = await filed(district, 6)
    dispatcher, key = await district.staff("dispatcher"), new_id()
    sent = [batch(dispatcher, numbers, "dispatch", key=key, unit="sanitation") for _ in range(5)]
    answers = await asyncio.gather(*sent)
    assert all(a == answers[0] for a in answers)
    assert answers[0]["done"] == len(numbers)
    for number in numbers:
        assert [e["action"] for e in (await district.settled(number))["timeline"]].count("dispatch") == 1


async def test_a_batch_that_was_cut_off_is_finished_by_sending_it_again(district):
    """What a crash leaves: some cases are done, and no answers are kept."""
    numbers = await filed(district, 3)
    dispatcher, key = await district.staff("dispatcher"), new_id()
    first = await batch(dispatcher, numbers[:], "dispatch", key=key, unit="sanitation")
    database = district.services.database
    claimed = await database["idempotency"].find_one({"key": key})
    await database["batches"].delete_one({"_id": claimed["result"]})
    second = await batch(dispatcher, numbers, "dispatch", key=key, unit="sanitation")
    assert second["done"] == first["done"] == 3
    for number in numbers:
        assert [e["action"] for e in (await district.settled(number))["timeline"]].count("dispatch") == 1


async def test_what_failed_for_want_of_a_part_is_tried_again_under_the_same_key(district, monkeypatch):
    numbers = await filed(district, 2)
    dispatcher, key = await district.staff("dispatcher"), new_id()
    reports = district.services[ReportService]
    act = type(reports).act

    async def out_of_order(self, number, *arguments, **more):
        if number == numbers[0]:
            raise Unavailable("数据库没有响应。", code="DATABASE_UNREACHABLE")
        return await act(self, number, *arguments, **more)

    monkeypatch.setattr(type(reports), "act", out_of_order)
    answer = await batch(dispatcher, numbers, "dispatch", key=key, unit="sanitation")
    assert [i["code"] for i in answer["items"]] == ["DATABASE_UNREACHABLE", None]
    monkeypatch.undo()
    assert (await batch(dispatcher, numbers, "dispatch", key=key, unit="sanitation"))["done"] == 2


async def test_who_may_not_do_it_is_told_so_for_each_case_and_bad_requests_are_refused_whole(district):
    numbers = await filed(district, 1)
    intake = await district.staff("intake")
    answer = await batch(intake, numbers, "dispatch", unit="sanitation")
    assert [i["code"] for i in answer["items"]] == ["NO_PERMISSION"]

    async def wrong(**changes: Any) -> set[str]:
        body = {"action": "void", "numbers": numbers, "reason": "重复", **changes}
        return fields(problem(await intake.call("POST", "/reports/batch", json=body), 422, "INVALID"))

    assert await wrong(numbers=[]) == {"numbers"}
    assert await wrong(numbers=numbers * 2) == {"numbers"}
    assert await wrong(numbers=[f"{n:020}" for n in range(201)]) == {"numbers"}
    assert await wrong(version=3) == {"version"}
    assert await wrong(shout=True) == {"shout"}
    assert (await batch(intake, numbers, "void"))["items"][0]["code"] == "INVALID"
    assert (await district.settled(numbers[0]))["state"] == "filed"


async def test_two_hundred_at_once_are_done(district):
    numbers = await filed(district, 1)
    model = await district.services.database["reports"].find_one({"_id": numbers[0]})
    many = [f"{numbers[0][:14]}{n:06}" for n in range(800_000, 800_200)]
    await district.services.database["reports"].insert_many([{**model, "_id": n} for n in many])
    answer = await batch(await district.staff("dispatcher"), many, "dispatch", unit="roads")
    assert answer["done"] == 200, [i for i in answer["items"] if not i["ok"]][:3]
