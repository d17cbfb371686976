"""Every endpoint as everybody: who is let in is what the endpoint declares and the roles in the database say.

The endpoints are those of the application's own table of routes, so a new one is tried from the day it is there.
"""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
import structlog

from core.ids import new_id, new_token
from handlers.operations import METHODS, PATH_PARAMETERS, Operation, Route
from reports.rules import ACTIONS, TRANSITIONS, rows
from server.application import ROUTES
from tests.api.support import problem, until
from tests.district import PASSWORD, UNITS, Client, District, location, picture

IN_FIRST_STREET = (113.2400, 23.1450)
"""Where the street-dispatcher works; the district's other reports lie in another street."""
PHONE = "13912345678"
CLEAR_PHONE = re.compile(r"(?<![0-9A-Za-z])1[3-9]\d{9}(?![0-9A-Za-z])")

OPERATIONS = [(route, method, op) for route in ROUTES for method, op in route.operations.items()]
# The citizen's own data in clear are the whole point of it.
SHOWS_OWN_PHONE = {("/api/v1/me/export", "get")}


def role_accounts(roles) -> dict[str, str]:
    """Role key to the name of an account that has this role alone."""
    return {role.key: f"unit-{UNITS[0]}" if role.key == "unit" else role.key for role in roles}


@pytest.fixture(scope="module")
async def victim(district):
    """A citizen who gave a phone, with a report that gives one too."""
    citizen = await district.citizen()
    code = await district.control("GET", "/phone-code", user=citizen.facts["name"], phone=PHONE)
    assert (await citizen.post("/me/phone", {"code": code["code"]}))["phone"] == "139****5678"
    number = await district.submit(citizen, contact_phone=PHONE)
    await district.drive(number, "accepted")
    await district.settled(number)
    citizen.facts |= {"number": number, "photo_id": await citizen.photo()}
    return citizen


class Caller:
    """Somebody of one kind. For what ends a session or an account there is a fresh one each time."""

    def __init__(self, district: District, kind: str) -> None:
        self.district = district
        self.kind = kind
        self._kept: Client | None = None

    async def client(self, *, fresh: bool) -> Client:
        if fresh:
            return await self._make()
        self._kept = self._kept or await self._make()
        return self._kept

    async def _make(self) -> Client:
        nobody = self.district.nobody("")
        if self.kind == "nobody":
            return nobody
        if self.kind == "stranger":
            return Client(self.district.http, "", new_token())
        if self.kind == "citizen":
            return Client(self.district.http, "", (await self.district.citizen()).token)
        opened = await nobody.post("/admin/api/v1/session", {"username": self.kind, "password": PASSWORD})
        return Client(self.district.http, "", opened["token"])


def address(route: Route, facts: dict[str, Any]) -> str:
    """The route's path with the parameters of real things."""
    values = {
        "number": facts["number"],
        "photo_id": facts["photo_id"],
        "action": "no_such_action",  # each real one has its own permission: see the test of actions
        "docs_file": "start.js",
        "size": "thumb",
    }
    assert values.keys() == PATH_PARAMETERS.keys(), "say here what a new path parameter may be"
    return route.path.format(**values)


def refusal(answer: httpx.Response) -> str | None:
    """Why the door was shut, None when it was open (whatever was then said to the empty request)."""
    if answer.status_code not in (401, 403):
        return None
    code = str(answer.json()["code"])
    return code if code in {"NOT_SIGNED_IN", "SESSION_EXPIRED", "NO_PERMISSION", "NOT_YOURS_TO_DO"} else None


def expected(declared: Operation, kind: str, permissions: frozenset[str]) -> str | None:
    """What the declaration says to a caller of ``kind``, who holds ``permissions`` if staff."""
    if declared.audience == "anyone":
        return None
    if kind == "nobody":
        return "NOT_SIGNED_IN"
    if declared.audience != ("citizen" if kind == "citizen" else "nobody" if kind == "stranger" else "staff"):
        return "SESSION_EXPIRED"
    return None if declared.permission is None or declared.permission in permissions else "NO_PERMISSION"


