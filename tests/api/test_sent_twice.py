"""What would happen again when it is sent again: done once under a version or a key, and without either not at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from core.ids import new_id
from reports.lifecycle.table import TRANSITIONS, Transition
from reports.lifecycle.timeline import new_entry
from reports.models import System
from reports.service import ReportService
from tests.api.support import problem, seen
from tests.district import Client, District

AT_ONCE = 15
PARTS = {"children": [{"description": "另一处的垃圾单独处理"}] * 5, "reason": "两处问题"}
AGAIN = {"unit": "sanitation", "reason": "请加快处理"}
REST = {"children": PARTS["children"][:1], "reason": "还有剩余"}
# Whom it is done by, in what state, and what comes with it.
REPEATING: dict[str, tuple[str, str, dict[str, Any]]] = {
    "split": ("duty_chief", "accepted", PARTS),
    "redispatch": ("dispatcher", "accepted", AGAIN),
    "keep_rest": ("verifier", "closed", REST),
}


def test_all_that_repeats_is_known_here():
    assert {row.action for row in TRANSITIONS if row.repeats} == REPEATING.keys()


def shows_outside(row: Transition) -> bool:
    """Whether somebody is told, something is counted or made by the step each time."""
    return bool(row.tells or row.marks or set(row.owes) - {"route", "suggest"})


def hinders_itself(row: Transition) -> bool:
    """Whether the step makes a fact untrue, or something present, that it cannot do with."""
    request = bool(row.asks and "nothing_asked" in row.only) or bool(row.answers)
    part = (row.ends_part or row.removes_part) and "by_part" in row.only
    return request or part or row.checks == "asks" or "answerable" in row.only


def test_no_other_step_of_staff_can_be_taken_again_at_once_and_shows_outside():
    for row in TRANSITIONS:
        stays = row.to is None or row.to in row.origins
        if "staff" in row.actors and stays and shows_outside(row) and not hinders_itself(row):
            assert row.repeats, f"{row.action}: sent twice it happens twice"


async def standing(district: District, action: str) -> tuple[Client, str, str, dict[str, Any]]:
    """Who does it, the path and the number of a case in which it is open, and what comes with it."""
    who, state, given = REPEATING[action]
    number = await district.submit(await district.citizen())
    await district.drive(number, state)
    await district.settled(number)
    return await district.staff(who), f"/reports/{number}/actions/{action}", number, given


async def done(district: District, number: str, action: str) -> int:
    report = await district.services[ReportService].get(number)
    return sum(entry["action"] == action for entry in report["timeline"])


@pytest.mark.parametrize("action", REPEATING)
async def test_many_times_without_either_it_is_not_done_and_with_one_it_is_done_once(district, action):
    who, path, number, given = await standing(district, action)

    async def many(**how: Any) -> Counter[int]:
        answers = await asyncio.gather(*(who.call("POST", path, **how) for _ in range(AT_ONCE)))
        return Counter(a.status_code for a in answers)

    assert await many(json=given) == {428: AT_ONCE}
    details = problem(await who.call("POST", path, json=given), 428, "VERSION_OR_KEY_REQUIRED")
    assert details == {"action": action}
    assert await done(district, number, action) == 0
    version = await seen(district, number)
    assert await many(json={**given, "version": version}) == {200: 1, 409: AT_ONCE - 1}
    assert await done(district, number, action) == 1
    assert await many(json=given, headers={"Idempotency-Key": new_id()}) == {200: AT_ONCE}
    assert await done(district, number, action) == 2
    if "children" in given:
        await district.settled(number)
        made = await district.services.database["reports"].count_documents({"parent": number})
        assert made == 2 * len(given["children"])


async def test_in_a_batch_it_takes_a_key(district):
    who, _, number, given = await standing(district, "redispatch")
    body = {"action": "redispatch", "numbers": [number], **given}
    (item,) = (await who.post("/reports/batch", body))["items"]
    assert (item["ok"], item["code"]) == (False, "VERSION_OR_KEY_REQUIRED")
    key = new_id()
    for _ in range(3):
        assert (await who.post("/reports/batch", body, key=key))["done"] == 1
    assert await done(district, number, "redispatch") == 1


async def test_what_a_case_holds_is_not_exceeded_by_many_at_once(district):
    """Notes beyond the longest timeline, and parts beyond the most: each by itself would fit."""
    who, path, number, given = await standing(district, "split")
    reports = district.services.database["reports"]
    report = await reports.find_one({"_id": number})
    filler = new_entry("note", "备注", "内部备注", System(""), report["state"], report["state"], report["updated_at"])
    long = [*report["timeline"], *({**filler, "id": new_id()} for _ in range(495 - len(report["timeline"])))]
    await reports.update_one({"_id": number}, {"$set": {"timeline": long, "children": ["9" * 20] * 45}})
    answers = await asyncio.gather(
        *(who.call("POST", f"/reports/{number}/actions/note", json={"note": "看过"}) for _ in range(20))
    )
    assert Counter(a.status_code for a in answers) == {200: 5, 409: 15}
    problem(next(a for a in answers if a.status_code == 409), 409, "TIMELINE_FULL")
    await reports.update_one({"_id": number}, {"$set": {"timeline": report["timeline"]}})
    asked = [who.call("POST", path, json=given, headers={"Idempotency-Key": new_id()}) for _ in range(20)]
    answers = await asyncio.gather(*asked)
    assert Counter(a.status_code for a in answers) == {200: 1, 409: 19}
    problem(next(a for a in answers if a.status_code == 409), 409, "TOO_MANY_CHILDREN")
    assert len((await reports.find_one({"_id": number}))["children"]) == 50
    await reports.delete_one({"_id": number})
