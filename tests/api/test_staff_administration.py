"""Administering staff, roles and units: within one's reach, against the version that was seen, and on record."""

from __future__ import annotations

import asyncio
import random

import pytest_asyncio

from accounts.models import NewStaff
from accounts.staff import StaffService
from tests.api.support import problem
from tests.district import INSIDE, Client, good
from tests.seeding import PASSWORD
from tests.timing import PATIENCE

DISTRICT = "990101"
STREET = "990101001"
OTHER_STREET = "990101002"
WHOLE = ("admin", "security_admin", "audit_admin")
"""The roles of who holds every power, which a district keeps apart if it goes by its starting roles."""


def new_account(**changes):
    """An account that may be made by whoever administers the first street."""
    account = {
        "username": f"new{random.randrange(10**9)}",
        "name": "新同事",
        "roles": ["collector"],
        "areas": [STREET],
    }
    return {**account, **changes}


async def made(client, **changes):
    """A new account as the API shows it, and its first password."""
    answer = await client.post("/staff", new_account(**changes))
    return answer["account"], answer["initial_password"]


async def somebody(district, *roles, areas=(DISTRICT,), unit=None) -> Client:
    """A signed-in member of staff with an account of their own."""
    username = f"someone{random.randrange(10**9)}"
    person = NewStaff(
        username=username, name=f"某人{username[-3:]}", roles=list(roles), areas=list(areas), unit_id=unit
    )
    staff_id = await district.services[StaffService].create(person, PASSWORD)
    opened = good(await sign_in(district, username, PASSWORD))
    return Client(district.http, "/admin/api/v1", opened["token"], username=username, staff_id=staff_id)


async def sign_in(district, username, password):
    """The answer to a sign-in."""
    given = {"username": username, "password": password}
    return await district.nobody("/admin/api/v1").call("POST", "/session", json=given)


async def on_record(district, action, object_id):
    """The audit entry of ``action``, which the worker writes soon."""
    audit = district.services.database["audit"]
    async with asyncio.timeout(PATIENCE):
        while True:
            entry = await audit.find_one({"action": action, "object.id": object_id})
            if entry is not None:
                return entry
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture
async def admin(district):
    """A district administrator of everything."""
    return await somebody(district, *WHOLE)


@pytest_asyncio.fixture
async def street_admin(district):
    """An administrator of the first street."""
    return await somebody(district, "street_admin", areas=[STREET])


async def test_a_new_account_gets_a_first_password_that_signs_in_and_is_shown_once(district, admin):
    account, password = await made(admin, roles=["dispatcher"], areas=[DISTRICT])
    assert (account["version"], account["disabled"], account["must_change_password"]) == (1, False, True)
    good(await sign_in(district, account["username"], password))
    shown = await admin.call("GET", f"/staff/{account['staff_id']}")
    assert shown.json() == account
    assert password not in shown.text
    entry = await on_record(district, "staff.create", account["staff_id"])
    assert entry["changes"]["roles"] == {"before": None, "after": ["dispatcher"]}
    assert entry["subject"]["id"] == admin.facts["staff_id"]
    assert password not in str(entry)


async def test_a_change_counts_from_the_next_request_and_tells_before_and_after(district, admin):
    account, _ = await made(admin, roles=["dispatcher"])
    changed = good(
        await admin.call(
            "PATCH",
            f"/staff/{account['staff_id']}",
            json={"version": 1, "roles": ["unit"], "unit": "roads", "areas": [DISTRICT]},
        )
    )
    assert (changed["roles"], changed["unit"], changed["version"]) == (["unit"], "roads", 2)
    entry = await on_record(district, "staff.change", account["staff_id"])
    assert entry["changes"] == {
        "roles": {"before": ["dispatcher"], "after": ["unit"]},
        "unit_id": {"before": None, "after": "roads"},
        "areas": {"before": [STREET], "after": [DISTRICT]},
    }
    back = await admin.call("PATCH", f"/staff/{account['staff_id']}", json={"version": 2, "unit": None})
    assert good(back)["unit"] is None