async def test_everybody_at_every_endpoint_is_let_in_or_refused_as_declared(district, victim):
    roles = await district.services.staff.roles()
    held = {kind: frozenset[str]() for kind in ("nobody", "stranger", "citizen")}
    by_key = {role.key: frozenset(role.permissions) for role in roles}
    held |= {account: by_key[key] for key, account in role_accounts(roles).items()}
    callers = {kind: Caller(district, kind) for kind in held}
    wrong, leaks, tried = [], [], 0
    with structlog.testing.capture_logs() as logs:
        for route, method, declared in OPERATIONS:
            for kind, caller in callers.items():
                client = await caller.client(fresh=method == "delete")
                body: Any = {} if method in ("post", "put", "patch") else None
                answer = await client.call(method.upper(), address(route, victim.facts), json=body)
                tried += 1
                assert answer.status_code < 500, answer.text
                wanted = expected(declared, kind, held[kind])
                if refusal(answer) != wanted:
                    wrong.append((route.path, method, kind, wanted, answer.status_code, answer.text[:200]))
                if (route.path, method) not in SHOWS_OWN_PHONE and CLEAR_PHONE.search(answer.text):
                    leaks.append((route.path, method, kind))
    assert not wrong
    assert not leaks
    assert tried == len(OPERATIONS) * len(callers) > 300
    assert len([e for e in logs if e.get("logger") == "access" or e["event"] == "request"]) >= tried
    assert not CLEAR_PHONE.search(json.dumps(logs, default=str))
    assert (await district.services.database["reports"].find_one({"_id": victim.facts["number"]}))["version"] == 4


def test_a_door_left_open_is_seen():
    """The control: the expectation tells the kinds apart, and the phone pattern finds a phone."""
    route, declared = next((r, op) for r, m, op in OPERATIONS if r.path == "/admin/api/v1/directory" and m == "get")
    assert declared.permission == "report.view", route
    said = {
        kind: expected(declared, kind, permissions)
        for kind, permissions in {
            "nobody": frozenset[str](),
            "stranger": frozenset[str](),
            "citizen": frozenset({"report.view"}),
            "assessor": frozenset({"report.view"}),
            "somebody": frozenset({"report.note"}),
        }.items()
    }
    assert said == {
        "nobody": "NOT_SIGNED_IN",
        "stranger": "SESSION_EXPIRED",
        "citizen": "SESSION_EXPIRED",
        "assessor": None,
        "somebody": "NO_PERMISSION",
    }
    assert CLEAR_PHONE.search(f'{{"phone":"{PHONE}"}}')
    assert not CLEAR_PHONE.search('{"phone":"139****5678","number":"99010120261122000001"}')


async def test_every_method_that_an_endpoint_does_not_have_is_refused_as_such(district, victim):
    for route in ROUTES:
        for method in set(METHODS) - route.operations.keys():
            answer = await district.nobody("").call(method.upper(), address(route, victim.facts))
            details = problem(answer, 405, "METHOD_NOT_ALLOWED")
            assert {m.lower() for m in details["allowed"]} == route.operations.keys()


async def test_every_action_is_open_to_exactly_the_roles_that_hold_it(district, victim):
    roles = await district.services.staff.roles()
    assert {p for r in roles for p in r.permissions} >= {t.permission for t in TRANSITIONS if "staff" in t.actors}
    for role in roles:
        client = await district.staff(role_accounts(roles)[role.key])
        for action in sorted(ACTIONS):
            # A version that the case never had: who is let in is told 409 and changes nothing.
            path = f"/reports/{victim.facts['number']}/actions/{action}"
            answer = await client.call("POST", path, json={"version": 10**6})
            if not rows(action, "staff"):
                problem(answer, 403, "NOT_YOURS_TO_DO")
            elif f"report.{action}" in role.permissions:
                problem(answer, 409, "STALE_STATE")
            else:
                assert problem(answer, 403, "NO_PERMISSION") == {"permission": f"report.{action}"}


