"""Merging duplicates: people and evidence come along; however many are merged at once, there is no circle."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from core.clock import now
from core.ids import new_id
from core.queue.debts import owe
from reports.lifecycle import blockers as relations
from reports.lifecycle import planner as planning
from reports.queries import ReportQueries
from reports.service import ReportService
from reports.states import State
from tests.api.support import accept_all, collector, problem, seen
from tests.district import Client, District, open_district
from tests.timing import until

CASES, MERGES = 14, 50


async def pair(district: District) -> tuple[Client, str, Client, str]:
    """Two citizens who report the same thing, one after the other: (first, number, second, number)."""
    first, second = await district.citizen(), await district.citizen()
    earlier = await district.submit(first)
    later = await district.submit(second, description="垃圾堆在路口，和昨天一样")
    await district.settled(earlier)
    await district.settled(later)
    return first, earlier, second, later


async def merge(district: District, number: str, into: str, who: str = "dispatcher", **more: Any) -> Any:
    return await district.action(who, number, "merge", into=into, reason="同一处垃圾", **more)


async def absorbed(district: District, number: str, into: str) -> dict[str, Any]:
    """The case ``into``, once ``number`` has arrived there."""
    await district.settled(number)
    case = await district.settled(into)
    assert number in case["absorbed"]
    return case


def evidence(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [e for e in case["timeline"] if e["action"] == "take_over"]


async def test_a_merged_case_goes_on_as_the_earlier_one_and_its_citizen_is_shown_where(district):
    first, earlier, second, later = await pair(district)
    detail = await merge(district, later, earlier)
    assert (detail["state"], detail["state_name"], detail["merged_into"]) == ("merged", "已并案", earlier)
    assert (detail["due"]["due_at"], detail["due"]["late"]) == (None, False)
    await absorbed(district, later, earlier)
    mine = await second.get(f"/reports/{later}")
    assert mine["merged"] == {"number": earlier, "state": "filed", "state_name": "已立案"}
    assert earlier in mine["timeline"][-1]["says"]
    await district.action("dispatcher", earlier, "dispatch", unit="sanitation")
    assert (await second.get(f"/reports/{later}"))["merged"]["state"] == "dispatched"
    assert (await first.get(f"/reports/{earlier}"))["merged"] is None
    shown = [e["action"] for e in (await first.get(f"/reports/{earlier}"))["timeline"]]
    assert shown == ["submit", "file", "absorb", "dispatch"], "another person's photos and words are not shown"
    assert (await (await district.staff("dispatcher")).get(f"/reports/{earlier}"))["absorbed"] == [later]


async def test_its_reporter_its_followers_and_its_evidence_come_along(district):
    _, earlier, second, later = await pair(district)
    follower = await district.citizen()
    await until(lambda: _public(district, later))
    await follower.post(f"/reports/{later}/follow")
    more = await second.photo()
    await second.post(f"/reports/{later}/supplements", {"note": "还有一袋在树后", "photo_ids": [more]})
    before = await district.settled(later)
    await merge(district, later, earlier)
    case = await absorbed(district, later, earlier)
    people = [second.facts["citizen_id"], follower.facts["citizen_id"]]
    assert sorted(case["followers"]) == sorted(people)
    reported, supplemented = evidence(case)
    assert (reported["note"], reported["photos"]) == (before["description"], before["photos"])
    assert (supplemented["note"], supplemented["photos"]) == ("还有一袋在树后", [more])
    assert not reported["shown"]
    assert second.facts["citizen_id"] not in str(case["timeline"]), "the other case does not tell who it was"
    assert case["version"] == len(case["timeline"])
    for photo_id in (*before["photos"], more):
        photo = await district.services.database["photos"].find_one({"_id": photo_id})
        assert {"kind": "report", "id": earlier} in photo["attached_to"]
        await until(partial(_passed, district, earlier, photo_id))
    assert [r["number"] for r in (await follower.get("/reports", followed=True))["reports"]] == [earlier]


async def _passed(district: District, number: str, photo_id: str) -> bool:
    return bool((await district.services[ReportService].get(number))["photo_verdicts"][photo_id] == "pass")


async def _public(district: District, number: str) -> bool:
    return bool((await district.services[ReportService].get(number))["public"])


async def test_what_becomes_of_the_case_is_told_to_all_of_them(district):
    first, earlier, second, later = await pair(district)
    for citizen in (first, second):
        await accept_all(district, citizen, 2)
    await merge(district, later, earlier)
    await absorbed(district, later, earlier)
    await district.action("dispatcher", earlier, "dispatch", unit="sanitation")
    case = await district.settled(earlier)
    told = {n["citizen_id"]: n["result"] for n in case["notices"] if n["event"] == "dispatched"}
    assert told == {c.facts["citizen_id"]: "sent" for c in (first, second)}


async def test_whoever_comes_when_it_has_just_been_closed_is_told_so(district):
    _, earlier, second, later = await pair(district)
    await accept_all(district, second, 1)
    await district.drive(earlier, "handled")
    case = await district.services[ReportService].get(later)
    target = await district.services[ReportService].get(earlier)
    await district.action("verifier", earlier, "close")
    await district.action("verifier", earlier, "note", note="电话告知过")  # which is not what they have missed
    # Decided on while the other was still open, written when it was closed.
    change = relations.merged_into(case, target)
    step, _ = await district.services[ReportService].plan(*await _merging_step(district, case, earlier))
    await district.services.database["reports"].update_one({"_id": later}, step.also(change).pipeline())
    closed = await absorbed(district, later, earlier)
    mine = [(n["event"], n["result"]) for n in closed["notices"] if n["citizen_id"] == second.facts["citizen_id"]]
    assert mine == [("closed", "sent")]


async def _merging_step(district: District, case: dict[str, Any], into: str) -> tuple[Any, ...]:
    from reports.lifecycle.table import rows
    from reports.models import Given, System

    return rows("merge", "staff")[0], case, System("试验"), Given(into=into, reason="同一处")


async def test_only_into_an_earlier_case_that_is_open_and_within_reach(district):
    _, earlier, _, later = await pair(district)
    staff = await district.staff("dispatcher")

    async def attempt(number: str, **body: Any) -> Any:
        return await staff.call("POST", f"/reports/{number}/actions/merge", json={"reason": "同一处", **body})

    problem(await attempt(earlier, into=later), 422, "MERGE_INTO_EARLIER")
    problem(await attempt(later, into=later), 422, "MERGE_INTO_EARLIER")
    problem(await attempt(later), 422, "INVALID")
    problem(await attempt(later, into="9" * 20), 404, "NO_SUCH_REPORT")
    await district.action("dispatcher", earlier, "void", reason="不属受理范围")
    assert problem(await attempt(later, into=earlier), 409, "TARGET_NOT_OPEN") == {"state": "void"}
    street = await district.staff("street-dispatcher")
    answer = await street.call("POST", f"/reports/{later}/actions/merge", json={"reason": "同一处", "into": earlier})
    problem(answer, 404, "NO_SUCH_REPORT")
    assert (await district.services[ReportService].get(later))["state"] == "filed"


async def test_what_is_merged_already_is_merged_into_no_more_but_leads_on(district):
    _, earlier, _, later = await pair(district)
    third = await district.citizen()
    last = await district.submit(third)
    await district.settled(last)
    await merge(district, later, earlier)
    staff = await district.staff("dispatcher")
    answer = await staff.call("POST", f"/reports/{last}/actions/merge", json={"reason": "同一处", "into": later})
    assert problem(answer, 409, "TARGET_MERGED") == {"merged_into": earlier}
    problem(await third.call("POST", f"/reports/{later}/follow", json={}), 409, "MERGED")
    listed = {r["number"] for r in (await third.get("/reports"))["reports"]}
    assert later not in listed


async def test_what_its_citizen_adds_later_is_passed_on_along_the_chain(district):
    citizens = [await district.citizen() for _ in range(3)]
    a, b, c = [await district.submit(citizen) for citizen in citizens]
    for number in (a, b, c):
        await district.settled(number)
    await merge(district, c, b)
    await absorbed(district, c, b)
    await merge(district, b, a)
    case = await absorbed(district, b, a)
    assert sorted(case["absorbed"]) == [b, c]
    assert sorted(case["followers"]) == sorted(p.facts["citizen_id"] for p in citizens[1:])
    assert {e["given"]["case"] for e in evidence(case)} == {b, c}
    done = await citizens[2].post(f"/reports/{c}/supplements", {"note": "今天又多了"})
    assert done["state"] == "merged"
    await district.settled(c)
    case = await district.settled(a)
    assert [e["note"] for e in evidence(case)][-1] == "今天又多了"
    assert len(evidence(case)) == 3
    # Whoever stops following the case that was merged stops following what it has become.
    answer = await citizens[2].call("DELETE", f"/reports/{c}/follow")
    assert answer.status_code == 204
    assert (await district.services[ReportService].get(a))["followers"] == [citizens[1].facts["citizen_id"]]


async def test_a_case_whose_earlier_one_is_given_up_before_it_arrives_goes_its_own_way_again(
    mongodb_url, redis_url, tmp_path
):
    """Between the merge and the worker's doing, the one who reported the earlier case takes it back."""
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"test_{new_id()}", worker=False) as place:
        first, second = await place.citizen(), await place.citizen()
        earlier = await place.submit(first, category="exposed_garbage", answers={})
        later = await place.submit(second, category="exposed_garbage", answers={})

        async def paid() -> None:
            while await collector(place, "reports").settle_due():
                pass

        await place.action("intake", later, "merge", into=earlier, reason="同一处垃圾")
        await first.post(f"/reports/{earlier}/withdrawal", {"reason": "已自行清理"})
        await paid()
        case = await (await place.staff("dispatcher")).get(f"/reports/{later}")
        # Back in the intake, and from there by the rules as if it had never been merged.
        assert (case["state"], case["unit"], case["merged_into"]) == ("dispatched", "sanitation", None)
        assert case["related"] == []
        assert case["due"]["due_at"] is not None
        steps = [step["action"] for step in case["timeline"]]
        assert steps[-3:] == ["unmerge", "file", "dispatch"]
        mine = await second.get(f"/reports/{later}")
        assert mine["merged"] is None
        assert earlier in next(e["says"] for e in mine["timeline"] if e["action"] == "unmerge")
        gone = await place.services[ReportService].get(earlier)
        assert (gone["state"], gone.get("absorbed", []), gone["followers"]) == ("withdrawn", [], [])
        # Paid again, as after a crash, nothing changes.
        await place.services.database["reports"].update_one({"_id": later}, {"$push": {"owed": owe("absorb")}})
        await paid()
        assert [e["action"] for e in (await place.services[ReportService].get(later))["timeline"]] == steps


