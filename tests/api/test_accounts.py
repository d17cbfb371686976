"""Citizens' accounts over HTTP: signing in with WeChat, profile, phone, consents, export, and being forgotten."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import pytest_asyncio

from accounts.citizens import CitizenService
from core.queue.debts import owe
from tests.api.support import accept_all, fields, holding, new_report, problem
from tests.clock import later
from tests.district import District, good
from tests.timing import until

LOGIN, PHONE = "/sns/jscode2session", "/wxa/business/getuserphonenumber"


async def login_code(district, name: str) -> str:
    return str((await district.control("GET", "/login-code", user=name))["code"])


async def test_the_first_sign_in_makes_an_account_and_the_next_finds_it(district):
    first = await district.citizen("zhang")
    again = await district.citizen("zhang")
    assert again.facts["citizen_id"] == first.facts["citizen_id"]
    assert again.token != first.token
    me = await first.get("/me")
    assert (me["nickname"], me["phone"], me["consents"]) == ("", None, [])
    assert me["unused_accepts"] == dict.fromkeys(me["templates"], 0)


async def test_two_first_sign_ins_at_once_are_one_account(district):
    codes = [await login_code(district, "twins") for _ in range(4)]
    opened = await asyncio.gather(*(district.nobody().post("/session", {"code": c}) for c in codes))
    assert len({o["citizen"]["citizen_id"] for o in opened}) == 1


async def test_a_code_is_good_once(district):
    code = await login_code(district, "once")
    await district.nobody().post("/session", {"code": code})
    problem(await district.nobody().call("POST", "/session", json={"code": code}), 422, "WECHAT_CODE_INVALID")
    never = await district.nobody().call("POST", "/session", json={"code": "never-issued"})
    problem(never, 422, "WECHAT_CODE_INVALID")


@pytest.mark.parametrize("code", ["", "x" * 129, "有汉字", "with space", "line\nbreak", None, 5])
async def test_a_code_out_of_form_is_refused_before_wechat_is_asked(district, code):
    before = (await district.control("GET", "/received"))["calls"].get(LOGIN)
    answer = await district.nobody().call("POST", "/session", json={"code": code})
    assert fields(problem(answer, 422, "INVALID")) == {"code"}
    assert (await district.control("GET", "/received"))["calls"].get(LOGIN) == before


async def test_whom_wechat_blocks_is_not_let_in(district):
    await district.control("POST", "/users", {"user": "blocked", "blocked": True})
    answer = await district.nobody().call("POST", "/session", json={"code": await login_code(district, "blocked")})
    problem(answer, 403, "WECHAT_USER_BLOCKED")


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        ({"errcode": -1}, 503, "WECHAT_BUSY"),
        ({"errcode": 45011}, 503, "WECHAT_BUSY"),
        ({"http_status": 502}, 503, "WECHAT_BUSY"),
        ({"drop": True}, 503, "WECHAT_BUSY"),
        ({"errcode": 40125}, 502, "WECHAT_ERROR"),
        ({"errcode": 99999}, 502, "WECHAT_ERROR"),
    ],
    ids=str,
)
async def test_trouble_at_wechat_is_told_and_the_next_try_works(district, trouble, status, code):
    name = f"patient-{status}-{code}"
    await district.control("POST", "/errors", {"path": LOGIN, **trouble})
    answer = await district.nobody().call("POST", "/session", json={"code": await login_code(district, name)})
    problem(answer, status, code)
    await district.citizen(name)


async def test_a_citizen_changes_the_nickname(district):
    citizen = await district.citizen()
    changed = good(await citizen.call("PATCH", "/me", json={"nickname": "  热心市民😀 "}))
    assert changed["nickname"] == "热心市民😀"
    assert (await citizen.get("/me"))["nickname"] == "热心市民😀"
    for wrong in ({"nickname": "字" * 21}, {"nickname": "a\u0007b"}, {"nickname": None}, {}, {"phone": "1"}):
        problem(await citizen.call("PATCH", "/me", json=wrong), 422, "INVALID")
    assert (await citizen.get("/me"))["nickname"] == "热心市民😀"


@pytest.mark.parametrize("country_code_as", ["string", "number"])
async def test_a_phone_is_shown_masked_and_lies_in_no_collection_in_clear(district, country_code_as):
    citizen = await district.citizen()
    number = "13912340099" if country_code_as == "string" else "13912340088"
    code = await district.control(
        "GET", "/phone-code", user=citizen.facts["name"], phone=number, country_code_as=country_code_as
    )
    after = await citizen.post("/me/phone", {"code": code["code"]})
    assert after["phone"] == f"139****{number[-4:]}"
    report = await district.submit(citizen, contact_phone=number)
    await district.settled(report)
    shown = await citizen.call("GET", f"/reports/{report}")
    case = await (await district.staff("dispatcher")).call("GET", f"/reports/{report}")
    assert number not in shown.text + case.text
    assert case.json()["contact_phone"] == f"139****{number[-4:]}"
    assert await holding(district, number) == []
    stored = await district.services.database["citizens"].find_one({"_id": citizen.facts["citizen_id"]})
    assert district.services[CitizenService].masked_phone(stored) == after["phone"]
    used = await citizen.call("POST", "/me/phone", json={"code": code["code"]})
    problem(used, 422, "WECHAT_CODE_INVALID")


async def test_a_login_code_is_no_phone_code(district):
    citizen = await district.citizen()
    code = await login_code(district, citizen.facts["name"])
    problem(await citizen.call("POST", "/me/phone", json={"code": code}), 422, "WECHAT_CODE_INVALID")


async def test_consents_are_logged_and_the_latest_is_shown(district):
    citizen = await district.citizen()
    lines = [("privacy_policy", "1.0", True), ("location", "1.0", True), ("privacy_policy", "1.1", False)]
    for subject, version, given in lines:
        await citizen.post("/me/consents", {"subject": subject, "version": version, "given": given})
    shown = {c["subject"]: (c["version"], c["given"]) for c in (await citizen.get("/me"))["consents"]}
    assert shown == {"privacy_policy": ("1.1", False), "location": ("1.0", True)}
    stored = await district.services.database["citizens"].find_one({"_id": citizen.facts["citizen_id"]})
    assert [(c["subject"], c["version"], c["given"]) for c in stored["consents"]] == lines
    for wrong in ({"subject": "marketing", "version": "1", "given": True}, {"subject": "phone", "version": "1"}):
        problem(await citizen.call("POST", "/me/consents", json=wrong), 422, "INVALID")


@pytest_asyncio.fixture
async def citizen(district):
    """Someone whose phone and nickname nobody else has, so that they can be looked for."""
    someone = await district.citizen()
    digits = f"{random.randrange(10**8):08d}"
    someone.facts.update(phone=f"137{digits}", nickname=f"要被忘记的人{digits}")
    return someone


async def told_everything(district: District, citizen) -> str:
    """A citizen who has done whatever there is to do; the number of the report."""
    phone, name = citizen.facts["phone"], citizen.facts["nickname"]
    await accept_all(district, citizen, 3)
    code = await district.control("GET", "/phone-code", user=citizen.facts["name"], phone=phone)
    await citizen.post("/me/phone", {"code": code["code"]})
    await citizen.post("/me/consents", {"subject": "privacy_policy", "version": "1.0", "given": True})
    await citizen.call("PATCH", "/me", json={"nickname": name})
    body = new_report(await citizen.photo(), contact_phone=phone, description="我家门口的树倒了，请处理")
    number = str((await citizen.post("/reports", body, key=f"{citizen.facts['name']}-key"))["number"])
    await district.settled(number)
    await citizen.post(f"/reports/{number}/supplements", {"note": "又倒了一棵"}, key=f"{citizen.facts['name']}-more")
    other = await district.citizen()
    theirs = await district.submit(other)
    await district.settled(theirs)
    await citizen.post(f"/reports/{theirs}/follow")
    await citizen.photo()
    await district.drive(number, "dispatched")
    await district.drive(theirs, "dispatched")
    await district.settled(number)
    await district.settled(theirs)
    return number


async def test_the_export_holds_everything_of_ones_own_and_nothing_of_others(district, citizen):
    other = await district.citizen()
    number = await told_everything(district, citizen)
    theirs = await district.submit(other, contact_phone="13700003333", description="别人的事情，不该出现")
    answer = await citizen.call("GET", "/me/export")
    assert answer.status_code == 200
    assert "attachment" in answer.headers["Content-Disposition"]
    mine = answer.json()
    assert mine["account"]["openid"] == citizen.facts["openid"]
    assert mine["account"]["phone"] == f"+86{citizen.facts['phone']}"
    assert mine["account"]["nickname"] == citizen.facts["nickname"]
    assert [c["subject"] for c in mine["account"]["consents"]] == ["privacy_policy"]
    (report,) = mine["reports"]
    assert (report["number"], report["contact_phone"]) == (number, citizen.facts["phone"])
    assert [e["note"] for e in report["timeline"] if e["action"] == "supplement"] == ["又倒了一棵"]
    assert len(mine["follows"]) == 1
    assert len(mine["photos"]) == 2
    picture = await district.http.get(mine["photos"][0]["address"])
    assert (picture.status_code, picture.headers["Content-Type"]) == (200, "image/jpeg")
    assert {m["event"] for m in mine["messages"]} == {"filed", "dispatched", "closed", "rework", "supplement"}
    for secret in (other.facts["openid"], other.facts["citizen_id"], theirs, "13700003333", "别人的事情"):
        assert secret not in answer.text
    staff = (await district.staff("dispatcher")).facts["staff"]
    assert staff["staff_id"] not in answer.text, "the export names no member of staff"


async def deleted(district: District, citizen) -> dict[str, Any]:
    """What is left of the account once it is deleted and everything that follows from that is done."""
    gone = {"_id": citizen.facts["citizen_id"], "deleted_at": {"$exists": True}, "owed": []}
    return await until(lambda: district.services.database["citizens"].find_one(gone))  # type: ignore[no-any-return]


async def forgotten(district: District, citizen, number: str) -> None:
    """Wait until the citizen is forgotten, and look for what is left of them in the bytes of every collection."""
    row = await deleted(district, citizen)
    report = await district.settled(number)
    assert await holding(district, citizen.facts["openid"], citizen.facts["phone"], citizen.facts["nickname"]) == []
    # What is left is the bare mark that there was an account; without it a second deletion could not be told apart.
    assert row.keys() <= {"_id", "created_at", "signed_in_at", "deleted_at", "nickname", "consents", "owed"}
    assert (row["nickname"], row["consents"]) == ("", [])
    assert await holding(district, citizen.facts["citizen_id"]) == [f"citizens/{citizen.facts['citizen_id']}"]
    assert report["description"] == "我家门口的树倒了，请处理"
    case = await (await district.staff("dispatcher")).get(f"/reports/{number}")
    assert case["reporter"] == "已注销"
    assert case["contact_phone"] is None


@pytest.mark.long
async def test_deleting_the_account_ends_every_session_and_leaves_only_anonymous_reports(district, citizen):
    number = await told_everything(district, citizen)
    second_phone = await district.citizen(citizen.facts["name"])
    assert (await citizen.call("DELETE", "/me")).status_code == 204
    for phone in (citizen, second_phone):
        problem(await phone.call("GET", "/me"), 401, "SESSION_EXPIRED")
    await forgotten(district, citizen, number)
    # The case goes on without its reporter.
    await district.action("unit-sanitation", number, "accept")
    report = await district.settled(number)
    assert report["state"] == "accepted"
    newcomer = await district.citizen(citizen.facts["name"])
    assert newcomer.facts["citizen_id"] != citizen.facts["citizen_id"]
    assert (await newcomer.get("/reports", mine="true"))["reports"] == []
    problem(await newcomer.call("POST", f"/reports/{number}/supplements", json={"note": "x"}), 404, "NO_SUCH_REPORT")


@pytest.mark.long
async def test_who_closes_their_account_with_wechat_is_forgotten_here_too(district, citizen):
    number = await told_everything(district, citizen)
    closed = {"openid": citizen.facts["openid"], "event": "user_authorization_cancellation"}
    await district.control("POST", "/push", closed)
    await forgotten(district, citizen, number)


@pytest.mark.long
async def test_what_was_still_owed_to_a_deleted_citizen_is_settled_without_them(district, citizen):
    """Photos to be checked, words to be checked and messages to be sent, at the moment of deletion."""
    await accept_all(district, citizen)
    photo = await citizen.photo()
    number = await district.submit(citizen, photo_ids=[photo], contact_phone=citizen.facts["phone"])
    assert (await citizen.call("DELETE", "/me")).status_code == 204
    await deleted(district, citizen)
    photos = district.services.database["photos"]
    # As if the check had not been made yet when the person was forgotten.
    await photos.update_one({"_id": photo}, {"$set": {"check": {"verdict": "pending"}, "owed": [owe("check")]}})
    await district.settled(number)
    row = await until(lambda: photos.find_one({"_id": photo, "owed": []}))
    assert row["check"]["verdict"] == "unchecked"
    assert await holding(district, citizen.facts["openid"], citizen.facts["phone"]) == []
    assert await holding(district, citizen.facts["citizen_id"]) == [f"citizens/{citizen.facts['citizen_id']}"]


async def test_a_session_outlives_its_citizen_by_nothing(district, citizen):
    citizen = await district.citizen()
    with later(days=1):
        await citizen.call("DELETE", "/me")
    problem(await citizen.call("POST", "/subscriptions", json={"template_ids": ["x"]}), 401, "SESSION_EXPIRED")
    assert await district.services.database["sessions"].count_documents({"subject": citizen.facts["citizen_id"]}) == 0