async def test_a_role_that_is_changed_in_the_database_counts_at_once(district, victim):
    staff = district.services.staff
    assessor = next(r for r in await staff.roles() if r.key == "assessor")
    client = await district.staff("assessor")
    path = f"/reports/{victim.facts['number']}/actions/note"
    problem(await client.call("POST", path, json={"version": 10**6}), 403, "NO_PERMISSION")
    try:
        await staff.put_role(assessor.model_copy(update={"permissions": [*assessor.permissions, "report.note"]}))
        problem(await client.call("POST", path, json={"version": 10**6}), 409, "STALE_STATE")
        await staff.put_role(assessor.model_copy(update={"permissions": []}))
        problem(await client.call("GET", f"/reports/{victim.facts['number']}"), 403, "NO_PERMISSION")
    finally:
        await staff.put_role(assessor)


async def listed(client: Client, **query: Any) -> set[str]:
    """The numbers of every page of a list."""
    found: set[str] = set()
    page: dict[str, str] = {}
    while True:
        answer = await client.get("/reports", **query, **page)
        found |= {r["number"] for r in answer["reports"]}
        if answer["next_page"] is None:
            return found
        page = {"page": answer["next_page"]}


async def assert_out_of_reach(client: Client, number: str, action: str, body: dict[str, Any]) -> None:
    """The case is not in the list, and every way to it answers as if it were not there."""
    assert number not in await listed(client)
    problem(await client.call("GET", f"/reports/{number}"), 404, "NO_SUCH_REPORT")
    problem(await client.call("POST", f"/reports/{number}/actions/{action}", json=body), 404, "NO_SUCH_REPORT")
    problem(await client.call("POST", f"/reports/{number}/contact", json={"reason": "回访"}), 404, "NO_SUCH_REPORT")


async def test_staff_of_a_street_see_and_act_on_the_cases_of_their_street_only(district):
    dispatcher = await district.staff("street-dispatcher")
    inside = await district.submit(await district.citizen(), location=location(*IN_FIRST_STREET))
    outside = await district.submit(await district.citizen())
    report = await district.settled(inside)
    await district.settled(outside)
    assert set(dispatcher.facts["staff"]["areas"]) < set(report["areas"])
    await assert_out_of_reach(dispatcher, outside, "dispatch", {"unit": "roads"})
    found = await listed(dispatcher)
    assert inside in found
    mine = {"areas": dispatcher.facts["staff"]["areas"][0]}
    assert found == {r["_id"] async for r in district.services.database["reports"].find(mine, {"_id": 1})}
    # Asking for another street's cases by the filter does not widen the reach either.
    elsewhere = (await district.settled(outside))["areas"][1]
    assert await listed(dispatcher, street=elsewhere) == set()
    done = await district.action("street-dispatcher", inside, "dispatch", unit="roads")
    assert done["state"] == "dispatched"


async def test_a_unit_sees_and_acts_on_its_own_cases_only(district):
    citizen = await district.citizen()
    number = await district.submit(citizen, contact_phone=PHONE)
    await district.settled(number)
    roads, sanitation = await district.staff("unit-roads"), await district.staff("unit-sanitation")
    for unit in (roads, sanitation):
        await assert_out_of_reach(unit, number, "note", {"note": "看看"})
    await district.drive(number, "dispatched")
    await assert_out_of_reach(roads, number, "accept", {})
    assert await listed(roads, unit="sanitation") == set()
    assert number in await listed(sanitation)
    assert (await sanitation.get(f"/reports/{number}"))["contact_phone"] == "139****5678"
    assert (await sanitation.post(f"/reports/{number}/contact", {"reason": "核实位置"}))["phone"] == PHONE
    await sanitation.post(f"/reports/{number}/actions/refuse", {"reason": "不归我们管"})
    await assert_out_of_reach(sanitation, number, "accept", {})


async def test_looking_at_a_phone_is_recorded_and_refused_looks_are_not_answered(district):
    number = await district.submit(await district.citizen(), contact_phone=PHONE, anonymous=True)
    await district.drive(number, "dispatched")
    unit, chief = await district.staff("unit-sanitation"), await district.staff("duty_chief")
    shown = await unit.get(f"/reports/{number}")
    assert (shown["contact_phone"], shown["reporter"]) == (None, "匿名")
    answer = await unit.call("POST", f"/reports/{number}/contact", json={"reason": "核实位置"})
    problem(answer, 403, "ANONYMOUS_REPORT")
    assert (await chief.post(f"/reports/{number}/contact", {"reason": "核实位置"}))["phone"] == PHONE
    audit = district.services.database["audit"]
    looks = [a async for a in audit.find({"object.id": number, "action": "report.view_contact"})]
    assert [(a["subject"]["id"], a["reason"]) for a in looks] == [(chief.facts["staff"]["staff_id"], "核实位置")]


