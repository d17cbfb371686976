"""Delegation while away: a colleague acts for the absent one, visibly, for a time, and cannot pass it on."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest_asyncio

from accounts.models import NewStaff, Role
from accounts.staff import StaffService
from core.clock import now
from core.ids import new_id
from places.service import PlaceService
from tests.api.support import problem
from tests.api.test_staff_administration import DISTRICT, OTHER_STREET, STREET, on_record, somebody
from tests.clock import later
from tests.district import good, open_district
from tests.seeding import PASSWORD

DAY = timedelta(days=1)


def period(begins=-DAY / 24, ends=7 * DAY):
    moment = now()
    return {"begins_at": (moment + begins).isoformat(), "ends_at": (moment + ends).isoformat()}


async def lent(lender, delegate, *roles, **times):
    """A delegation as the API shows it."""
    body = {"to": delegate.facts["staff_id"], "roles": list(roles), "reason": "年假", **period(**times)}
    return await lender.post("/delegations", body)


async def act(client, delegation_id):
    """The answer to using a delegation."""
    return await client.call("PUT", "/session/acting", json={"delegation_id": delegation_id})


@pytest_asyncio.fixture
async def dispatcher(district):
    """Who will be away."""
    return await somebody(district, "dispatcher")


@pytest_asyncio.fixture
async def colleague(district):
    """Who stands in: a collector of one street."""
    return await somebody(district, "collector", areas=[STREET])


async def test_the_delegate_has_the_roles_and_reach_of_the_absent_one_in_place_of_their_own(
    district, dispatcher, colleague
):
    number = await district.submit(await district.citizen())
    await district.settled(number)
    dispatching = f"/reports/{number}/actions/dispatch"
    problem(await colleague.call("POST", dispatching, json={"unit": "roads"}), 403, "NO_PERMISSION")
    delegation = await lent(dispatcher, colleague, "dispatcher")
    assert (delegation["in_force"], delegation["roles"]) == (True, ["dispatcher"])
    # It has to be taken up: nobody acts for another by accident.
    problem(await colleague.call("POST", dispatching, json={"unit": "roads"}), 403, "NO_PERMISSION")
    me = good(await act(colleague, delegation["delegation_id"]))
    assert (me["roles"], me["areas"]) == (["dispatcher"], [DISTRICT])
    assert me["on_behalf_of"]["staff_id"] == dispatcher.facts["staff_id"]
    assert "photo.upload" not in me["permissions"], "a collector's, which the delegate has as oneself"
    done = await colleague.post(dispatching, {"unit": "roads"})
    assert done["state"] == "dispatched"
    me = good(await act(colleague, None))
    assert (me["roles"], me["areas"], me["on_behalf_of"]) == (["collector"], [STREET], None)


async def test_what_a_delegate_does_says_for_whom(district, dispatcher, colleague):
    number = await district.submit(await district.citizen())
    await district.settled(number)
    delegation = await lent(dispatcher, colleague, "dispatcher")
    good(await act(colleague, delegation["delegation_id"]))
    await colleague.post(f"/reports/{number}/actions/dispatch", {"unit": "roads"})
    report = await district.settled(number)
    by = report["timeline"][-1]["by"]
    assert (by["id"], by["on_behalf_of"]) == (colleague.facts["staff_id"], dispatcher.facts["staff_id"])
    assert "（代" in by["name"]
    entry = await on_record(district, "report.dispatch", number)
    assert entry["subject"] == {k: by[k] for k in ("kind", "id", "name", "on_behalf_of")}
    for action in ("delegation.create", "delegation.use"):
        await on_record(district, action, delegation["delegation_id"])
    auditor = await district.staff("audit_admin")
    found = (await auditor.get("/audit", action="report.dispatch", object_id=number))["entries"]
    assert found[0]["subject"]["on_behalf_of"] == dispatcher.facts["staff_id"]


async def test_it_ends_by_itself_and_the_next_step_is_not_taken_unawares(district, dispatcher, colleague):
    delegation = await lent(dispatcher, colleague, "dispatcher", ends=timedelta(minutes=20))
    good(await act(colleague, delegation["delegation_id"]))
    with later(minutes=21):
        problem(await colleague.call("GET", "/reports"), 403, "DELEGATION_ENDED")
        # Told once; from then on one is oneself.
        assert (await colleague.get("/me"))["roles"] == ["collector"]
        problem(await act(colleague, delegation["delegation_id"]), 404, "NO_SUCH_DELEGATION")
        (listed,) = (await colleague.get("/delegations"))["delegations"]
        assert not listed["in_force"]


async def test_one_that_has_not_begun_cannot_be_used_yet(district, dispatcher, colleague):
    delegation = await lent(dispatcher, colleague, "dispatcher", begins=timedelta(minutes=10))
    assert not delegation["in_force"]
    problem(await act(colleague, delegation["delegation_id"]), 404, "NO_SUCH_DELEGATION")
    with later(minutes=11):
        good(await act(colleague, delegation["delegation_id"]))


async def test_it_can_be_ended_by_either_side_and_by_an_administrator(district, dispatcher, colleague):
    admin = await somebody(district, "admin")
    stranger = await somebody(district, "dispatcher")
    for who in (dispatcher, colleague, admin):
        delegation = await lent(dispatcher, colleague, "dispatcher")
        good(await act(colleague, delegation["delegation_id"]))
        path = f"/delegations/{delegation['delegation_id']}/end"
        problem(await stranger.call("POST", path, json={"version": 1}), 404, "NO_SUCH_DELEGATION")
        problem(await who.call("POST", path, json={"version": 9}), 409, "STALE")
        ended = await who.post(path, {"version": 1})
        assert (ended["in_force"], ended["ended_at"] is not None) == (False, True)
        # Whoever was just acting by it is told so first, whatever they ask for.
        status = 403 if who is colleague else 409
        problem(await who.call("POST", path, json={"version": 2}), status, "DELEGATION_ENDED")
        if who is not colleague:
            problem(await colleague.call("GET", "/reports"), 403, "DELEGATION_ENDED")
        assert (await colleague.get("/me"))["on_behalf_of"] is None
        await on_record(district, "delegation.end", delegation["delegation_id"])


async def test_what_the_absent_one_loses_the_delegate_loses(district, dispatcher, colleague):
    delegation = await lent(dispatcher, colleague, "dispatcher")
    good(await act(colleague, delegation["delegation_id"]))
    accounts = district.services.database["staff"]
    mine = {"_id": dispatcher.facts["staff_id"]}
    await accounts.update_one(mine, {"$set": {"roles": ["intake"], "areas": [OTHER_STREET]}})
    me = await colleague.get("/me")
    assert (me["roles"], me["permissions"], me["areas"]) == ([], [], [OTHER_STREET])
    await accounts.update_one(mine, {"$set": {"disabled": True}})
    problem(await colleague.call("GET", "/me"), 403, "DELEGATION_ENDED")


async def test_it_cannot_be_passed_on(district, dispatcher, colleague):
    third = await somebody(district, "collector", areas=[STREET])
    delegation = await lent(dispatcher, colleague, "dispatcher")
    body = {"to": third.facts["staff_id"], "roles": ["dispatcher"], "reason": "再转一手", **period()}
    # Not as oneself, who does not have the role; not in the other's place either.
    problem(await colleague.call("POST", "/delegations", json=body), 422, "NOT_ONES_ROLE")
    good(await act(colleague, delegation["delegation_id"]))
    problem(await colleague.call("POST", "/delegations", json=body), 403, "NOT_PASSED_ON")


async def test_administering_accounts_is_not_lent(district):
    """Else one could give oneself for good what was lent for a week."""
    admin = await somebody(district, "admin")
    colleague = await somebody(district, "assessor")
    delegation = await lent(admin, colleague, "admin")
    me = good(await act(colleague, delegation["delegation_id"]))
    assert {"staff.manage", "staff.grant_any", "role.manage"}.isdisjoint(me["permissions"])
    assert "routing.manage" in me["permissions"]
    problem(await colleague.call("POST", "/staff", json={}), 403, "NO_PERMISSION")


async def test_only_to_a_colleague_of_the_same_unit_and_area_for_a_time_that_makes_sense(district, dispatcher):
    unit = await somebody(district, "unit", unit="roads")
    admin = await somebody(district, "admin")
    street = await somebody(district, "dispatcher", areas=[STREET])
    elsewhere = await somebody(district, "dispatcher", areas=[OTHER_STREET])
    base = {"roles": ["dispatcher"], "reason": "年假", **period()}
    for lender, to in (
        (dispatcher, unit.facts["staff_id"]),
        (street, elsewhere.facts["staff_id"]),
        (dispatcher, dispatcher.facts["staff_id"]),
        (dispatcher, new_id()),
    ):
        problem(await lender.call("POST", "/delegations", json={**base, "to": to}), 404, "NO_SUCH_STAFF")
    to = street.facts["staff_id"]
    for times in (period(ends=-DAY), period(begins=2 * DAY, ends=DAY), period(ends=91 * DAY)):
        problem(await dispatcher.call("POST", "/delegations", json={**base, **times, "to": to}), 422, "INVALID")
    answer = await dispatcher.call("POST", "/delegations", json={**base, "to": to, "roles": ["admin"]})
    assert problem(answer, 422, "NOT_ONES_ROLE") == {"roles": ["admin"]}
    for _ in range(10):
        await lent(dispatcher, street, "dispatcher")
    answer = await dispatcher.call("POST", "/delegations", json={**base, "to": to})
    problem(answer, 409, "TOO_MANY_DELEGATIONS")
    seen, page = [], None
    while True:
        answer = await dispatcher.get("/delegations", direction="given", size=4, **({"page": page} if page else {}))
        seen += [d["delegation_id"] for d in answer["delegations"]]
        page = answer["next_page"]
        if page is None:
            break
    assert len(seen) == len(set(seen)) == 10
    assert (await admin.get("/delegations"))["delegations"] == []


async def test_ones_own_account_stays_ones_own_while_one_acts_for_another(district, dispatcher, colleague):
    delegation = await lent(dispatcher, colleague, "dispatcher")
    good(await act(colleague, delegation["delegation_id"]))
    change = {"present": PASSWORD, "wanted": "Another-Password-2"}
    good(await colleague.call("PUT", "/me/password", json=change))
    given = {"username": colleague.facts["username"], "password": "Another-Password-2"}
    good(await district.nobody("/admin/api/v1").call("POST", "/session", json=given))
    given = {"username": dispatcher.facts["username"], "password": PASSWORD}
    good(await district.nobody("/admin/api/v1").call("POST", "/session", json=given))


async def test_a_role_that_demands_a_second_factor_is_used_only_by_who_has_shown_one(mongodb_url, redis_url, tmp_path):
    sessions = {"second_factor": "by_role"}
    async with open_district(
        mongodb_url, redis_url, tmp_path, database=f"test_{new_id()}", sessions=sessions, worker=False
    ) as strict:
        name = f"away{random.randrange(10**9)}"
        person = NewStaff(username=name, name="出差人", roles=["admin"], areas=[DISTRICT])
        staff_id = await strict.services[StaffService].create(person, PASSWORD)
        delegate = await somebody(strict, "assessor")
        moment = now()
        delegation = new_id()
        await strict.services.database["delegations"].insert_one(
            {
                "_id": delegation,
                "from": {"id": staff_id, "name": "出差人"},
                "to": {"id": delegate.facts["staff_id"], "name": "代理人"},
                "roles": ["admin"],
                "begins_at": moment,
                "ends_at": moment + DAY,
                "reason": "出差",
                "created_at": moment,
                "ended_at": None,
                "ended_by": None,
                "version": 1,
                "owed": [],
            }
        )
        problem(await act(delegate, delegation), 403, "SECOND_FACTOR_REQUIRED")


async def test_areas_are_listed_level_by_level_with_what_is_in_each(district):
    admin = await somebody(district, "admin")
    collector = await somebody(district, "collector", areas=[STREET])
    (top,) = (await admin.get("/areas"))["areas"]
    streets = (await admin.get("/areas", parent=top["code"]))["areas"]
    assert (top["code"], top["level"], top["inside"]) == (DISTRICT, "district", len(streets))
    assert [s["code"] for s in streets] == sorted(s["code"] for s in streets)
    street = next(s for s in streets if s["code"] == STREET)
    assert (street["parent"], street["staff"] >= 1) == (DISTRICT, True)
    grids, page = [], None
    while True:
        answer = await admin.get("/areas", level="grid", size=7, **({"page": page} if page else {}))
        grids += [g["code"] for g in answer["areas"]]
        page = answer["next_page"]
        if page is None:
            break
    assert grids == [a.code for a in await district.services[PlaceService].areas() if a.level == "grid"]
    citizen = await district.citizen()
    before = (await admin.get(f"/areas/{DISTRICT}"))["open_cases"]
    await district.settled(await district.submit(citizen))
    assert (await admin.get(f"/areas/{DISTRICT}"))["open_cases"] == before + 1
    # What is beyond one's reach is on the map, but not counted.
    other = await collector.get(f"/areas/{OTHER_STREET}")
    assert (other["open_cases"], other["staff"]) == (None, None)
    assert (await collector.get(f"/areas/{STREET}"))["open_cases"] is not None
    problem(await admin.call("GET", "/areas/990101999"), 404, "AREA_NOT_FOUND")
    rule = {"key": f"area{random.randrange(10**9)}", "name": "本街道", "areas": [STREET], "unit": "roads"}
    await admin.post("/routing/rules", {**rule, "categories": ["construction_waste"]})
    assert (await admin.get(f"/areas/{STREET}"))["rules"] == street["rules"] + 1
    good(await admin.call("DELETE", f"/routing/rules/{rule['key']}?version=1"))


async def test_what_of_a_role_is_not_lent_is_said_and_powers_alone_are_refused(district, colleague):
    for key, kept in (("security_admin", ["role.manage", "staff.grant_any"]), ("audit_admin", ["audit.view"])):
        lender = await somebody(district, key)
        assert (await lent(lender, colleague, key))["not_lent"] == kept
        listed = (await lender.get("/delegations", direction="given"))["delegations"]
        assert [d["not_lent"] for d in listed] == [kept]
    alone = f"alone_{''.join(random.choices('abcdefghij', k=8))}"
    await district.services[StaffService].put_role(Role(key=alone, name="只有审计", permissions=["audit.view"]))
    lender = await somebody(district, alone)
    body = {"to": colleague.facts["staff_id"], "roles": [alone], "reason": "年假", **period()}
    refused = await lender.call("POST", "/delegations", json=body)
    assert problem(refused, 422, "NOTHING_LENT") == {"not_lent": ["audit.view"]}
    assert (await lender.get("/delegations", direction="given"))["delegations"] == []
