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

from accounts.models import Role
from accounts.roles import starting_roles
from accounts.staff import StaffService
from core.ids import new_id, new_token
from handlers.operations import METHODS, Operation, Route
from reports.lifecycle.table import ACTIONS, TRANSITIONS, rows
from server.rooms import ROOMS, path_parameters_of, routes_of
from tests.api.support import problem
from tests.district import Client, District
from tests.seeding import PASSWORD, UNITS

ROUTES = routes_of(ROOMS)
PARAMETERS = path_parameters_of(ROOMS)
PHONE = "13912345678"
CLEAR_PHONE = re.compile(r"(?<![0-9A-Za-z])(?:86)?1[3-9]\d{9}(?![0-9A-Za-z])")

OPERATIONS = [(route, method, op) for route in ROUTES for method, op in route.operations.items()]
# The citizen's own data in clear are the whole point of it.
SHOWS_OWN_PHONE = {("/api/v1/me/export", "get")}


def role_accounts(roles) -> dict[str, str]:
    """Role key to the name of an account that has this role alone."""
    return {role.key: f"unit-{UNITS[0]}" if role.key == "unit" else role.key for role in roles}


async def roles_with_accounts(district: District) -> list[Role]:
    """Those that a district starts with; other tests may have made more, which nobody has."""
    known = {role.key for role in starting_roles()}
    return [role for role in await district.services[StaffService].roles() if role.key in known]


async def citizen_with_phone(district: District) -> Client:
    """A new citizen who has told their phone."""
    citizen = await district.citizen()
    code = await district.control("GET", "/phone-code", user=citizen.facts["name"], phone=PHONE)
    assert (await citizen.post("/me/phone", {"code": code["code"]}))["phone"] == "139****5678"
    return citizen


@pytest.fixture(scope="module")
async def victim(district):
    """A citizen who gave a phone, with a report that gives one too."""
    citizen = await citizen_with_phone(district)
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
            return Client(self.district.http, "", (await citizen_with_phone(self.district)).token)
        opened = await nobody.post("/admin/api/v1/session", {"username": self.kind, "password": PASSWORD})
        return Client(self.district.http, "", opened["token"])


def address(route: Route, facts: dict[str, Any]) -> str:
    """The route's path with the parameters of real things."""
    values = {
        "number": facts["number"],
        "photo_id": facts["photo_id"],
        "action": "no_such_action",  # each real one has its own permission: see the test of actions
        "staff_id": new_id(),
        "session_id": new_id(),
        "role_key": "no_such_role",
        "unit_key": "no_such_unit",
        "day": "2026-10-01",
        "indicator": "handling_rate",
        "category_key": "no_such_category",
        "area_code": "990101",
        "delegation_id": new_id(),
        "task_id": facts["photo_id"],
        "rule_key": "no_such_rule",
        "notice_id": new_id(),
        "docs_file": "start.js",
        "file": "thumb",
        "format": "json",
        "service_code": "other",
        "service_request_id": facts["number"],
        "token": facts["number"],
        "job_id": new_id(),
        "external_number": "HL-1",
        "webhook_id": new_id(),
        "delivery_id": f"{new_id()}-1",
        "source_key": "no_such_source",
        "camera_id": "no_such_source:1",
        "snapshot_id": new_id(),
        "topic_id": "99010120261101000001",
    }
    assert values.keys() == PARAMETERS.keys(), "say here what a new path parameter may be"
    return route.path.format(**values)


def refusal(answer: httpx.Response) -> str | None:
    """Why the door was shut, None when it was open (whatever was then said to the empty request)."""
    if answer.status_code not in (401, 403):
        return None
    code = str(answer.json()["code"])
    shut = {"NOT_SIGNED_IN", "SESSION_EXPIRED", "NO_PERMISSION", "NOT_YOURS_TO_DO", "API_KEY_INVALID"}
    return code if code in shut else None


def expected(declared: Operation, kind: str, permissions: frozenset[str]) -> str | None:
    """What the declaration says to a caller of ``kind``, who holds ``permissions`` if staff."""
    if declared.audience == "anyone":
        return None
    if kind == "nobody":
        return "NOT_SIGNED_IN"
    if declared.audience == "partner":
        return "API_KEY_INVALID"
    if declared.audience != ("citizen" if kind == "citizen" else "nobody" if kind == "stranger" else "staff"):
        return "SESSION_EXPIRED"
    return None if declared.permission is None or declared.permission in permissions else "NO_PERMISSION"


@pytest.mark.long
async def test_everybody_at_every_endpoint_is_let_in_or_refused_as_declared(district, victim):
    roles = await roles_with_accounts(district)
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
    # Of all these empty requests one is in order: the citizen, who follows the case by then, urges.
    assert (await district.services.database["reports"].find_one({"_id": victim.facts["number"]}))["version"] == 5


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
    assert CLEAR_PHONE.search(f'{{"phone":"+86{PHONE}"}}')
    assert not CLEAR_PHONE.search('{"phone":"139****5678","number":"99010120261122000001"}')


async def test_every_method_that_an_endpoint_does_not_have_is_refused_as_such(district, victim):
    for route in ROUTES:
        for method in set(METHODS) - route.operations.keys():
            answer = await district.nobody("").call(method.upper(), address(route, victim.facts))
            if route.path.startswith("/open311/"):  # its errors have a form of their own
                assert (answer.status_code, answer.json()[0]["code"]) == (405, 405)
                continue
            details = problem(answer, 405, "METHOD_NOT_ALLOWED")
            assert {m.lower() for m in details["allowed"]} == route.operations.keys()


async def test_every_action_is_open_to_exactly_the_roles_that_hold_it(district, victim):
    roles = await roles_with_accounts(district)
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
                problem(answer, 409, "STALE_VERSION")
            else:
                assert problem(answer, 403, "NO_PERMISSION") == {"permission": f"report.{action}"}


async def test_a_role_that_is_changed_in_the_database_counts_at_once(district, victim):
    staff = district.services[StaffService]
    assessor = next(r for r in await staff.roles() if r.key == "assessor")
    client = await district.staff("assessor")
    path = f"/reports/{victim.facts['number']}/actions/note"
    problem(await client.call("POST", path, json={"version": 10**6}), 403, "NO_PERMISSION")
    try:
        await staff.put_role(assessor.model_copy(update={"permissions": [*assessor.permissions, "report.note"]}))
        problem(await client.call("POST", path, json={"version": 10**6}), 409, "STALE_VERSION")
        await staff.put_role(assessor.model_copy(update={"permissions": []}))
        problem(await client.call("GET", f"/reports/{victim.facts['number']}"), 403, "NO_PERMISSION")
    finally:
        await staff.put_role(assessor)


async def test_no_answer_about_a_case_shows_the_phone_whoever_asks(district, victim):
    number = victim.facts["number"]
    roles = await roles_with_accounts(district)
    staff = [await district.staff(account) for account in role_accounts(roles).values()]
    for client in [victim, await district.citizen(), *staff]:
        for path in (f"/reports/{number}", "/reports", f"/reports?number={number}&size=1", "/reports?mine=true", "/me"):
            assert not CLEAR_PHONE.search((await client.call("GET", path)).text), path
    # The control: the owner's own export does show it, so the pattern is able to find it.
    assert CLEAR_PHONE.search((await victim.call("GET", "/me/export")).text)