async def test_no_answer_about_a_case_shows_the_phone_whoever_asks(district, victim):
    number = victim.facts["number"]
    roles = await district.services.staff.roles()
    staff = [await district.staff(account) for account in role_accounts(roles).values()]
    for client in [victim, await district.citizen(), *staff]:
        for path in (f"/reports/{number}", "/reports", f"/reports?number={number}&size=1", "/reports?mine=true", "/me"):
            assert not CLEAR_PHONE.search((await client.call("GET", path)).text), path
    # The control: the owner's own export does show it, so the pattern is able to find it.
    assert CLEAR_PHONE.search((await victim.call("GET", "/me/export")).text)


async def assert_hidden(district, number: str, other: Client) -> None:
    """Another citizen meets the report on no way."""
    problem(await other.call("GET", f"/reports/{number}"), 404, "NO_SUCH_REPORT")
    problem(await other.call("POST", f"/reports/{number}/follow", json={}), 404, "NO_SUCH_REPORT")
    report = await district.services.database["reports"].find_one({"_id": number})
    longitude, latitude = report["location"]["coordinates"]
    assert number not in await listed(other)
    assert number not in await listed(other, status=report["state"])
    assert number not in await listed(other, near=f"{longitude},{latitude}", metres=1)
    similar = await other.get("/reports/similar", longitude=longitude, latitude=latitude, crs="wgs84")
    assert number not in {r["number"] for r in similar["reports"]}


async def test_a_checked_report_is_seen_by_others_until_it_is_void_or_withdrawn(district):
    citizen, other = await district.citizen(), await district.citizen()
    # Places of their own, since lists by distance give the nearest fifty.
    places = [location(113.2650 + i / 5000, 23.1650) for i in range(2)]
    numbers = [await district.submit(citizen, location=place) for place in places]
    for number, place in zip(numbers, places, strict=True):
        await district.settled(number)
        assert (await other.get(f"/reports/{number}"))["mine"] is False
        assert number in await listed(other, near=f"{place['longitude']},{place['latitude']}", metres=1)
    await district.action("intake", numbers[0], "void", reason="重复上报")
    await citizen.post(f"/reports/{numbers[1]}/withdrawal", {})
    for number in numbers:
        await district.settled(number)
        await assert_hidden(district, number, other)
        assert (await citizen.get(f"/reports/{number}"))["mine"] is True


@pytest.mark.parametrize("words", ["有人在这里聚众赌博闹得很晚", "这里有人发贷款小广告贴满墙"])
async def test_a_report_whose_words_did_not_pass_the_check_is_seen_by_its_reporter_and_staff_alone(district, words):
    citizen, other = await district.citizen(), await district.citizen()
    number = await district.submit(citizen, description=words)
    assert (await district.settled(number))["public"] is False
    await assert_hidden(district, number, other)
    assert (await citizen.get(f"/reports/{number}"))["description"] == words
    assert (await (await district.staff("intake")).get(f"/reports/{number}"))["description"] == words


async def test_what_is_added_later_is_shown_to_others_only_when_it_passed_the_check(district):
    citizen, other = await district.citizen(), await district.citizen()
    number = await district.submit(citizen)
    await district.settled(number)
    for note in ("又多了一袋垃圾", "旁边有人赌博"):
        await citizen.post(f"/reports/{number}/supplements", {"note": note})
    await district.settled(number)
    await district.drive(number, "closed")
    await citizen.post(f"/reports/{number}/rating", {"resolved": "no", "score": 1, "comment": "傻逼"})
    await district.action("verifier", number, "note", note="只给内部看的备注")
    await district.settled(number)
    notes = {}
    for name, client in (("reporter", citizen), ("other", other)):
        shown = await client.get(f"/reports/{number}")
        notes[name] = {s["note"] for s in shown["timeline"] if s["note"]} | {shown["rating"]["comment"]}
        assert "只给内部看的备注" not in json.dumps(shown, ensure_ascii=False)
    assert notes["reporter"] == {"又多了一袋垃圾", "旁边有人赌博", "已清理", "傻逼"}
    assert notes["other"] == {"又多了一袋垃圾", "已清理", None}