async def test_of_changes_made_at_once_against_one_version_a_single_one_is_done(district, admin):
    account, _ = await made(admin)
    path = f"/staff/{account['staff_id']}"
    answers = await asyncio.gather(
        *(admin.call("PATCH", path, json={"version": 1, "name": f"改名{n}"}) for n in range(6))
    )
    won = [a.json() for a in answers if a.status_code == 200]
    assert len(won) == 1
    for answer in answers:
        if answer.status_code != 200:
            assert problem(answer, 409, "STALE") == {"version": 2}
    assert await admin.get(path) == won[0]


async def test_a_disabled_account_is_out_at_once_and_in_again_when_enabled(district, admin):
    account, password = await made(admin)
    token = good(await sign_in(district, account["username"], password))["token"]
    path = f"/staff/{account['staff_id']}"
    disabled = await admin.post(f"{path}/disable", {"version": 1, "reason": "离职"})
    assert disabled["disabled"]
    refused = await Client(district.http, "/admin/api/v1", token).call("GET", "/me")
    problem(refused, 401, "ACCOUNT_DISABLED")
    problem(await sign_in(district, account["username"], password), 401, "WRONG_PASSWORD")
    entry = await on_record(district, "staff.disable", account["staff_id"])
    assert (entry["reason"], entry["changes"]) == ("离职", {"disabled": {"before": False, "after": True}})
    await admin.post(f"{path}/enable", {"version": 2, "reason": "返岗"})
    good(await sign_in(district, account["username"], password))


async def test_a_reset_password_replaces_the_old_one(district, admin):
    account, old = await made(admin)
    reset = await admin.post(f"/staff/{account['staff_id']}/password-reset", {"version": 1, "reason": "忘记密码"})
    assert reset["initial_password"] != old
    problem(await sign_in(district, account["username"], old), 401, "WRONG_PASSWORD")
    good(await sign_in(district, account["username"], reset["initial_password"]))


async def test_accounts_are_listed_page_by_page_within_reach_alone(district, admin, street_admin):
    mine = [(await made(street_admin))[0]["staff_id"] for _ in range(3)]
    elsewhere = (await made(admin, areas=[OTHER_STREET]))[0]["staff_id"]
    both = (await made(admin, areas=[STREET, OTHER_STREET]))[0]["staff_id"]
    seen, page = [], None
    while True:
        answer = await street_admin.get("/staff", size=2, **({"page": page} if page else {}))
        seen += answer["staff"]
        page = answer["next_page"]
        if page is None:
            break
    ids = [account["staff_id"] for account in seen]
    assert len(ids) == len(set(ids))
    assert set(mine) <= set(ids)
    assert {elsewhere, both}.isdisjoint(ids)
    assert [a["username"] for a in seen] == sorted(a["username"] for a in seen)
    for hidden in (elsewhere, both):
        problem(await street_admin.call("GET", f"/staff/{hidden}"), 404, "NO_SUCH_STAFF")
        change = {"version": 1, "name": "别人"}
        problem(await street_admin.call("PATCH", f"/staff/{hidden}", json=change), 404, "NO_SUCH_STAFF")


async def test_who_has_no_area_reaches_nobody(district):
    client = await somebody(district, "admin")
    await district.services.database["staff"].update_one({"_id": client.facts["staff_id"]}, {"$set": {"areas": []}})
    assert (await client.get("/staff"))["staff"] == []
    problem(await client.call("POST", "/staff", json=new_account()), 403, "OUT_OF_REACH")


async def test_accounts_are_found_by_name_role_unit_area_and_state(district, admin):
    account, _ = await made(admin, name="欧阳查找", roles=["unit"], unit="roads", areas=[OTHER_STREET])
    found = {"text": "欧阳", "role": "unit", "unit": "roads", "area": OTHER_STREET, "disabled": "false"}
    for name, value in found.items():
        rows = (await admin.get("/staff", size=100, **{name: value}))["staff"]
        assert account["staff_id"] in [row["staff_id"] for row in rows], name
    for name, value in (("text", "阳"), ("role", "intake"), ("unit", "sanitation"), ("area", STREET)):
        rows = (await admin.get("/staff", size=100, **{name: value}))["staff"]
        assert account["staff_id"] not in [row["staff_id"] for row in rows], name
    by_username = await admin.get("/staff", text=account["username"].upper())
    assert [row["staff_id"] for row in by_username["staff"]] == [account["staff_id"]]
    problem(await admin.call("GET", "/staff?page=nonsense"), 400, "BAD_PAGE")


