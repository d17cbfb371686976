"""Whoever can do more than an administrator is not theirs to change: not by a field, a session or a delegation."""

from __future__ import annotations

import random

import pytest

from accounts.admin_scope import POWERS
from accounts.models import Role
from accounts.roles import starting_roles
from accounts.staff import StaffService
from core.clock import now
from tests.api.support import problem
from tests.api.test_delegation import act, lent
from tests.api.test_staff_administration import (
    DISTRICT,
    OTHER_STREET,
    STREET,
    WHOLE,
    new_account,
    on_record,
    somebody,
)
from tests.district import District, good

REASON = {"version": 1, "reason": "试试看"}


async def role(district: District, *permissions: str, **more: bool) -> str:
    """The key of a new role."""
    key = f"made_{''.join(random.choices('abcdefghij', k=10))}"
    await district.services[StaffService].put_role(Role(key=key, name=key, permissions=list(permissions), **more))
    return key


async def account_of(district: District, client):
    """The stored account of somebody."""
    return await district.services.database["staff"].find_one({"_id": client.facts["staff_id"]})


# --- roles


@pytest.mark.parametrize(
    "change", [{"requires_totp": False}, {"name": "改名"}, {"permissions": ["report.view"]}, {"permissions": []}]
)
async def test_a_role_that_permits_more_than_its_manager_holds_is_not_theirs_to_change(district, change):
    weaker = await somebody(district, await role(district, "report.view", "staff.view", "role.manage"))
    stronger = await role(district, "report.view", "staff.manage", "role.manage", requires_totp=True)
    roles = district.services.database["roles"]
    before = await roles.find_one({"_id": stronger})
    for path, body in ((f"/roles/{stronger}", change), (f"/roles/{stronger}/retire", {})):
        method = "PATCH" if body else "POST"
        answer = await weaker.call(method, path, json={"version": 1, **body})
        assert problem(answer, 403, "CANNOT_GRANT") == {"permissions": ["staff.manage"]}
    assert await roles.find_one({"_id": stronger}) == before
    # Of their own strength it is.
    equal = await role(district, "report.view", "role.manage", requires_totp=True)
    answer = await weaker.call("PATCH", f"/roles/{equal}", json={"version": 1, **change})
    if "requires_totp" in change:  # but for the second factor, which a power demands whoever asks
        problem(answer, 422, "SECOND_FACTOR_KEPT")
    else:
        good(answer)


# --- accounts and their sessions


async def test_the_sessions_of_a_stronger_account_are_neither_listed_nor_ended(district):
    weaker = await somebody(district, "street_admin", areas=[STREET])
    stronger = await somebody(district, "admin", areas=[STREET])
    path = f"/staff/{stronger.facts['staff_id']}/sessions"
    problem(await weaker.call("GET", path), 403, "CANNOT_GRANT")
    (session,) = (await stronger.get("/me/sessions"))["sessions"]
    problem(await weaker.call("DELETE", f"{path}/{session['session_id']}"), 403, "CANNOT_GRANT")
    await stronger.get("/me")
    # The other way round it goes, and is on record.
    theirs = f"/staff/{weaker.facts['staff_id']}/sessions"
    (session,) = (await stronger.get(theirs))["sessions"]
    assert (await stronger.call("DELETE", f"{theirs}/{session['session_id']}")).status_code == 204
    problem(await weaker.call("GET", "/me"), 401, "SESSION_ENDED")
    await on_record(district, "staff.end_session", weaker.facts["staff_id"])


async def changes_refused(weaker, stronger, code):
    """Nothing that an administrator may do to an account may ``weaker`` do to ``stronger``."""
    path = f"/staff/{stronger.facts['staff_id']}"
    for wanted in ({"name": "改名"}, {"roles": ["collector"]}, {"areas": [STREET]}, {"unit": "roads"}):
        problem(await weaker.call("PATCH", path, json={"version": 1, **wanted}), 403, code)
    for operation in ("disable", "enable", "password-reset", "second-factor-reset"):
        problem(await weaker.call("POST", f"{path}/{operation}", json=REASON), 403, code)
    problem(await weaker.call("GET", f"{path}/sessions"), 403, code)


async def test_what_is_lent_to_an_account_makes_it_stronger_as_long_as_it_is_lent(district):
    """Whoever gets hold of the account could use what it was lent."""
    weaker = await somebody(district, "street_admin", areas=[STREET])
    collector = await somebody(district, "collector", areas=[STREET])
    before = await account_of(district, collector)
    for lender_role, areas, code in (
        ("dispatcher", [DISTRICT], "OUT_OF_REACH"),
        ("duty_chief", [STREET], "CANNOT_GRANT"),
    ):
        lender = await somebody(district, lender_role, areas=areas)
        delegation = await lent(lender, collector, lender_role)
        await changes_refused(weaker, collector, code)
        assert await account_of(district, collector) == before
        await lender.post(f"/delegations/{delegation['delegation_id']}/end", {"version": 1})
    reset = await weaker.post(f"/staff/{collector.facts['staff_id']}/password-reset", REASON)
    assert reset["account"]["version"] == 2


async def test_a_role_that_is_retired_counts_as_it_may_be_restored(district):
    weaker = await somebody(district, "street_admin", areas=[STREET])
    key = await role(district, "indicators.manage")
    stronger = await somebody(district, key, areas=[STREET])
    retired = {"$set": {"retired_at": now()}}
    await district.services.database["roles"].update_one({"_id": key}, retired)
    await changes_refused(weaker, stronger, "CANNOT_GRANT")


