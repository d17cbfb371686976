"""Splitting a case: each part is a case of the same flow, and the whole waits until all of them are over."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from core.ids import new_id
from reports.service import ReportService
from tests.api.support import problem, seen
from tests.district import Client, District
from tests.timing import until

PARTS: list[dict[str, Any]] = [
    {"description": "东侧的建筑垃圾需要清运", "category": "exposed_garbage"},
    {"description": "西侧的路面坑洼需要修补", "category": "other", "unit": "roads"},
]


async def divided(district: District, to: str = "accepted", parts: list[dict[str, Any]] | None = None) -> list[str]:
    """The numbers of a case in the state ``to`` and of the children that it was split into, all settled."""
    number = await district.submit(await district.citizen())
    await district.drive(number, to)
    given = {"children": parts or PARTS, "reason": "两处问题", "version": await seen(district, number)}
    detail = await district.action("duty_chief", number, "split", **given)
    await district.settled(number)
    for child in detail["children"]:
        await until(partial(district.services.database["reports"].find_one, {"_id": child}))
        await district.settled(child)
    return [number, *detail["children"]]


async def refused(district: District, number: str, action: str, code: str, who: str = "duty_chief", **body: Any) -> Any:
    staff = await district.staff(who)
    return problem(await staff.call("POST", f"/reports/{number}/actions/{action}", json=body), 409, code)


async def handle(district: District, number: str, unit: str) -> None:
    photo = await (await district.staff(f"unit-{unit}")).photo()
    await district.action(f"unit-{unit}", number, "handle", note="已处理", photo_ids=[photo])


async def open_children(district: District, number: str) -> list[str]:
    return list((await district.services[ReportService].get(number))["open_children"])


async def told(district: District, number: str, expected: list[str]) -> None:
    async def so() -> bool:
        return sorted(await open_children(district, number)) == sorted(expected)

    await until(so)


async def test_each_part_is_a_case_of_its_own_that_goes_its_own_way(district):
    citizen = await district.citizen()
    number = await district.submit(citizen, anonymous=True)
    before = await district.settled(number)
    await district.drive(number, "accepted")
    version = await seen(district, number)
    detail = await district.action("duty_chief", number, "split", children=PARTS, reason="两处问题", version=version)
    assert detail["state"] == "accepted"
    assert len(detail["children"]) == 2
    assert detail["open_children"] == detail["children"]
    assert all(child > number for child in detail["children"])
    await district.settled(number)
    first, second = [await district.settled(child) for child in detail["children"]]
    assert (first["state"], first["unit_id"]) == ("dispatched", "sanitation"), "by the rule of its category"
    assert (second["state"], second["unit_id"]) == ("dispatched", "roads"), "to the unit that was named"
    for child, part in zip((first, second), PARTS, strict=True):
        assert (child["parent"], child["channel"], child["description"]) == (number, "split", part["description"])
        assert child["areas"] == before["areas"]
        assert child["photos"] == before["photos"]
        assert child["followers"] == [citizen.facts["citizen_id"]]
        photo = await district.services.database["photos"].find_one({"_id": child["photos"][0]})
        assert {"kind": "report", "id": child["_id"]} in photo["attached_to"]
        shown = await (await district.staff("duty_chief")).get(f"/reports/{child['_id']}")
        assert (shown["parent"], shown["reporter"], shown["contact_phone"]) == (number, f"拆分自案件 {number}", None)
    mine = (await citizen.get("/reports", mine=True))["reports"]
    assert [r["number"] for r in mine] == [number], "the citizen has reported one thing, and follows its parts"
    followed = (await citizen.get("/reports", followed=True))["reports"]
    assert {r["number"] for r in followed} == set(detail["children"])
    says = (await citizen.get(f"/reports/{number}"))["timeline"][-1]["says"]
    assert all(child in says for child in detail["children"])


async def test_the_whole_is_handled_and_closed_only_when_all_its_parts_are_over(district):
    number, one, other = await divided(district)
    details = await refused(
        district, number, "handle", "CHILDREN_OPEN", "unit-sanitation", note="已处理",
        photo_ids=[await (await district.staff("unit-sanitation")).photo()],
    )  # fmt: skip
    assert sorted(details["open_children"]) == sorted([one, other])
    await refused(district, number, "merge", "CHILDREN_OPEN", into="9" * 20, reason="同一处")
    await district.action("unit-sanitation", one, "accept")
    await handle(district, one, "sanitation")
    await district.action("verifier", one, "close")
    await told(district, number, [other])
    await refused(district, number, "handle", "CHILDREN_OPEN", "unit-sanitation", note="已处理", photo_ids=[])
    await district.action("unit-roads", other, "refuse", reason="不归我们管")
    await district.action("duty_chief", other, "void", reason="并无此事")
    await told(district, number, [])
    await handle(district, number, "sanitation")
    # A part that is sent back is open again: now the whole is not closed.
    await district.action("verifier", one, "rework", reason="还有残留")
    await told(district, number, [one])
    await refused(district, number, "close", "CHILDREN_OPEN")
    await handle(district, one, "sanitation")
    await district.action("verifier", one, "close")
    await told(district, number, [])
    await district.action("verifier", number, "close")
    case = await district.settled(number)
    news = [e["says"] for e in case["timeline"] if e["action"] == "child_changed"]
    assert news == [f"拆分出的案件 {one} 已结案", f"拆分出的案件 {other} 已作废", f"拆分出的案件 {one} 返工中", news[0]]
    assert case["version"] == len(case["timeline"])


async def test_a_part_that_is_merged_into_another_case_is_over(district):
    target = await district.submit(await district.citizen())
    await district.settled(target)
    number, one, other = await divided(district)
    await district.action("dispatcher", one, "merge", into=target, reason="同一处")
    await told(district, number, [other])
    case = await district.settled(target)
    assert PARTS[0]["description"] in [e["note"] for e in case["timeline"] if e["action"] == "take_over"]


async def test_what_is_left_of_a_closed_case_goes_on_as_a_case_of_its_own(district):
    citizen = await district.citizen()
    number = await district.submit(citizen)
    await district.drive(number, "closed")
    await citizen.post(f"/reports/{number}/rating", {"resolved": "partly", "score": 3, "comment": "还剩一半"})
    rest = {"description": "剩下的一半垃圾继续清理"}
    staff = await district.staff("verifier")
    both = {"children": [rest, rest], "reason": "部分解决", "version": await seen(district, number)}
    problem(await staff.call("POST", f"/reports/{number}/actions/keep_rest", json=both), 422, "INVALID")
    detail = await district.action("verifier", number, "keep_rest", **{**both, "children": [rest]})
    assert detail["state"] == "rated"
    await district.settled(number)
    child = await district.settled(detail["children"][0])
    assert (child["state"], child["category"], child["parent"]) == ("filed", "other", number)
    assert child["followers"] == [citizen.facts["citizen_id"]]


async def test_a_split_that_is_not_in_order_is_refused_and_makes_nothing(district):
    number = await district.submit(await district.citizen())
    await district.drive(number, "accepted")
    staff = await district.staff("duty_chief")
    before = await district.settled(number)

    async def attempt(children: list[dict[str, Any]]) -> Any:
        body = {"children": children, "reason": "两处问题", "version": before["version"]}
        return await staff.call("POST", f"/reports/{number}/actions/split", json=body)

    problem(await attempt([]), 422, "INVALID")
    problem(await attempt([PARTS[0]] * 11), 422, "INVALID")
    problem(await attempt([{**PARTS[0], "category": "no_such"}]), 422, "NO_SUCH_CATEGORY")
    problem(await attempt([{**PARTS[0], "unit": "no_such"}]), 422, "NO_SUCH_UNIT")
    problem(await attempt([{"description": "短"}]), 422, "INVALID")
    assert (await district.services[ReportService].get(number))["version"] == before["version"]


async def test_a_split_asked_twice_with_one_key_is_one(district):
    number = await district.submit(await district.citizen())
    await district.drive(number, "accepted")
    staff: Client = await district.staff("duty_chief")
    body, key = {"children": PARTS, "reason": "两处问题"}, new_id()
    answers = await asyncio.gather(*(staff.post(f"/reports/{number}/actions/split", body, key=key) for _ in range(5)))
    assert len({tuple(a["children"]) for a in answers}) == 1
    await district.settled(number)
    assert await district.services.database["reports"].count_documents({"parent": number}) == 2


@pytest.mark.parametrize("rounds", [10])
async def test_what_a_part_tells_late_or_twice_does_not_undo_what_is_known(district, rounds):
    """The worker may be told in any order: an old state of the child changes nothing."""
    number, one, other = await divided(district)
    payers = _splitting(district)
    old = await district.services[ReportService].get(one)
    await district.action("unit-sanitation", one, "accept")
    await handle(district, one, "sanitation")
    await district.action("verifier", one, "close")
    await told(district, number, [other])
    known = await district.settled(number)
    closed = await district.services[ReportService].get(one)
    for report in [old, closed] * rounds:
        await payers.pay_tell_parent(report, {})
    assert await district.services[ReportService].get(number) == known


def _splitting(district: District) -> Any:
    from reports.relations.split import Splitting

    return Splitting(district.services.database, district.services[ReportService])