async def test_every_list_of_accounts_is_read_from_an_index(district):
    accounts = district.services.database["staff"]
    for query in ({"username": {"$gt": "a"}}, {"roles": "unit"}, {"unit_id": "roads"}, {"name": {"$regex": "^欧阳"}}):
        plan = await accounts.find(query).sort("username", 1).explain()
        assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"]), query


async def test_an_administrator_of_a_street_makes_accounts_there_with_what_they_hold_and_no_more(
    district, street_admin
):
    await made(street_admin, roles=["dispatcher", "collector"])
    refused = await street_admin.call("POST", "/staff", json=new_account(areas=[OTHER_STREET]))
    problem(refused, 403, "OUT_OF_REACH")
    problem(await street_admin.call("POST", "/staff", json=new_account(areas=[DISTRICT])), 403, "OUT_OF_REACH")
    refused = await street_admin.call("POST", "/staff", json=new_account(roles=["admin"]))
    assert "staff.grant_any" in problem(refused, 403, "CANNOT_GRANT")["permissions"]
    refused = await street_admin.call("POST", "/staff", json=new_account(roles=["audit_admin"]))
    assert "audit.view" in problem(refused, 403, "CANNOT_GRANT")["permissions"]
    # Roles and units are the whole district's.
    await refused_as_no_permission(street_admin)


async def refused_as_no_permission(client):
    answer = await client.call("POST", "/roles", json={"key": "mine", "name": "我的", "permissions": ["audit.view"]})
    problem(answer, 403, "NO_PERMISSION")
    answer = await client.call("POST", "/units", json={"key": "mine", "name": "我的", "short_name": "我"})
    problem(answer, 403, "NO_PERMISSION")


async def test_who_may_do_more_than_oneself_is_not_oneself_to_change(district, admin, street_admin):
    """Resetting the password of somebody more powerful would be a way to become them."""
    account, _ = await made(admin, roles=["admin"])
    path = f"/staff/{account['staff_id']}"
    for call in ("password-reset", "disable"):
        answer = await street_admin.call("POST", f"{path}/{call}", json={"version": 1, "reason": "试试看"})
        problem(answer, 403, "CANNOT_GRANT")
    problem(await street_admin.call("PATCH", path, json={"version": 1, "name": "改"}), 403, "CANNOT_GRANT")


async def test_an_administrator_with_a_unit_administers_that_unit_alone(district, admin):
    chief = await somebody(district, "street_admin", areas=[DISTRICT], unit="roads")
    await made(chief, roles=["unit"], unit="roads")
    problem(await chief.call("POST", "/staff", json=new_account(unit="sanitation")), 403, "OUT_OF_REACH")
    problem(await chief.call("POST", "/staff", json=new_account()), 403, "OUT_OF_REACH")
    account, _ = await made(admin, roles=["unit"], unit="sanitation")
    problem(await chief.call("GET", f"/staff/{account['staff_id']}"), 404, "NO_SUCH_STAFF")


async def test_what_does_not_exist_is_not_given(district, admin):
    for change, code in (
        ({"roles": ["nonsense"]}, "NO_SUCH_ROLE"),
        ({"areas": ["990101999"]}, "NO_SUCH_AREA"),
        ({"unit": "nonsense"}, "NO_SUCH_UNIT"),
    ):
        problem(await admin.call("POST", "/staff", json=new_account(**change)), 422, code)
    account, _ = await made(admin)
    problem(await admin.call("POST", "/staff", json=new_account(username=account["username"])), 409, "USERNAME_TAKEN")


async def test_one_cannot_shut_oneself_out(district, admin):
    path = f"/staff/{admin.facts['staff_id']}/disable"
    problem(await admin.call("POST", path, json={"version": 1, "reason": "再见"}), 409, "OWN_ACCOUNT")