async def test_staff_see_of_each_case_how_those_that_belong_to_it_stand(district):
    _, earlier, _, later = await pair(district)
    await merge(district, later, earlier)
    await absorbed(district, later, earlier)
    dispatcher = await district.staff("dispatcher")
    split = {"children": [{"description": "路口另一侧的垃圾单独清理"}], "reason": "分两处"}
    await dispatcher.post(f"/reports/{earlier}/actions/split", {**split, "version": await seen(district, earlier)})
    (child,) = (await district.settled(earlier))["children"]
    await district.settled(child)

    async def related(number: str) -> dict[str, tuple[str, str]]:
        found = (await dispatcher.get(f"/reports/{number}"))["related"]
        return {r["how"]: (r["number"], r["state_name"]) for r in found}

    assert await related(later) == {"merged_into": (earlier, "待派遣")}
    assert await related(earlier) == {"child": (child, "待派遣"), "absorbed": (later, "已并案")}
    assert await related(child) == {"parent": (earlier, "待派遣")}
    await district.action("dispatcher", child, "dispatch", unit="roads")
    assert (await related(earlier))["child"] == (child, "已派遣")
    # A unit sees how the whole stands, also while that is out of its reach.
    await district.action("dispatcher", earlier, "dispatch", unit="sanitation")
    roads = await district.staff("unit-roads")
    assert (await roads.get(f"/reports/{child}"))["related"][0]["state"] == "dispatched"
    problem(await roads.call("GET", f"/reports/{earlier}"), 404, "NO_SUCH_REPORT")