async def test_a_delegation_of_somebody_stronger_is_not_ended(district):
    weaker = await somebody(district, "street_admin", areas=[STREET])
    lender = await somebody(district, "duty_chief", areas=[STREET])
    colleague = await somebody(district, "collector", areas=[STREET])
    delegation = await lent(lender, colleague, "duty_chief")
    good(await act(colleague, delegation["delegation_id"]))
    end = f"/delegations/{delegation['delegation_id']}/end"
    problem(await weaker.call("POST", end, json={"version": 1}), 403, "CANNOT_GRANT")
    assert (await colleague.get("/me"))["on_behalf_of"] is not None


async def test_ones_own_password_and_second_factor_are_not_reset_without_proof(district):
    """A session left open would otherwise be enough to take the account over."""
    admin = await somebody(district, "admin")
    before = await account_of(district, admin)
    for operation in ("password-reset", "second-factor-reset"):
        path = f"/staff/{admin.facts['staff_id']}/{operation}"
        problem(await admin.call("POST", path, json=REASON), 409, "OWN_ACCOUNT")
    assert await account_of(district, admin) == before


# --- powers apart


def test_no_starting_role_holds_two_of_accounts_roles_and_the_audit_log():
    apart = {"staff.manage", "role.manage", "audit.view"}
    for each in starting_roles():
        assert len(apart.intersection(each.permissions)) <= 1, each.key
    holders = {p: [r for r in starting_roles() if p in r.permissions] for p in apart}
    assert all(holders.values())
    assert all(r.requires_totp for roles in holders.values() for r in roles)


async def test_no_power_gives_itself_or_another_account_another_power(district):
    admin, security, auditor = [await somebody(district, key) for key in WHOLE]
    for key in ("security_admin", "audit_admin"):
        answer = await admin.call("POST", "/staff", json=new_account(roles=[key], areas=[DISTRICT]))
        assert set(problem(answer, 403, "CANNOT_GRANT")["permissions"]) <= POWERS
        mine = await admin.call(
            "PATCH", f"/staff/{admin.facts['staff_id']}", json={"version": 1, "roles": ["admin", key]}
        )
        problem(mine, 403, "CANNOT_GRANT")
    for other in (security, auditor):
        await changes_refused(admin, other, "CANNOT_GRANT")
        problem(await other.call("POST", "/staff", json=new_account()), 403, "NO_PERMISSION")
    listed = {r["key"]: r for r in (await security.get("/roles"))["roles"]}
    for key in ("security_admin", "collector"):
        for power in ("staff.manage", "audit.view"):
            wanted = {"version": listed[key]["version"], "permissions": [*listed[key]["permissions"], power]}
            answer = await security.call("PATCH", f"/roles/{key}", json=wanted)
            assert problem(answer, 403, "CANNOT_GRANT") == {"permissions": [power]}
    for key in ("admin", "audit_admin", "street_admin"):
        wanted = {"version": listed[key]["version"], "requires_totp": False}
        problem(await security.call("PATCH", f"/roles/{key}", json=wanted), 403, "CANNOT_GRANT")
    # What is work and no power each gives as before.
    await admin.post("/staff", new_account(roles=["duty_chief"], areas=[DISTRICT]))
    key = f"made_{''.join(random.choices('abcdefghij', k=10))}"
    await security.post("/roles", {"key": key, "name": "督查", "permissions": ["report.view", "indicators.view"]})


async def test_no_power_is_lent(district):
    colleague = await somebody(district, "collector")
    for key in WHOLE:
        lender = await somebody(district, key)
        me = good(await act(colleague, (await lent(lender, colleague, key))["delegation_id"]))
        assert POWERS.isdisjoint(me["permissions"])
        good(await act(colleague, None))


async def test_the_administrator_role_of_an_older_district_goes_on_as_it_was(district):
    """Its role holds all powers at once, as `admin` did."""
    before = await role(district, *sorted(POWERS), "report.view", "staff.view", "unit.manage", requires_totp=True)
    admin = await somebody(district, before)
    made = (await admin.post("/staff", new_account(roles=["audit_admin"], areas=[DISTRICT])))["account"]
    await admin.post(f"/staff/{made['staff_id']}/disable", REASON)
    other = await somebody(district, before)
    await admin.post(f"/staff/{other.facts['staff_id']}/password-reset", REASON)
    listed = {r["key"]: r for r in (await admin.get("/roles"))["roles"]}
    wanted = {"version": listed[before]["version"], "permissions": [*listed[before]["permissions"], "system.view"]}
    good(await admin.call("PATCH", f"/roles/{before}", json=wanted))
    assert "system.view" in (await admin.get("/me"))["permissions"]
    await admin.get("/audit", size=1)


# --- the audit log


async def test_the_audit_log_of_the_district_is_not_read_by_who_is_limited_to_a_part_of_it(district):
    key = await role(district, "audit.view")
    for more in ({"areas": [STREET]}, {"areas": [STREET, OTHER_STREET]}, {"areas": [DISTRICT], "unit": "roads"}):
        limited = await somebody(district, key, **more)
        problem(await limited.call("GET", "/audit"), 403, "DISTRICT_WIDE")
        traced = await limited.call("POST", "/exports/trace", json={"text": "00000000"})
        problem(traced, 403, "DISTRICT_WIDE")
    await (await somebody(district, key)).get("/audit")