@pytest_asyncio.fixture
async def only_two(district):
    """Two administrators, and for a while no others."""
    accounts = district.services.database["staff"]
    pair = [await somebody(district, *WHOLE) for _ in range(2)]
    ids = [one.facts["staff_id"] for one in pair]
    administering = {"staff.manage", "role.manage"}
    roles = [r.key for r in await district.services[StaffService].roles() if administering.intersection(r.permissions)]
    others = {"roles": {"$in": roles}, "disabled": False, "_id": {"$nin": ids}}
    hidden = [a["_id"] async for a in accounts.find(others)]
    await accounts.update_many({"_id": {"$in": hidden}}, {"$set": {"disabled": True}})
    yield pair
    await accounts.update_many({"_id": {"$in": [*hidden, *ids]}}, {"$set": {"disabled": False}})


async def test_two_last_administrators_who_disable_each_other_do_not_both_succeed(district, only_two):
    one, other = only_two
    answers = await asyncio.gather(
        *(
            a.call("POST", f"/staff/{b.facts['staff_id']}/disable", json={"version": 1, "reason": "同时停用"})
            for a, b in ((one, other), (other, one))
        )
    )
    # The second to come is refused: as the last one, or because its own account is disabled by then.
    assert sorted(a.status_code for a in answers)[0] == 200
    assert sorted(a.status_code for a in answers)[1] in (401, 409)
    left = await district.services.database["staff"].count_documents({"roles": "admin", "disabled": False})
    assert left == 1


async def test_the_last_administrator_keeps_the_role_and_the_role_its_permissions(district, only_two):
    one, other = only_two
    path = f"/staff/{other.facts['staff_id']}"
    await one.post(f"{path}/disable", {"version": 1, "reason": "离职"})
    mine = f"/staff/{one.facts['staff_id']}"
    for change in ({"roles": ["assessor"]}, {"areas": [STREET]}, {"unit": "roads"}):
        answer = await one.call("PATCH", mine, json={"version": 1, **change})
        problem(answer, 409, "LAST_ADMINISTRATOR")
    role = next(r for r in (await one.get("/roles"))["roles"] if r["key"] == "security_admin")
    less = [p for p in role["permissions"] if p != "role.manage"]
    answer = await one.call("PATCH", "/roles/security_admin", json={"version": role["version"], "permissions": less})
    problem(answer, 409, "LAST_ADMINISTRATOR")
    # With somebody else to do it, it may go.
    await one.post(f"{path}/enable", {"version": 2, "reason": "返岗"})
    good(await one.call("PATCH", mine, json={"version": 1, "roles": ["assessor"]}))


async def test_a_role_is_made_of_known_permissions_and_counts_at_once(district, admin):
    listed = await admin.get("/roles")
    assert {"report.view", "staff.manage", "report.dispatch", "audit.view"} <= set(listed["permissions"])
    key = f"made_{''.join(random.choices('abcdefghij', k=8))}"
    problem(
        await admin.call("POST", "/roles", json={"key": key, "name": "督查员", "permissions": ["report.fly"]}),
        422,
        "NO_SUCH_PERMISSION",
    )
    wanted = {"key": key, "name": "督查员", "permissions": ["report.view"], "requires_totp": True}
    role = await admin.post("/roles", wanted)
    assert (role["version"], role["held_by"]) == (1, 0)
    holder = await somebody(district, key)
    problem(await holder.call("GET", "/audit"), 403, "NO_PERMISSION")
    change = {"version": 1, "permissions": ["report.view", "audit.view"]}
    changed = good(await admin.call("PATCH", f"/roles/{key}", json=change))
    assert (changed["version"], changed["held_by"]) == (2, 1)
    await holder.get("/audit")
    assert problem(await admin.call("PATCH", f"/roles/{key}", json=change), 409, "STALE") == {"version": 2}
    entry = await on_record(district, "role.change", key)
    assert entry["changes"]["permissions"]["after"] == ["report.view", "audit.view"]
    again = {"key": key, "name": "又一个", "permissions": []}
    problem(await admin.call("POST", "/roles", json=again), 409, "KEY_TAKEN")


