"""Signing in as classified protection level 3 wants it: own passwords, a second factor, one session, no idling."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pyotp
import pytest
import pytest_asyncio

from accounts.models import NewStaff
from accounts.sessions import SessionService
from accounts.staff import StaffService
from core.clock import now
from core.ids import new_id
from tests.api.support import problem
from tests.clock import later
from tests.district import Client, good, open_district
from tests.seeding import PASSWORD
from tests.timing import PATIENCE

OTHER = "Another-Password-2"


@pytest_asyncio.fixture(scope="module")
async def strict(mongodb_url, redis_url, tmp_path_factory):
    """A district with what the product allows by default, where roles that demand a second factor get it."""
    folder = tmp_path_factory.mktemp("strict")
    sessions = {"second_factor": "by_role"}
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}", sessions=sessions) as opened:
        yield opened


async def sign_in(district, username, password=PASSWORD, **more):
    """The answer to a sign-in."""
    given = {"username": username, "password": password, **more}
    return await district.nobody("/admin/api/v1").call("POST", "/session", json=given)


def client_of(district, answer) -> Client:
    """Whoever has just signed in."""
    opened = good(answer)
    return Client(district.http, "/admin/api/v1", opened["token"], **opened["staff"])


async def account(district, *roles, must_change=False) -> str:
    """The name of a new account."""
    username = f"person{random.randrange(10**9)}"
    person = NewStaff(username=username, name="某人", roles=list(roles) or ["dispatcher"], areas=["990101"])
    await district.services[StaffService].create(person, PASSWORD, must_change=must_change)
    return username


async def on_record(district, action, subject_id):
    audit = district.services.database["audit"]
    async with asyncio.timeout(PATIENCE):
        while True:
            entry = await audit.find_one({"action": action, "subject.id": subject_id})
            if entry is not None:
                return entry
            await asyncio.sleep(0.05)


# --- one session at a time


async def test_signing_in_again_ends_the_older_session_which_is_told_why(strict):
    username = await account(strict)
    older = client_of(strict, await sign_in(strict, username))
    await older.get("/me")
    newer = client_of(strict, await sign_in(strict, username))
    problem(await older.call("GET", "/me"), 401, "SESSION_REPLACED")
    assert [s["current"] for s in (await newer.get("/me/sessions"))["sessions"]] == [True]


async def test_of_many_sign_ins_at_once_one_session_is_left(strict):
    username = await account(strict)
    answers = await asyncio.gather(*(sign_in(strict, username) for _ in range(6)))
    # One that was replaced before it was answered is told so at once.
    people = [client_of(strict, answer) for answer in answers if answer.status_code == 200]
    for answer in answers:
        if answer.status_code != 200:
            problem(answer, 401, "SESSION_REPLACED")
    statuses = [(await person.call("GET", "/me")).status_code for person in people]
    assert sorted(statuses) == [200, *[401] * (len(people) - 1)]


async def test_a_district_may_allow_several_sessions_which_are_listed_and_ended(district):
    username = await account(district)
    one = client_of(district, await sign_in(district, username))
    two = client_of(district, await sign_in(district, username))
    listed = (await one.get("/me/sessions"))["sessions"]
    assert [s["current"] for s in listed] == [False, True]
    assert {s["address"] for s in listed} == {"127.0.0.1"}
    other = next(s for s in listed if not s["current"])
    assert (await one.call("DELETE", f"/me/sessions/{other['session_id']}")).status_code == 204
    problem(await two.call("GET", "/me"), 401, "SESSION_ENDED")
    await one.get("/me")
    problem(await one.call("DELETE", f"/me/sessions/{other['session_id']}"), 404, "NO_SUCH_SESSION")
    entry = await on_record(district, "staff.end_session", one.facts["staff_id"])
    assert entry["result"] == "done"


async def test_an_administrator_ends_the_sessions_of_those_they_administer(district):
    username = await account(district)
    person = client_of(district, await sign_in(district, username))
    admin = client_of(district, await sign_in(district, await account(district, "admin")))
    path = f"/staff/{person.facts['staff_id']}/sessions"
    (session,) = (await admin.get(path))["sessions"]
    assert not session["current"]
    problem(await person.call("GET", path), 403, "NO_PERMISSION")
    assert (await admin.call("DELETE", f"{path}/{session['session_id']}")).status_code == 204
    problem(await person.call("GET", "/me"), 401, "SESSION_ENDED")


async def test_an_idle_session_ends_and_is_not_listed_any_more(strict):
    username = await account(strict)
    person = client_of(strict, await sign_in(strict, username))
    with later(minutes=strict.settings.sessions.staff_idle_minutes + 1):
        assert await strict.services[SessionService].open_sessions(person.facts["staff_id"]) == []
        problem(await person.call("GET", "/me"), 401, "SESSION_IDLE")


# --- passwords


async def test_who_has_a_first_password_may_do_nothing_before_changing_it(strict):
    username = await account(strict, must_change=True)
    person = client_of(strict, await sign_in(strict, username))
    assert person.facts["duties"] == ["password"]
    for method, path in (("GET", "/reports"), ("GET", "/directory"), ("GET", "/me/sessions")):
        problem(await person.call(method, path), 403, "PASSWORD_CHANGE_REQUIRED")
    assert (await person.get("/me"))["duties"] == ["password"]
    good(await person.call("PUT", "/me/password", json={"present": PASSWORD, "wanted": OTHER}))
    assert (await person.get("/me"))["duties"] == []
    await person.get("/reports")
    problem(await sign_in(strict, username), 401, "WRONG_PASSWORD")
    good(await sign_in(strict, username, OTHER))
    entry = await on_record(strict, "staff.change_password", person.facts["staff_id"])
    assert OTHER not in str(entry)
    assert "argon2" not in str(entry)


async def test_a_password_ends_by_its_age(strict):
    username = await account(strict)
    person = client_of(strict, await sign_in(strict, username))
    await person.get("/reports")
    with later(days=strict.settings.passwords.expiry_days, seconds=1):
        person = client_of(strict, await sign_in(strict, username))
        problem(await person.call("GET", "/reports"), 403, "PASSWORD_CHANGE_REQUIRED")


async def test_former_passwords_are_not_taken_again_until_enough_others_came(strict):
    username = await account(strict)
    person = client_of(strict, await sign_in(strict, username))
    present = PASSWORD
    for number in range(strict.settings.passwords.history):
        for former in {present, PASSWORD}:
            answer = await person.call("PUT", "/me/password", json={"present": present, "wanted": former})
            problem(answer, 422, "PASSWORD_REUSED")
        wanted = f"Password-Number-{number}"
        good(await person.call("PUT", "/me/password", json={"present": present, "wanted": wanted}))
        present = wanted
    good(await person.call("PUT", "/me/password", json={"present": present, "wanted": PASSWORD}))


async def test_a_weak_password_or_a_wrong_present_one_changes_nothing(strict):
    username = await account(strict)
    person = client_of(strict, await sign_in(strict, username))
    for wanted in ("short", "alllowercase", f"X1-{username}"):
        answer = await person.call("PUT", "/me/password", json={"present": PASSWORD, "wanted": wanted})
        problem(answer, 422, "WEAK_PASSWORD")
    for _ in range(strict.settings.sessions.staff_failures):
        answer = await person.call("PUT", "/me/password", json={"present": "Wrong-Password-1", "wanted": OTHER})
        problem(answer, 422, "WRONG_PASSWORD")
    answer = await person.call("PUT", "/me/password", json={"present": PASSWORD, "wanted": OTHER})
    problem(answer, 429, "ACCOUNT_LOCKED")
    # The name itself is not locked by that: one could not sign in any more.
    good(await sign_in(strict, username))


async def test_changing_the_password_ends_the_other_sessions(district):
    username = await account(district)
    one = client_of(district, await sign_in(district, username))
    two = client_of(district, await sign_in(district, username))
    good(await one.call("PUT", "/me/password", json={"present": PASSWORD, "wanted": OTHER}))
    await one.get("/me")
    answer = await two.call("GET", "/me")
    problem(answer, 401, "SESSION_ENDED")
    assert "密码" in answer.json()["message"]


# --- second factor


async def enrolled(district, *roles):
    """(user name, the secret of the app, recovery codes, who has just set it up)."""
    username = await account(district, *roles)
    person = client_of(district, await sign_in(district, username))
    made = good(await person.call("POST", "/me/second-factor", json={"password": PASSWORD}))
    good(await person.call("POST", "/me/second-factor/confirm", json={"code": code_of(made["secret"])}))
    return username, made["secret"], made["recovery_codes"], person


def code_of(secret, **shift):
    """The code that the app shows now, or then."""
    return pyotp.TOTP(secret).at(now() + timedelta(**shift))


async def test_a_role_that_demands_a_second_factor_lets_nothing_through_before_it_is_set_up(strict):
    username = await account(strict, "admin")
    person = client_of(strict, await sign_in(strict, username))
    assert person.facts["duties"] == ["second_factor"]
    problem(await person.call("GET", "/staff"), 403, "SECOND_FACTOR_REQUIRED")
    made = good(await person.call("POST", "/me/second-factor", json={"password": PASSWORD}))
    assert made["uri"].startswith("otpauth://totp/")
    assert made["secret"] in made["uri"]
    assert len(set(made["recovery_codes"])) == 10
    problem(await person.call("GET", "/staff"), 403, "SECOND_FACTOR_REQUIRED")
    wrong = "000000" if code_of(made["secret"]) != "000000" else "000001"
    problem(await person.call("POST", "/me/second-factor/confirm", json={"code": wrong}), 422, "WRONG_CODE")
    good(await person.call("POST", "/me/second-factor/confirm", json={"code": code_of(made["secret"])}))
    await person.get("/staff")
    problem(await sign_in(strict, username), 401, "CODE_REQUIRED")


async def test_a_code_signs_in_once(strict):
    username, secret, _, _ = await enrolled(strict)
    with later(seconds=60):
        code = code_of(secret)
        opened = client_of(strict, await sign_in(strict, username, code=code))
        assert (await opened.get("/me/sessions"))["sessions"][0]["second_factor"]
        problem(await sign_in(strict, username, code=code), 401, "WRONG_CODE")
        # Nor does the one before it, which was not used.
        problem(await sign_in(strict, username, code=code_of(secret, seconds=-30)), 401, "WRONG_CODE")
        good(await sign_in(strict, username, code=code_of(secret, seconds=30)))


async def test_the_code_that_confirmed_does_not_sign_in(strict):
    username, secret, _, _ = await enrolled(strict)
    problem(await sign_in(strict, username, code=code_of(secret)), 401, "WRONG_CODE")


async def test_of_sign_ins_at_once_with_one_code_a_single_one_succeeds(strict):
    username, secret, _, _ = await enrolled(strict)
    with later(seconds=90):
        code = code_of(secret)
        answers = await asyncio.gather(*(sign_in(strict, username, code=code) for _ in range(4)))
    assert sorted(a.status_code for a in answers) == [200, 401, 401, 401]


async def test_wrong_codes_lock_the_name_like_wrong_passwords(strict):
    username, secret, _, _ = await enrolled(strict)
    with later(minutes=5):
        right = {code_of(secret, seconds=s) for s in (-30, 0, 30)}
        wrong = next(c for c in ("111111", "222222", "333333", "444444") if c not in right)
        for _ in range(strict.settings.sessions.staff_failures):
            problem(await sign_in(strict, username, code=wrong), 401, "WRONG_CODE")
        problem(await sign_in(strict, username, code=code_of(secret)), 429, "ACCOUNT_LOCKED")


async def test_a_wrong_password_is_told_as_such_whether_or_not_there_is_a_second_factor(strict):
    username, secret, _, _ = await enrolled(strict)
    answer = await sign_in(strict, username, "Wrong-Password-1", code=code_of(secret, seconds=30))
    problem(answer, 401, "WRONG_PASSWORD")


async def test_a_recovery_code_signs_in_once_and_is_on_record(strict):
    username, _, codes, person = await enrolled(strict)
    good(await sign_in(strict, username, code=codes[3].upper()))
    problem(await sign_in(strict, username, code=codes[3]), 401, "WRONG_CODE")
    good(await sign_in(strict, username, code=codes[4]))
    entries = strict.services.database["audit"].find(
        {"action": "staff.sign_in", "subject.id": person.facts["staff_id"], "result": "done"}
    )
    assert [e["details"] async for e in entries.sort("at", 1)][1:] == [{"second_factor": "recovery_code"}] * 2


async def test_neither_secret_nor_recovery_codes_are_stored_in_clear(strict):
    username, secret, codes, _ = await enrolled(strict)
    stored = str(await strict.services.database["staff"].find_one({"username": username}))
    assert secret not in stored
    assert not [code for code in codes if code in stored]


async def test_an_administrator_takes_a_lost_second_factor_off_which_is_on_record(strict):
    username, _, _, person = await enrolled(strict)
    _, _, _, admin = await enrolled(strict, "admin")
    path = f"/staff/{person.facts['staff_id']}"
    seen = await admin.get(path)
    assert seen["second_factor"]
    answer = await admin.post(f"{path}/second-factor-reset", {"version": seen["version"], "reason": "手机丢失"})
    assert not answer["second_factor"]
    problem(await person.call("GET", "/me"), 401, "SESSION_ENDED")
    good(await sign_in(strict, username))
    entry = await on_record(strict, "staff.reset_second_factor", admin.facts["staff_id"])
    assert (entry["reason"], entry["object"]["id"]) == ("手机丢失", person.facts["staff_id"])


async def test_a_second_factor_is_replaced_only_by_who_has_shown_it_and_knows_the_password(strict):
    username, secret, _, person = await enrolled(strict)
    wrong = await person.call("POST", "/me/second-factor", json={"password": "Wrong-Password-1"})
    problem(wrong, 422, "WRONG_PASSWORD")
    made = good(await person.call("POST", "/me/second-factor", json={"password": PASSWORD}))
    # Until the new one is confirmed the old one counts.
    with later(minutes=2):
        person = client_of(strict, await sign_in(strict, username, code=code_of(secret)))
        good(await person.call("POST", "/me/second-factor/confirm", json={"code": code_of(made["secret"])}))
    with later(minutes=4):
        problem(await sign_in(strict, username, code=code_of(secret)), 401, "WRONG_CODE")
        good(await sign_in(strict, username, code=code_of(made["secret"])))


@pytest.mark.parametrize("code", ["12345", "1234567", "abcdef", "aaaa-bbbb-cccc", "１２３４５６"])
async def test_what_is_no_code_is_refused_as_such(strict, code):
    problem(await sign_in(strict, "anyone", code=code), 422, "INVALID")
