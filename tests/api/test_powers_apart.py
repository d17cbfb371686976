"""Nobody comes to hold two of the powers that are kept apart (三权分立), whichever way a role or a power is given."""

from __future__ import annotations

import asyncio

import pytest

from accounts.admin_scope import APART
from tests.api.support import problem
from tests.api.test_delegation import act, lent
from tests.api.test_staff_administration import DISTRICT, WHOLE, new_account, somebody
from tests.api.test_stronger_accounts import role
from tests.district import good


async def three(district):
    """Somebody for accounts, somebody for roles, somebody for the audit log."""
    return [await somebody(district, key) for key in WHOLE]


async def gives_oneself(client, *roles):
    """The answer to giving one's own account these roles."""
    path = f"/staff/{client.facts['staff_id']}"
    seen = (await client.get(path))["version"]
    return await client.call("PATCH", path, json={"version": seen, "roles": list(roles)})


async def empowers(client, key, *permissions, **more):
    """The answer to having the role permit this."""
    seen = next(r["version"] for r in (await client.get("/roles"))["roles"] if r["key"] == key)
    body = {"version": seen, "permissions": list(permissions), "requires_totp": True, **more}
    return await client.call("PATCH", f"/roles/{key}", json=body)


async def powers(client):
    """Which of the powers somebody holds."""
    return APART.intersection((await client.get("/me"))["permissions"])


async def test_a_harmless_role_that_an_administrator_has_is_not_made_a_second_power(district):
    admin, security, _ = await three(district)
    key = await role(district, "report.view")
    good(await gives_oneself(admin, "admin", key))
    refused = await empowers(security, key, "report.view", "role.manage")
    problem(refused, 409, "POWERS_APART")
    assert "1 个账号会同时掌握其中两项" in refused.json()["message"]
    assert await powers(admin) == {"staff.manage"}
    # What is no power goes, also on the role of an administrator; and a power where it meets no other.
    good(await empowers(security, key, "report.view", "indicators.view"))
    good(await gives_oneself(admin, "admin"))
    good(await empowers(security, key, "report.view", "role.manage"))


async def test_a_disabled_account_counts_as_it_may_be_let_in_again(district):
    admin, security, _ = await three(district)
    key = await role(district, "report.view")
    wanted = new_account(roles=["street_admin", key], areas=[DISTRICT])
    made = (await admin.post("/staff", wanted))["account"]
    await admin.post(f"/staff/{made['staff_id']}/disable", {"version": 1, "reason": "试试看"})
    problem(await empowers(security, key, "report.view", "role.manage"), 409, "POWERS_APART")


async def test_a_retired_role_counts_as_it_may_be_restored(district):
    security = await somebody(district, "security_admin")
    key = await role(district, "report.view", "role.manage", requires_totp=True)
    await security.post(f"/roles/{key}/retire", {"version": 1})
    # An account that was given it at that moment.
    accounts = district.services.database["staff"]
    holder = await somebody(district, "collector")
    await accounts.update_one({"_id": holder.facts["staff_id"]}, {"$push": {"roles": key}})
    other = await role(district, "report.view")
    await accounts.update_one({"_id": holder.facts["staff_id"]}, {"$push": {"roles": other}})
    whole = await somebody(district, *WHOLE)
    problem(await empowers(whole, other, "report.view", "audit.view"), 409, "POWERS_APART")
    good(await security.call("POST", f"/roles/{key}/restore", json={"version": 2}))
    assert await powers(holder) == {"role.manage"}


async def test_not_even_who_holds_all_powers_gives_two_to_anybody(district):
    """The administrator of an older district goes on, and makes no second one."""
    whole = await somebody(district, *WHOLE)
    for two in (["admin", "audit_admin"], ["street_admin", "security_admin"], ["security_admin", "audit_admin"]):
        answer = await whole.call("POST", "/staff", json=new_account(roles=two, areas=[DISTRICT]))
        problem(answer, 409, "POWERS_APART")
        one = await somebody(district, two[0])
        path = f"/staff/{one.facts['staff_id']}"
        problem(await whole.call("PATCH", path, json={"version": 1, "roles": two}), 409, "POWERS_APART")
        good(await whole.call("PATCH", path, json={"version": 1, "roles": two[1:]}))
    both = {"key": "both_at_once", "name": "两权", "permissions": ["staff.manage", "audit.view"], "requires_totp": True}
    problem(await whole.call("POST", "/roles", json=both), 409, "POWERS_APART")
    lone = await role(district, "audit.view", requires_totp=True)
    problem(await empowers(whole, lone, "audit.view", "role.manage"), 409, "POWERS_APART")
    # It may go on as it is, and give up what it has.
    good(await gives_oneself(whole, *WHOLE, "collector"))
    good(await gives_oneself(whole, "admin", "audit_admin"))
    problem(await gives_oneself(whole, *WHOLE), 403, "CANNOT_GRANT")


async def test_what_is_lent_brings_no_powers_together(district):
    admin, security, _ = await three(district)
    key = await role(district, "report.view")
    lender = await somebody(district, "collector", key)
    delegation = await lent(lender, admin, key)
    good(await empowers(security, key, "report.view", "role.manage"))
    good(await act(admin, delegation["delegation_id"]))
    assert await powers(admin) == set()


async def test_a_role_given_and_a_power_added_at_once_do_not_both_succeed(district):
    admin, security, _ = await three(district)
    for _ in range(4):
        key = await role(district, "report.view")
        answers = await asyncio.gather(
            gives_oneself(admin, "admin", key), empowers(security, key, "report.view", "role.manage")
        )
        refused = [a for a in answers if a.status_code != 200]
        assert [a.json()["code"] for a in refused] in (["POWERS_APART"], ["CANNOT_GRANT"])
        assert await powers(admin) == {"staff.manage"}
        good(await gives_oneself(admin, "admin"))


async def test_two_powers_added_at_once_to_two_roles_of_one_person_do_not_both_succeed(district):
    security = await somebody(district, "security_admin")
    whole = await somebody(district, *WHOLE)
    one, other = [await role(district, "report.view") for _ in range(2)]
    holder = await somebody(district, one, other)
    answers = await asyncio.gather(
        empowers(security, one, "report.view", "role.manage"), empowers(whole, other, "report.view", "audit.view")
    )
    assert sorted(a.status_code for a in answers) == [200, 409]
    assert len(await powers(holder)) == 1


@pytest.mark.parametrize(("key", "by"), [("admin", 0), ("security_admin", 1), ("audit_admin", 2), ("street_admin", 0)])
async def test_no_power_is_had_without_a_second_factor(district, key, by):
    """Not even by the hand of who could give the power."""
    manager = await somebody(district, "security_admin", WHOLE[by])
    before = await district.services.database["roles"].find_one({"_id": key})
    refused = await empowers(manager, key, *before["permissions"], requires_totp=False)
    problem(refused, 422, "SECOND_FACTOR_KEPT")
    assert "动态验证码" in refused.json()["message"]
    power = next(iter(APART.intersection(before["permissions"])))
    bare = await role(district, "report.view")
    problem(await empowers(manager, bare, "report.view", power, requires_totp=False), 422, "SECOND_FACTOR_KEPT")
    new = {"key": "bare_power", "name": "无二次验证", "permissions": [power]}
    problem(await manager.call("POST", "/roles", json=new), 422, "SECOND_FACTOR_KEPT")
    # One that never had it, in a district of before, may be changed otherwise, and be given it.
    older = await role(district, power)
    good(await empowers(manager, older, "report.view", power, requires_totp=False))
    good(await empowers(manager, older, "report.view", power, requires_totp=True))
