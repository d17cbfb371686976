"""What people take back through WeChat: that alone is deleted, and a push that comes again reaches nothing newer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from accounts.citizens import CitizenService
from core.clock import now
from core.wechat.push import FRESH_SECONDS
from sandbox.pushes import sealed
from tests.crash.fault_injection import Mortal
from tests.district import Client, District
from tests.timing import until

NOT_HELD = ("1", "2", "3", "4", "5", "7", "12", "13", "14", "15", "16", "18", "20", "201", "301", "", "08")


async def known_person(district: District, name: str | None = None) -> Client:
    """A citizen whose phone and nickname are held."""
    citizen = await district.citizen(name)
    await give_phone(district, citizen)
    await citizen.call("PATCH", "/me", json={"nickname": "热心市民"})
    return citizen


async def give_phone(district: District, citizen: Client) -> None:
    code = await district.control("GET", "/phone-code", user=citizen.facts["name"])
    await citizen.post("/me/phone", {"code": code["code"]})


def envelope(district: District, citizen: Client, event: str, **more: Any) -> tuple[dict[str, str], bytes]:
    """A push as WeChat signs and encrypts it, to be sent as often as one likes."""
    told = {
        "FromUserName": "o-platform",
        "CreateTime": int(time.time()),
        "MsgType": "event",
        "Event": event,
        "OpenID": citizen.facts["openid"],
        **more,
    }
    return sealed(district.sandbox.world.settings, told, "o-platform")


async def deliver(district: District, push: tuple[dict[str, str], bytes]) -> None:
    answer = await district.http.post("/wechat/push", params=push[0], content=push[1])
    assert answer.text == "success", answer.text


async def held(citizen: Client) -> tuple[bool, str]:
    me = await citizen.get("/me")
    return me["phone"] is not None, me["nickname"]


async def test_a_permission_under_which_nothing_is_held_takes_nothing_with_it(district):
    citizen = await known_person(district)
    for number in NOT_HELD:
        await deliver(district, envelope(district, citizen, "user_authorization_revoke", RevokeInfo=number))
        assert await held(citizen) == (True, "热心市民"), number


async def test_the_phone_and_the_nickname_go_with_their_own_numbers(district):
    for event, number, left in (
        ("user_authorization_revoke", "8", (False, "热心市民")),
        ("user_authorization_revoke", "6", (True, "")),
        ("user_authorization_revoke", "19", (True, "")),
        ("user_info_modified", "", (True, "")),
    ):
        citizen = await known_person(district)
        await deliver(district, envelope(district, citizen, event, RevokeInfo=number))
        assert await held(citizen) == left, (event, number)


async def test_the_sandbox_takes_the_phone_back_unless_told_otherwise(district):
    citizen = await known_person(district)
    await district.control("POST", "/push", {"openid": citizen.facts["openid"]})

    async def without_phone() -> bool:
        return await held(citizen) == (False, "热心市民")

    await until(without_phone)


async def test_a_replayed_cancellation_does_not_reach_the_account_that_was_made_afterwards(district):
    citizen = await known_person(district)
    push = envelope(district, citizen, "user_authorization_cancellation")
    await asyncio.gather(*(deliver(district, push) for _ in range(20)))
    again = await known_person(district, citizen.facts["name"])
    assert again.facts["citizen_id"] != citizen.facts["citizen_id"]
    await asyncio.gather(*(deliver(district, push) for _ in range(20)))
    assert await held(again) == (True, "热心市民")


async def test_what_reached_nobody_when_it_came_reaches_nobody_when_it_is_replayed(district):
    citizen = await known_person(district)
    assert (await citizen.call("DELETE", "/me")).status_code == 204
    push = envelope(district, citizen, "user_authorization_cancellation")
    await deliver(district, push)
    again = await known_person(district, citizen.facts["name"])
    await deliver(district, push)
    assert await held(again) == (True, "热心市民")


async def test_a_replay_does_not_take_the_phone_that_was_given_again(district):
    citizen = await known_person(district)
    push = envelope(district, citizen, "user_authorization_revoke", RevokeInfo="8")
    await deliver(district, push)
    await give_phone(district, citizen)
    await deliver(district, push)
    assert await held(citizen) == (True, "热心市民")
    # The control: taken back once more, with another signature, it goes.
    await deliver(
        district,
        envelope(district, citizen, "user_authorization_revoke", RevokeInfo="8", CreateTime=int(time.time()) + 9),
    )
    assert await held(citizen) == (False, "热心市民")


async def test_a_push_is_remembered_for_longer_than_it_is_accepted(district):
    citizen = await known_person(district)
    await deliver(district, envelope(district, citizen, "user_authorization_revoke", RevokeInfo="8"))
    newest = await district.services.database["withdrawals"].find_one({}, sort=[("at", -1)])
    assert (newest["expires_at"] - now()).total_seconds() > 2 * FRESH_SECONDS
    indexes = await district.services.database["withdrawals"].index_information()
    assert indexes["expiry"]["expireAfterSeconds"] == 0


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_broken_off_anywhere_it_is_gone_through_with_and_reaches_nothing_newer(district, moment):
    citizens = district.services[CitizenService]
    calls = Mortal(0, moment)
    with calls.lifetime():
        await citizens.withdraw((await district.citizen()).facts["openid"], "account", f"cancelled-{moment}")
    assert len(calls.calls) >= 4
    for at in range(1, len(calls.calls) + 1):
        citizen = await known_person(district)
        openid, key = citizen.facts["openid"], f"cancelled-{moment}-{at}"
        with Mortal(at, moment).lifetime():
            await citizens.withdraw(openid, "account", key)
        await citizens.withdraw(openid, "account", key)  # WeChat was not answered: it comes again
        row = await district.services.database["citizens"].find_one({"_id": citizen.facts["citizen_id"]})
        assert row is not None
        assert "openid" not in row, f"died {moment} call {at}"
        again = await known_person(district, citizen.facts["name"])
        await citizens.withdraw(openid, "account", key)
        assert await held(again) == (True, "热心市民"), f"died {moment} call {at}"


@pytest.mark.long
async def test_an_error_that_comes_again_counts_once(mongodb_url, district):
    """Five rounds without a verdict and a photo is left to people: whoever repeats one push must not spend them."""
    citizen = await district.citizen()
    photo = await citizen.photo()
    photos = district.services.database["photos"]
    trace = f"replayed-{photo}"
    pending = {"verdict": "pending", "trace_id": trace, "rounds": 0}
    await until(lambda: photos.find_one({"_id": photo, "owed": [], "check.verdict": "pass"}))
    await photos.update_one({"_id": photo}, {"$set": {"check": pending}})
    failed = envelope(district, citizen, "wxa_media_check", trace_id=trace, errcode=-1008, errmsg="download failed")
    await asyncio.gather(*(deliver(district, failed) for _ in range(8)))
    row = await photos.find_one({"_id": photo})
    assert row["check"]["rounds"] == 1
    assert [d["kind"] for d in row["owed"]] == ["check"]
    verdict = envelope(district, citizen, "wxa_media_check", trace_id=trace, result={"suggest": "pass", "label": 100})
    await photos.update_one({"_id": photo}, {"$set": {"check.trace_id": f"{trace}-2"}})
    answer = await district.http.post("/wechat/push", params=verdict[0], content=verdict[1])
    assert answer.status_code == 503, "a verdict on the check that failed is of no known check any more"
