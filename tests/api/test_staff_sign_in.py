"""Staff sign in: names lock whether or not they exist, sessions end, weak passwords are not taken."""

from __future__ import annotations

import random

import pytest
import pytest_asyncio

from accounts.models import NewStaff
from accounts.staff import StaffService
from core.errors import AppError
from tests.api.support import problem
from tests.clock import later
from tests.district import good
from tests.seeding import PASSWORD


async def sign_in(district, username: str, password: str = PASSWORD):
    credentials = {"username": username, "password": password}
    return await district.nobody("/admin/api/v1").call("POST", "/session", json=credentials)


@pytest_asyncio.fixture
async def username(district):
    """The name of a new member of staff, so that locking it locks nobody else out."""
    name = f"person{random.randrange(10**9)}"
    person = NewStaff(username=name, name="新人", roles=["dispatcher"], areas=["990101"])
    await district.services[StaffService].create(person, PASSWORD)
    return name


async def test_who_knows_the_password_is_let_in_whatever_the_case_of_the_name(district, username):
    opened = good(await sign_in(district, username.upper()))
    assert opened["expires_in"] == district.settings.sessions.staff_hours * 3600
    assert opened["staff"]["roles"] == ["dispatcher"]
    assert "report.dispatch" in opened["staff"]["permissions"]


@pytest.mark.parametrize("known", [True, False], ids=["a name that exists", "a name that does not"])
async def test_a_name_locks_after_five_failures_and_opens_after_a_while(district, username, known):
    name = username if known else f"nobody{random.randrange(10**9)}"
    for _ in range(district.settings.sessions.staff_failures):
        problem(await sign_in(district, name, "Wrong-Password-1"), 401, "WRONG_PASSWORD")
    # From here on the right password does not help, and it does not tell that it is right.
    for password in (PASSWORD, "Wrong-Password-1"):
        answer = await sign_in(district, name, password)
        details = problem(answer, 429, "ACCOUNT_LOCKED")
        minutes = district.settings.sessions.staff_lock_minutes
        assert 0 < details["retry_after"] <= minutes * 60
        assert answer.headers["Retry-After"] == str(details["retry_after"])
        assert f"{minutes} 分钟" in answer.json()["message"]
    locks = district.services.database["audit"]
    assert await locks.count_documents({"action": "staff.locked", "subject.id": name}) == 1
    with later(minutes=minutes, seconds=1):
        if known:
            good(await sign_in(district, name))
        else:
            problem(await sign_in(district, name), 401, "WRONG_PASSWORD")


async def test_failures_of_a_name_and_of_none_are_answered_alike(district, username):
    known = await sign_in(district, username, "Wrong-Password-1")
    unknown = await sign_in(district, "no-such-person", "Wrong-Password-1")
    a, b = known.json(), unknown.json()
    del a["request_id"], b["request_id"]
    assert (known.status_code, a) == (unknown.status_code, b)


async def test_a_success_forgets_the_failures_before_it(district, username):
    for _ in range(3):
        for _ in range(district.settings.sessions.staff_failures - 1):
            problem(await sign_in(district, username, "Wrong-Password-1"), 401, "WRONG_PASSWORD")
        good(await sign_in(district, username))


async def test_a_session_ends_by_idling_but_not_while_it_is_used(district, username):
    token = good(await sign_in(district, username))["token"]
    staff, headers = district.nobody("/admin/api/v1"), {"Authorization": f"Bearer {token}"}
    idle = district.settings.sessions.staff_idle_minutes
    for minutes in (idle - 1, 2 * idle - 2, 3 * idle - 3):
        with later(minutes=minutes):
            good(await staff.call("GET", "/me", headers=headers))
    with later(minutes=4 * idle - 2):
        problem(await staff.call("GET", "/me", headers=headers), 401, "SESSION_IDLE")
    problem(await staff.call("GET", "/me", headers=headers), 401, "SESSION_EXPIRED")


async def test_the_longest_session_ends_however_much_it_is_used(district, username):
    token = good(await sign_in(district, username))["token"]
    staff, headers = district.nobody("/admin/api/v1"), {"Authorization": f"Bearer {token}"}
    hours = district.settings.sessions.staff_hours
    for minutes in range(0, hours * 60, 25):
        with later(minutes=minutes):
            good(await staff.call("GET", "/me", headers=headers))
    with later(hours=hours, seconds=1):
        problem(await staff.call("GET", "/me", headers=headers), 401, "SESSION_EXPIRED")


async def test_signing_out_ends_the_session(district, username):
    token = good(await sign_in(district, username))["token"]
    staff, headers = district.nobody("/admin/api/v1"), {"Authorization": f"Bearer {token}"}
    assert (await staff.call("DELETE", "/session", headers=headers)).status_code == 204
    problem(await staff.call("GET", "/me", headers=headers), 401, "SESSION_EXPIRED")


async def test_a_disabled_account_is_out_at_once_and_cannot_come_in(district, username):
    token = good(await sign_in(district, username))["token"]
    staff, headers = district.nobody("/admin/api/v1"), {"Authorization": f"Bearer {token}"}
    await district.services.database["staff"].update_one({"username": username}, {"$set": {"disabled": True}})
    problem(await staff.call("GET", "/reports", headers=headers), 401, "ACCOUNT_DISABLED")
    problem(await sign_in(district, username), 401, "WRONG_PASSWORD")


async def test_a_role_taken_away_counts_from_the_next_request(district, username):
    token = good(await sign_in(district, username))["token"]
    staff, headers = district.nobody("/admin/api/v1"), {"Authorization": f"Bearer {token}"}
    await district.services.database["staff"].update_one({"username": username}, {"$set": {"roles": []}})
    answer = await staff.call("GET", "/reports", headers=headers)
    assert problem(answer, 403, "NO_PERMISSION") == {"permission": "report.view"}


@pytest.mark.parametrize(
    "password",
    ["", "Short-1", "alllowercase", "ALLUPPERCASE", "1234567890123", "lowerand1234", "Aa1" + "x" * 126, "Xusername-1A"],
)
async def test_a_weak_password_is_not_taken(district, password):
    username = "username"
    person = NewStaff(username=username, name="新人", roles=["dispatcher"], areas=["990101"])
    with pytest.raises(AppError) as refusal:
        await district.services[StaffService].create(person, password)
    assert (refusal.value.status, refusal.value.code) == (422, "WEAK_PASSWORD")
    assert await district.services.database["staff"].find_one({"username": username}) is None


async def test_passwords_are_stored_as_argon2_and_never_come_out(district, username):
    stored = await district.services.database["staff"].find_one({"username": username})
    assert stored["password_hash"].startswith("$argon2id$")
    answer = await sign_in(district, username)
    assert "argon2" not in answer.text
    assert PASSWORD not in answer.text
