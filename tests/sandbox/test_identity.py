"""Login, access token, phone number and risk rank."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from sandbox.application import Sandbox
from sandbox.settings import Settings

from .conftest import TEMPLATE, Caller


async def test_a_login_code_gives_the_same_openid_once_and_a_new_session_key_each_time(caller: Caller):
    first = await caller.ask("login-code", user="wang")
    second = await caller.ask("login-code", user="wang")
    assert first["openid"] == second["openid"]
    assert re.fullmatch(r"o[A-Za-z0-9_-]{27}", first["openid"])
    one, two = await caller.login(first["code"]), await caller.login(second["code"])
    assert set(one) == {"openid", "session_key"}
    assert one["openid"] == first["openid"]
    assert len(base64.b64decode(one["session_key"])) == 16
    assert one["session_key"] != two["session_key"]
    reused = await caller.login(first["code"])
    assert reused["errcode"] == 40029
    assert re.search(r"rid: [0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}$", reused["errmsg"])


async def test_different_people_have_different_openids(caller: Caller):
    assert await caller.openid("wang") != await caller.openid("li")


async def test_a_login_code_is_over_after_five_minutes(caller: Caller):
    code = (await caller.ask("login-code"))["code"]
    late = (await caller.ask("login-code"))["code"]
    await caller.order("clock", advance_s=299)
    assert "openid" in await caller.login(code)
    await caller.order("clock", advance_s=1)
    assert (await caller.login(late))["errcode"] == 40029


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"appid": ""}, 41002),
        ({"secret": ""}, 41004),
        ({"js_code": ""}, 41008),
        ({"appid": "wx0000000000000000"}, 40013),
        ({"secret": "wrong"}, 40125),
        ({"grant_type": "password"}, 40002),
        ({"js_code": "0never-given"}, 40029),
    ],
)
async def test_login_refuses_wrong_parameters_and_leaves_the_code_good(
    caller: Caller, change: dict[str, str], errcode: int
):
    code = (await caller.ask("login-code"))["code"]
    assert (await caller.login(code, **change))["errcode"] == errcode
    assert "openid" in await caller.login(code)


async def test_the_hundred_and_first_login_in_a_minute_is_refused_and_another_persons_is_not(caller: Caller):
    for _ in range(100):
        assert "openid" in await caller.login((await caller.ask("login-code"))["code"])
    assert (await caller.login((await caller.ask("login-code"))["code"]))["errcode"] == 45011
    assert "openid" in await caller.login((await caller.ask("login-code", user="li"))["code"])
    await caller.order("clock", advance_s=60)
    assert "openid" in await caller.login((await caller.ask("login-code"))["code"])


async def test_a_blocked_person_cannot_log_in_and_a_unionid_is_told(caller: Caller):
    await caller.order("users", user="wang", blocked=True)
    assert (await caller.login((await caller.ask("login-code", user="wang"))["code"]))["errcode"] == 40226
    await caller.order("users", user="wang", blocked=False, unionid="oUnion-0000000000000000000001")
    answer = await caller.login((await caller.ask("login-code", user="wang"))["code"])
    assert answer["unionid"] == "oUnion-0000000000000000000001"


async def test_the_stable_token_stays_the_same_until_five_minutes_before_its_end(caller: Caller):
    first = await caller.token()
    assert 16 <= len(first["access_token"]) <= 512
    await caller.order("clock", advance_s=6800)
    again = await caller.token()
    assert again["access_token"] == first["access_token"]
    assert 300 <= again["expires_in"] <= 400
    await caller.order("clock", advance_s=150)
    renewed = await caller.token()
    assert renewed["access_token"] != first["access_token"]
    assert renewed["expires_in"] == 7200

    async def with_token(token: str) -> Any:
        answer = await caller.http.post("/wxa/msg_sec_check", params={"access_token": token}, json={"version": 1})
        return answer.json()["errcode"]

    assert await with_token(first["access_token"]) == 40097  # the token is still good, the body is not
    await caller.order("clock", advance_s=300)
    assert await with_token(first["access_token"]) == 42001


async def test_a_forced_refresh_ends_the_old_token_but_not_twice_within_thirty_seconds(caller: Caller):
    first = (await caller.token())["access_token"]
    forced = (await caller.token(force_refresh=True))["access_token"]
    assert forced != first
    answer = await caller.http.post("/wxa/getuserriskrank", params={"access_token": first}, json={})
    assert answer.json()["errcode"] == 40001
    assert (await caller.token(force_refresh=True))["access_token"] == forced
    for _ in range(19):
        await caller.order("clock", advance_s=30)
        assert "access_token" in await caller.token(force_refresh=True)
    await caller.order("clock", advance_s=30)
    assert (await caller.token(force_refresh=True))["errcode"] == 45009


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"grant_type": "other"}, 40002),
        ({"appid": ""}, 41002),
        ({"secret": ""}, 41004),
        ({"appid": "wx0"}, 40013),
        ({"secret": "x"}, 40125),
        ({"force_refresh": "yes"}, 47001),
    ],
)
async def test_the_stable_token_refuses_wrong_parameters(caller: Caller, change: dict[str, object], errcode: int):
    assert (await caller.token(**change))["errcode"] == errcode


async def test_every_way_a_token_can_be_wrong_has_its_errcode(caller: Caller):
    async def outcome(**query: str) -> Any:
        answer = await caller.http.post("/wxa/getuserriskrank", params=query, json={})
        assert answer.status_code == 200
        return answer.json()["errcode"]

    token = (await caller.token())["access_token"]
    assert await outcome() == 41001
    assert await outcome(access_token="not a token") == 40014
    assert await outcome(access_token="never_given_to_anybody") == 40001
    assert await outcome(access_token=token) == 41002
    await caller.order("token/expire")
    assert await outcome(access_token=token) == 42001
    token = (await caller.token())["access_token"]
    await caller.order("token/invalidate")
    assert await outcome(access_token=token) == 40001
    assert (await caller.token())["access_token"] != token


async def test_bodies_and_methods_out_of_form_are_refused(caller: Caller):
    token = (await caller.token())["access_token"]
    path = f"/wxa/msg_sec_check?access_token={token}"
    assert (await caller.http.post(path, content=b"")).json()["errcode"] == 44002
    assert (await caller.http.post(path, content=b"{")).json()["errcode"] == 47001
    assert (await caller.http.post(path, content=b"[]")).json()["errcode"] == 47001
    assert (await caller.http.get(path)).json()["errcode"] == 43002
    assert (await caller.http.post("/sns/jscode2session", json={})).json()["errcode"] == 43001


async def test_a_phone_code_is_its_own_kind_and_good_once(caller: Caller):
    path = "/wxa/business/getuserphonenumber"
    login = (await caller.ask("login-code"))["code"]
    assert (await caller.call(path, code=login))["errcode"] == 40029
    phone = await caller.ask("phone-code", phone="13800138000")
    assert (await caller.login(phone["code"]))["errcode"] == 40029
    info = (await caller.call(path, code=phone["code"]))["phone_info"]
    assert info["phoneNumber"] == info["purePhoneNumber"] == "13800138000"
    assert info["countryCode"] == "86"
    assert info["watermark"]["appid"] == caller.settings.appid
    assert (await caller.call(path, code=phone["code"]))["errcode"] == 40029
    numeric = await caller.ask("phone-code", country_code_as="number", country_code="852", phone="51234567")
    info = (await caller.call(path, code=numeric["code"]))["phone_info"]
    assert (info["countryCode"], info["phoneNumber"], info["purePhoneNumber"]) == (852, "+85251234567", "51234567")


async def test_the_risk_rank_is_told_for_who_was_active_within_two_hours(caller: Caller):
    openid = await caller.openid()
    await caller.order("users", risk_rank=3)
    good = {"appid": caller.settings.appid, "openid": openid, "scene": 1, "client_ip": "203.0.113.9"}
    answer = await caller.call("/wxa/getuserriskrank", **good)
    assert answer["risk_rank"] == 3
    assert isinstance(answer["unoin_id"], int)
    refused: list[tuple[dict[str, Any], int]] = [
        ({"appid": "wx0"}, 40013),
        ({"openid": "o" * 28}, 40003),
        ({"scene": 3}, 40097),
        ({"client_ip": "nowhere"}, 40097),
    ]
    for change, errcode in refused:
        assert (await caller.call("/wxa/getuserriskrank", **good | change))["errcode"] == errcode
    await caller.order("clock", advance_s=7201)
    assert (await caller.call("/wxa/getuserriskrank", **good))["errcode"] == 61010


async def test_an_openid_is_still_known_after_a_restart_but_has_accepted_nothing(caller: Caller):
    openid = await caller.openid("wang")
    await caller.order("accepts", user="wang", template_id=TEMPLATE)
    await caller.order("reset")
    send = {"touser": openid, "template_id": TEMPLATE, "data": {"thing1": {"value": "路灯"}}}
    assert (await caller.call("/cgi-bin/message/subscribe/send", **send))["errcode"] == 43101
    other = await Sandbox.start(Settings(appid="wx1111111111111111"))
    try:
        assert other.world.people.named("wang").openid != openid
    finally:
        await other.stop()