async def test_a_case_that_others_rely_on_cannot_be_withdrawn(district):
    first, earlier, _, later = await pair(district)
    await merge(district, later, earlier)
    await absorbed(district, later, earlier)
    answer = await first.call("POST", f"/reports/{earlier}/withdrawal", json={})
    assert problem(answer, 409, "HAS_ABSORBED")["absorbed"] == [later]


@pytest.mark.parametrize("repeated", [False, True])
async def test_a_merge_asked_twice_is_one(district, repeated):
    _, earlier, _, later = await pair(district)
    staff = await district.staff("dispatcher")
    body, key = {"into": earlier, "reason": "同一处"}, new_id()
    keys = [key] * 5 if repeated else [new_id() for _ in range(5)]
    answers = await asyncio.gather(
        *(
            staff.call("POST", f"/reports/{later}/actions/merge", json=body, headers={"Idempotency-Key": k})
            for k in keys
        )
    )
    assert sorted(a.status_code for a in answers) == ([200] * 5 if repeated else [200, 409, 409, 409, 409])
    case = await absorbed(district, later, earlier)
    assert [e["action"] for e in case["timeline"]].count("absorb") == 1
    assert len(evidence(case)) == 1


async def lost(district: District, numbers: list[str], people: dict[str, set[str]]) -> list[str]:
    """Who follows neither the case that theirs has become nor reported it."""
    reports = {n: await district.services[ReportService].get(n) for n in numbers}
    found = []
    for number, wanted in people.items():
        end = reports[number]
        seen = {number}
        while end["state"] == State.MERGED:
            end = reports[end["merged_into"]]
            assert end["_id"] not in seen, f"a circle: {seen}"
            seen.add(end["_id"])
        there = {end["reporter"]["citizen_id"], *end["followers"]}
        found += [f"{person} of {number} at {end['_id']}" for person in wanted - there]
    return found


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
async def test_fifty_merges_at_once_make_no_circle_and_lose_nobody(district, seed):
    rng = random.Random(seed)
    citizens = [await district.citizen() for _ in range(CASES)]
    numbers = [await district.submit(citizen) for citizen in citizens]
    people = {}
    for number, citizen in zip(numbers, citizens, strict=True):
        await until(partial(_public, district, number))
        follower = await district.citizen()
        await follower.post(f"/reports/{number}/follow")
        people[number] = {citizen.facts["citizen_id"], follower.facts["citizen_id"]}
    staff = [await district.staff(name) for name in ("dispatcher", "intake", "duty_chief")]
    pairs = [rng.sample(numbers, 2) for _ in range(MERGES)]
    pairs += [[b, a] for a, b in pairs[:10]]

    async def attempt(number: str, into: str) -> int:
        await asyncio.sleep(rng.uniform(0, 0.3))
        body = {"into": into, "reason": "同一处"}
        answer = await rng.choice(staff).call("POST", f"/reports/{number}/actions/merge", json=body)
        assert answer.status_code in (200, 409, 422), answer.text
        return int(answer.status_code)

    answers = await asyncio.gather(*(attempt(*each) for each in pairs))
    assert answers.count(200) >= CASES // 3
    for number in numbers:
        await district.settled(number)
    for number in numbers:  # what was passed on along a chain arrives later
        await district.settled(number)
    assert not await lost(district, numbers, people)
    reports = [await district.services[ReportService].get(n) for n in numbers]
    assert sum(r["state"] == "merged" for r in reports) == answers.count(200)
    for report in reports:
        assert len({e["id"] for e in report["timeline"]}) == len(report["timeline"]) == report["version"]
        if report["state"] != "merged":
            cases = [n for n in numbers if await _end(district, n) == report["_id"] and n != report["_id"]]
            assert sorted(report.get("absorbed", [])) == sorted(cases)
            assert {e["given"]["case"] for e in evidence(report)} == set(cases)