async def test_a_role_is_retired_when_nobody_has_it_and_is_then_given_to_nobody(district, admin):
    key = f"made_{''.join(random.choices('abcdefghij', k=8))}"
    await admin.post("/roles", {"key": key, "name": "临时督查", "permissions": ["report.view"]})
    account, _ = await made(admin, roles=[key, "collector"])
    retire = f"/roles/{key}/retire"
    assert problem(await admin.call("POST", retire, json={"version": 1}), 409, "ROLE_IN_USE") == {"accounts": 1}
    # One whose account is disabled may be let in again, and has the role then.
    mine = f"/staff/{account['staff_id']}"
    await admin.post(f"{mine}/disable", {"version": 1, "reason": "离岗"})
    problem(await admin.call("POST", retire, json={"version": 1}), 409, "ROLE_IN_USE")
    good(await admin.call("PATCH", mine, json={"version": 2, "roles": ["collector"]}))
    problem(await admin.call("POST", retire, json={"version": 7}), 409, "STALE")
    retired = await admin.post(retire, {"version": 1})
    assert (retired["version"], retired["held_by"], bool(retired["retired_at"])) == (2, 0, True)
    assert (await admin.post(retire, {"version": 2}))["version"] == 2, "done twice it changes nothing"
    assert key not in [r["key"] for r in (await admin.get("/directory"))["roles"]]
    problem(await admin.call("POST", "/staff", json=new_account(roles=[key])), 422, "NO_SUCH_ROLE")
    problem(await admin.call("POST", "/roles", json={"key": key, "name": "x", "permissions": []}), 409, "KEY_TAKEN")
    problem(await admin.call("POST", "/roles/no_such_role/retire", json={"version": 1}), 404, "NO_SUCH_ROLE")
    assert (await on_record(district, "role.retire", key))["changes"]["retired_at"]["before"] is None
    restored = await admin.post(f"/roles/{key}/restore", {"version": 2})
    assert (restored["retired_at"], restored["permissions"]) == (None, ["report.view"])
    await made(admin, roles=[key])
    again = await admin.post(f"/roles/{key}/restore", {"version": restored["version"]})
    assert (again["version"], again["held_by"]) == (restored["version"], 1), "what is not retired is not changed"


async def test_a_retired_role_grants_nothing_to_whom_it_was_given_at_that_moment(district, admin):
    key = f"made_{''.join(random.choices('abcdefghij', k=8))}"
    wanted = {"key": key, "name": "临时督查", "permissions": ["audit.view"], "requires_totp": True}
    await admin.post("/roles", wanted)
    await admin.post(f"/roles/{key}/retire", {"version": 1})
    holder = await somebody(district, "collector")
    accounts = district.services.database["staff"]
    await accounts.update_one({"_id": holder.facts["staff_id"]}, {"$set": {"roles": ["collector", key]}})
    problem(await holder.call("GET", "/audit"), 403, "NO_PERMISSION")
    await admin.post(f"/roles/{key}/restore", {"version": 2})
    await holder.get("/audit")


async def test_who_administers_a_street_or_holds_less_retires_no_role(district, street_admin):
    answer = await street_admin.call("POST", "/roles/assessor/retire", json={"version": 1})
    problem(answer, 403, "NO_PERMISSION")
    key = f"half_{''.join(random.choices('abcdefghij', k=8))}"
    admin = await somebody(district, *WHOLE)
    wanted = {"key": key, "name": "半个管理员", "permissions": ["staff.view", "role.manage"], "requires_totp": True}
    await admin.post("/roles", wanted)
    half = await somebody(district, key)
    version = next(r["version"] for r in (await half.get("/roles"))["roles"] if r["key"] == "assessor")
    problem(await half.call("POST", "/roles/assessor/retire", json={"version": version}), 403, "CANNOT_GRANT")
    in_street = await somebody(district, key, areas=[STREET])
    problem(await in_street.call("POST", f"/roles/{key}/retire", json={"version": 1}), 403, "DISTRICT_WIDE")