async def test_a_photo_is_shown_to_others_only_when_it_passed_the_check(district):
    citizen, other = await district.citizen(), await district.citizen()
    await district.control(
        "POST", "/verdicts", {"kind": "image", "suggest": "risky", "openid": citizen.facts["openid"], "times": 1}
    )
    risky = await citizen.photo()
    photos = district.services.database["photos"]

    async def judged(photo_id: str) -> bool:
        return await photos.find_one({"_id": photo_id, "check.verdict": {"$ne": "pending"}}) is not None

    await until(lambda: judged(risky))
    fine = await citizen.photo()
    await until(lambda: judged(fine))
    number = await district.submit(citizen, photo_ids=[risky, fine])
    report = await district.settled(number)
    assert report["photo_verdicts"] == {risky: "risky", fine: "pass"}

    async def seen_by(client: Client) -> list[str]:
        return [p["photo_id"] for p in (await client.get(f"/reports/{number}"))["photos"]]

    assert await seen_by(other) == [fine]
    assert await seen_by(citizen) == await seen_by(await district.staff("intake")) == [risky, fine]
    assert risky not in (await other.call("GET", "/reports")).text


async def test_photos_of_others_cannot_be_used_and_are_not_told_from_ones_that_are_not_there(district, victim):
    citizen = await district.citizen()
    texts = set()
    for photo_id in (victim.facts["photo_id"], new_id()):
        body = {"description": "人行道上有一堆垃圾没人清理", "photo_ids": [photo_id], "location": location()}
        answer = await citizen.call("POST", "/reports", json=body)
        assert problem(answer, 422, "PHOTO_UNKNOWN") == {"photo_ids": [photo_id]}
        texts.add(answer.json()["message"])
    assert len(texts) == 1
    # Nor a citizen's by staff, nor staff's by a citizen.
    unit = await district.staff("unit-sanitation")
    path = f"/reports/{victim.facts['number']}/actions/handle"
    answer = await unit.call("POST", path, json={"note": "已清理", "photo_ids": [victim.facts["photo_id"]]})
    problem(answer, 422, "PHOTO_UNKNOWN")
    answer = await victim.call(
        "POST", f"/reports/{victim.facts['number']}/supplements", json={"photo_ids": [await unit.photo()]}
    )
    problem(answer, 422, "PHOTO_UNKNOWN")


async def test_a_photos_file_is_given_only_by_its_own_signed_address(district):
    citizen = await district.citizen()
    taken = await citizen.call("POST", "/photos", files={"photo": ("p.jpg", picture(), "image/jpeg")})
    link = taken.json()["photo"]["thumb"]
    other = await citizen.photo()
    photo_id = taken.json()["photo_id"]
    assert (await district.http.get(link)).headers["Content-Type"] == "image/jpeg"
    expires = int(httpx.URL(link).params["expires"])
    for forged in (
        link.replace("/thumb?", "/large?"),
        link.replace(photo_id, other),
        link.replace(f"expires={expires}", f"expires={expires + 60}"),
        link[:-1] + ("0" if link[-1] != "0" else "1"),
    ):
        assert forged != link
        problem(await district.http.get(forged), 403, "PHOTO_LINK")
    problem(await district.http.get(link.partition("?")[0]), 422, "INVALID")
    # Being signed in is no address: not even its owner's token opens it.
    problem(await citizen.call("GET", f"~/photos/{photo_id}/thumb"), 422, "INVALID")


async def test_a_citizen_cannot_act_on_anothers_report(district, victim):
    other = await district.citizen()
    number = victim.facts["number"]
    assert (await other.get(f"/reports/{number}"))["actions"] == []
    for path, body in (
        ("supplements", {"note": "我也看到了"}),
        ("withdrawal", {}),
        ("rating", {"resolved": "yes", "score": 5}),
    ):
        answer = await other.call("POST", f"/reports/{number}/{path}", json=body)
        problem(answer, 404, "NO_SUCH_REPORT")
