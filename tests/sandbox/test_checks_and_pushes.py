"""Content checks, their pushes, and the pushes' form."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from wechatpy.crypto import WeChatCrypto
from wechatpy.exceptions import InvalidSignatureException

from sandbox.pushes import encrypt, sign
from sandbox.settings import DEMO_AES_KEY

from .conftest import Caller, Product

TEXT = "/wxa/msg_sec_check"
IMAGE = "/wxa/media_check_async"


def picture(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


async def check_picture(caller: Caller, url: str, user: str = "demo") -> Any:
    openid = await caller.openid(user)
    answer = await caller.call(IMAGE, version=2, media_type=2, scene=3, openid=openid, media_url=url)
    assert answer["errcode"] == 0, answer
    return answer["trace_id"]


async def test_a_text_passes_or_is_risky_or_for_review_and_errcode_is_zero_in_each_case(caller: Caller):
    openid = await caller.openid()
    for content, suggest, label in [
        ("路灯坏了", "pass", 100),
        ("这里有人赌博", "risky", 20006),
        ("办证请加微信", "review", 10001),
        ("加微信一起赌博", "risky", 20006),
    ]:
        answer = await caller.call(TEXT, version=2, openid=openid, scene=2, content=content)
        assert answer["errcode"] == 0
        assert answer["result"] == {"suggest": suggest, "label": label}
        assert answer["detail"][0]["strategy"] == "content_model"
    newest = (await caller.received("text_checks"))[0]
    assert (newest["content"], newest["suggest"], newest["scene"]) == ("加微信一起赌博", "risky", 2)
    assert newest["trace_id"] == answer["trace_id"]


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"version": 1}, 40097),
        ({"version": True}, 40097),
        ({"scene": 0}, 40097),
        ({"scene": 5}, 40097),
        ({"scene": "2"}, 40097),
        ({"content": ""}, 44004),
        ({"content": "一" * 2501}, 45002),
        ({"content": 5}, 47001),
        ({"openid": "nobody"}, 40003),
    ],
)
async def test_a_text_check_out_of_form_is_refused(caller: Caller, change: dict[str, object], errcode: int):
    good = {"version": 2, "openid": await caller.openid(), "scene": 2, "content": "一" * 2500}
    assert (await caller.call(TEXT, **good | change))["errcode"] == errcode
    assert (await caller.call(TEXT, **good))["errcode"] == 0


async def test_checks_are_refused_for_who_was_not_active_within_two_hours(caller: Caller):
    openid = await caller.openid()
    await caller.order("users", last_active_s_ago=7190)
    good = {"version": 2, "openid": openid, "scene": 2, "content": "好"}
    assert (await caller.call(TEXT, **good))["errcode"] == 0
    await caller.order("clock", advance_s=20)
    assert (await caller.call(TEXT, **good))["errcode"] == 61010
    await caller.order("users", last_active_s_ago=None)
    picture_check = {"version": 2, "openid": openid, "scene": 1, "media_type": 2, "media_url": "http://127.0.0.1:1/x"}
    assert (await caller.call(IMAGE, **picture_check))["errcode"] == 61010


async def test_an_ordered_verdict_on_a_text_goes_before_the_words(caller: Caller):
    openid, other = await caller.openid("wang"), await caller.openid("li")

    async def suggest(content: str, of: str = openid) -> Any:
        answer = await caller.call(TEXT, version=2, openid=of, scene=2, content=content)
        return answer["result"]["suggest"]

    await caller.order("verdicts", kind="text", suggest="review")
    assert [await suggest("好"), await suggest("好")] == ["review", "pass"]
    await caller.order("verdicts", kind="text", suggest="risky", user="wang")
    await caller.order("verdicts", kind="text", suggest="pass", contains="赌博")
    assert [await suggest("好"), await suggest("好", other), await suggest("赌博")] == ["risky", "pass", "pass"]
    await caller.http.delete("/control/verdicts")
    assert [await suggest("好"), await suggest("赌博")] == ["pass", "risky"]


async def test_a_pictures_verdict_comes_as_an_encrypted_push_in_wechats_form(caller: Caller, product: Product):
    product.pictures["a.png"] = picture()
    trace_id = await check_picture(caller, f"{product.url}/pictures/a.png")
    push = await caller.pushed()
    assert push["attempts"] == ["success"]
    (query,) = product.queries
    token = caller.settings.push_token
    assert query["channel"] == "wechat"  # what the URL had already is kept
    assert query["encrypt_type"] == "aes"
    assert query["signature"] == sign(token, query["timestamp"], query["nonce"])
    envelope = json.loads(product.envelopes[0])
    assert set(envelope) == {"ToUserName", "Encrypt"}
    event = json.loads(product.events[0])
    assert abs(event.pop("CreateTime") - time.time()) < 300
    assert event == {
        "ToUserName": caller.settings.original_id,
        "FromUserName": await caller.openid(),
        "MsgType": "event",
        "Event": "wxa_media_check",
        "appid": caller.settings.appid,
        "trace_id": trace_id,
        "version": 2,
        "detail": [{"strategy": "content_model", "errcode": 0, "suggest": "pass", "label": 100, "prob": 90}],
        "errcode": 0,
        "errmsg": "ok",
        "result": {"suggest": "pass", "label": 100},
    }
    (record,) = await caller.received("image_checks")
    assert record["sha256"] == hashlib.sha256(product.pictures["a.png"]).hexdigest()
    assert record["trace_id"] == trace_id


async def test_the_verdict_on_a_picture_waits_for_the_delay(caller: Caller, product: Product):
    product.pictures["a.png"] = picture()
    await caller.order("settings", verdict_delay_s=2)
    began = time.monotonic()
    await check_picture(caller, f"{product.url}/pictures/a.png")
    assert not product.envelopes
    await caller.pushed()
    assert time.monotonic() - began >= 2


async def test_a_pictures_verdict_is_ordered_by_its_bytes_or_its_sender_or_for_the_next(
    caller: Caller, product: Product
):
    product.pictures |= {"red.png": picture("red"), "blue.png": picture("blue")}
    digest = hashlib.sha256(product.pictures["red.png"]).hexdigest()
    await caller.order("verdicts", kind="image", suggest="review", label="20002", user="wang")
    await caller.order("verdicts", kind="image", suggest="risky", label=20001, sha256=digest)
    await caller.order("verdicts", kind="image", suggest="review", label=10001)
    found = []
    pictures = [("red", "wang"), ("blue", "wang"), ("blue", "li"), ("blue", "li")]
    for number, (name, user) in enumerate(pictures, 1):
        trace_id = await check_picture(caller, f"{product.url}/pictures/{name}.png", user)
        push = await caller.pushed(number)
        assert push["body"]["trace_id"] == trace_id
        found.append(tuple(push["body"]["result"].values()))
    assert found == [("risky", 20001), ("review", "20002"), ("review", 10001), ("pass", 100)]


async def test_what_cannot_be_fetched_or_is_no_picture_has_the_errcode_minus_1008(caller: Caller, product: Product):
    product.pictures |= {
        "page.png": b"<html>no picture</html>",
        "large.png": picture() + os.urandom(10 * 1024 * 1024),
        "cut.png": picture()[:40],
    }
    urls = [f"{product.url}/pictures/{name}.png" for name in ("page", "large", "cut", "none")]
    urls += ["http://127.0.0.1:1/a.png", "ftp://127.0.0.1/a.png", "no url"]
    for number, url in enumerate(urls, 1):
        trace_id = await check_picture(caller, url)
        push = await caller.pushed(number)
        assert push["body"]["trace_id"] == trace_id
        assert push["body"]["errcode"] == -1008, url
        assert "result" not in push["body"]


PHOTO = next((Path(__file__).resolve().parents[2].parent / "shared/data/photos").glob("manhole/*.jpg"), None)


async def test_a_real_photo_passes(caller: Caller, product: Product):
    if PHOTO is None:
        pytest.skip("the sample photos are not beside this checkout")
    product.pictures["photo.jpg"] = PHOTO.read_bytes()
    await check_picture(caller, f"{product.url}/pictures/photo.jpg")
    assert (await caller.pushed())["body"]["result"]["suggest"] == "pass"


async def test_a_push_is_repeated_in_a_new_envelope_until_it_is_answered_success(caller: Caller, product: Product):
    product.answers = ["busy", ""]
    await caller.order("push", user="wang", revoke_info="8")
    push = await caller.pushed()
    assert push["attempts"] == ["HTTP 200: busy", "HTTP 200: ", "success"]
    assert len(set(product.events)) == 1
    assert len(set(product.envelopes)) == len({query["nonce"] for query in product.queries}) == 3
    event = json.loads(product.events[0])
    assert event["Event"] == "user_authorization_revoke"
    assert event["OpenID"] == event["FromUserName"] == await caller.openid("wang")
    assert event["RevokeInfo"] == "8"


async def test_a_push_is_given_up_after_the_third_repeat(caller: Caller, product: Product):
    product.answers = ["no"] * 9
    await caller.order("push", event="some_event", fields={"Key": "value"})
    push = await caller.pushed()
    assert push["delivered"] is False
    assert push["attempts"] == ["HTTP 200: no"] * 4
    assert json.loads(product.events[0])["Key"] == "value"


async def test_pushes_go_as_xml_or_in_plain_text_where_that_is_chosen(caller: Caller, product: Product):
    await caller.order("settings", push_format="xml")
    await caller.order("push", event="tricky", fields={"Text": "a]]>b", "List": [{"n": 1}, {"n": 2}]})
    await caller.pushed()
    assert product.envelopes[0].startswith("<xml><ToUserName>")
    assert "<Text><![CDATA[a]]]]><![CDATA[>b]]></Text>" in product.events[0]
    assert "<List><n>1</n></List><List><n>2</n></List>" in product.events[0]
    await caller.order("settings", push_format="json")
    caller.settings.encoding_aes_key = ""
    await caller.order("push", event="plain")
    await caller.pushed(2)
    assert json.loads(product.envelopes[1])["Event"] == "plain"
    assert "msg_signature" not in product.queries[1]


async def test_the_callback_check_passes_only_where_the_echo_comes_back(caller: Caller, product: Product):
    assert await caller.order("push-check") == {"ok": True, "status": 200}
    assert set(product.queries[0]) == {"channel", "signature", "timestamp", "nonce", "echostr"}
    product.answers = ["something else"]
    refused = await caller.order("push-check")
    assert (refused["ok"], refused["body"]) == (False, "something else")
    await caller.order("settings", push_url="http://127.0.0.1:1/push")
    assert (await caller.order("push-check"))["ok"] is False
    await caller.order("settings", push_url="")
    assert (await caller.order("push-check"))["ok"] is False


def test_the_signature_is_that_of_the_known_vector():
    assert sign("AAAAA", "1714036504", "1514711492") == "f464b24fc39322e44b38aa78f5edd27bd1441696"


@pytest.mark.parametrize("length", [0, 1, 11, 12, 13, 31, 32, 33, 500])
def test_every_length_of_body_is_encrypted_so_that_another_implementation_reads_it(length: int):
    body, appid = "中" * length, "wx5a4db0c0ffee0001"
    ciphertext = encrypt(body.encode(), appid, DEMO_AES_KEY)
    assert len(base64.b64decode(ciphertext)) % 32 == 0  # WeChat's blocks are 32 bytes, which wechatpy does not check
    crypto = WeChatCrypto("AAAAA", DEMO_AES_KEY, appid)
    good = sign("AAAAA", "1", "2", ciphertext)
    read = crypto.decrypt_message({"Encrypt": ciphertext}, good, "1", "2")
    assert (read.decode() if isinstance(read, bytes) else read) == body
    with pytest.raises(InvalidSignatureException):
        crypto.decrypt_message({"Encrypt": ciphertext}, sign("BBBBB", "1", "2", ciphertext), "1", "2")