async def test_without_the_permission_to_grant_any_one_gives_what_one_holds(district):
    key = f"half_{''.join(random.choices('abcdefghij', k=8))}"
    admin = await somebody(district, *WHOLE)
    wanted = {"key": key, "name": "半个管理员", "permissions": ["staff.view", "role.manage"], "requires_totp": True}
    await admin.post("/roles", wanted)
    half = await somebody(district, key)
    answer = await half.call("POST", "/roles", json={"key": f"{key}_x", "name": "越权", "permissions": ["audit.view"]})
    assert problem(answer, 403, "CANNOT_GRANT") == {"permissions": ["audit.view"]}
    await half.post("/roles", {"key": f"{key}_y", "name": "不越权", "permissions": ["staff.view"]})
    in_street = await somebody(district, key, areas=[STREET])
    answer = await in_street.call("POST", "/roles", json={"key": f"{key}_z", "name": "街道", "permissions": []})
    problem(answer, 403, "DISTRICT_WIDE")


async def test_a_unit_is_retired_when_it_holds_no_case_and_no_rule_names_it(district, admin):
    key = f"unit{random.randrange(10**6)}"
    unit = await admin.post("/units", {"key": key, "name": "临时清运队", "short_name": "清运队"})
    citizen = await district.citizen()
    number = await district.submit(citizen)
    await district.settled(number)
    await district.action("dispatcher", number, "dispatch", unit=key)
    answer = await admin.call("POST", f"/units/{key}/retire", json={"version": 1})
    assert problem(answer, 409, "UNIT_IN_USE") == {"open_cases": 1, "rules": []}
    worker = await somebody(district, "unit", unit=key)
    await worker.post(f"/reports/{number}/actions/refuse", {"reason": "不是我们的"})
    retired = await admin.post(f"/units/{key}/retire", {"version": 1})
    assert (retired["retired_at"] is not None, retired["version"]) == (True, 2)
    assert key not in [u["key"] for u in (await admin.get("/directory"))["units"]]
    dispatcher = await district.staff("dispatcher")
    answer = await dispatcher.call(
        "POST", f"/reports/{number}/actions/dispatch", json={"unit": key, "reason": "再派一次"}
    )
    problem(answer, 422, "NO_SUCH_UNIT")
    problem(await admin.call("POST", "/units", json={**_names(unit), "key": key}), 409, "KEY_TAKEN")
    answer = await admin.call("POST", "/units/sanitation/retire", json={"version": 1})
    assert "exposed_garbage 归口" in problem(answer, 409, "UNIT_IN_USE")["rules"]
    await on_record(district, "unit.retire", key)
    await admin.post(f"/units/{key}/restore", {"version": 2})
    # Also while it works on a case that another one leads.
    await district.action("dispatcher", number, "dispatch", unit="roads", co_units=[key], reason="两家一起办")
    answer = await admin.call("POST", f"/units/{key}/retire", json={"version": 3})
    assert problem(answer, 409, "UNIT_IN_USE") == {"open_cases": 1, "rules": []}


def _names(unit):
    return {name: unit[name] for name in ("name", "short_name")}


async def test_a_renamed_unit_keeps_its_old_name_on_cases_that_it_has(district, admin):
    key = f"unit{random.randrange(10**6)}"
    await admin.post("/units", {"key": key, "name": "旧名", "short_name": "旧"})
    number = await district.submit(await district.citizen(), location={**_inside()})
    await district.settled(number)
    await district.action("dispatcher", number, "dispatch", unit=key)
    renamed = good(await admin.call("PATCH", f"/units/{key}", json={"version": 1, "name": "新名"}))
    assert (renamed["name"], renamed["short_name"], renamed["version"]) == ("新名", "旧", 2)
    assert (await admin.get(f"/reports/{number}"))["unit_name"] == "旧名"
    problem(await admin.call("PATCH", f"/units/{key}", json={"version": 1, "name": "再改"}), 409, "STALE")


def _inside():
    return {"longitude": INSIDE[0], "latitude": INSIDE[1], "crs": "wgs84"}