async def _end(district: District, number: str) -> str:
    report = await district.services[ReportService].get(number)
    return str((await district.services[ReportQueries].end_of(report))["_id"])


async def test_without_the_rule_two_merges_at_once_make_a_circle(district, monkeypatch):
    """The control: if a case could be merged into a later one, A into B and B into A would both be done."""
    _, earlier, _, later = await pair(district)
    reports = district.services[ReportService]
    both = asyncio.Barrier(2)
    gathered = reports._within_reach

    async def at_once(number: str, actor: Any) -> Any:
        found = await gathered(number, actor)
        await both.wait()
        return found

    def any_case(report: dict[str, Any], target: dict[str, Any]) -> Any:
        return rule({**report, "created_at": now()}, target)

    rule = relations.merged_into
    monkeypatch.setattr(reports, "_within_reach", at_once)
    monkeypatch.setattr("reports.service.merged_into", any_case)
    # The worker would go round for ever: it is not to see them.
    monkeypatch.setattr(planning, "owe", lambda kind, **more: owe(kind, delay=timedelta(hours=1), **more))
    staff = await district.staff("dispatcher")
    answers = await asyncio.gather(
        *(
            staff.call("POST", f"/reports/{a}/actions/merge", json={"into": b, "reason": "同一处"})
            for a, b in ((earlier, later), (later, earlier))
        )
    )
    assert [a.status_code for a in answers] == [200, 200]
    monkeypatch.undo()
    for number, other in ((earlier, later), (later, earlier)):
        assert (await reports.get(number))["merged_into"] == other
        await district.services.database["reports"].update_one({"_id": number}, {"$set": {"owed": [], "state": "void"}})
