"""Opening WeChat's pushes: what is let in, and what is not."""

import base64
import hashlib
import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from core.clock import clock
from core.wechat import PushReceiver, WeChatBusy, WeChatPushRefused, dedup_key, picture_verdict
from core.wechat.push import signature_of
from tests.timing import within

TOKEN, APPID = "AAAAA", "wx0123456789abcdef"
AES_KEY = base64.b64encode(bytes(range(32))).decode().rstrip("=")
EVENT = {
    "ToUserName": "gh_1",
    "FromUserName": "o" + "a" * 27,
    "CreateTime": 1714036504,
    "MsgType": "event",
    "Event": "user_authorization_revoke",
    "OpenID": "o" + "b" * 27,
    "RevokeInfo": "201",
}


@pytest.fixture
def receiver():
    return PushReceiver(TOKEN, AES_KEY, APPID)


def encrypt(content: str, appid: str = APPID) -> str:
    """By the published layout, with no help from the library that the receiver decrypts with."""
    body = content.encode()
    plain = os.urandom(16) + len(body).to_bytes(4, "big") + body + appid.encode()
    pad = 32 - len(plain) % 32
    key = base64.b64decode(AES_KEY + "=")
    encryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
    return base64.b64encode(encryptor.update(plain + bytes([pad]) * pad) + encryptor.finalize()).decode()


def sign(encrypted: str, *, timestamp: int | None = None, token: str = TOKEN) -> dict[str, str]:
    stamp, nonce = str(timestamp or int(time.time())), "1514711492"
    signature = hashlib.sha1("".join(sorted([token, stamp, nonce, encrypted])).encode()).hexdigest()
    return {"timestamp": stamp, "nonce": nonce, "encrypt_type": "aes", "msg_signature": signature}


def as_json(encrypted: str) -> bytes:
    return json.dumps({"ToUserName": "gh_1", "Encrypt": encrypted}).encode()


def as_xml(encrypted: str) -> bytes:
    return f"<xml><ToUserName>gh_1</ToUserName><Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>".encode()


def xml_of(event: dict) -> str:
    return "<xml>" + "".join(f"<{k}><![CDATA[{v}]]></{k}>" for k, v in event.items()) + "</xml>"


@pytest.fixture
def at_the_time_of_the_vector():
    clock.offset = datetime.fromtimestamp(1714036504, UTC) - datetime.now(UTC)
    yield
    clock.offset = timedelta(0)


def test_the_address_check_with_wechats_published_values_answers_the_echo(receiver, at_the_time_of_the_vector):
    signature = "f464b24fc39322e44b38aa78f5edd27bd1441696"
    assert receiver.verify_url(signature, "1714036504", "1514711492", "4375120948345356249") == "4375120948345356249"


@pytest.mark.parametrize(
    "signature", ["", "f464b24fc39322e44b38aa78f5edd27bd1441697", "签名", "F464B24FC39322E44B38AA78F5EDD27BD1441696"]
)
def test_the_address_check_refuses_any_other_signature(receiver, at_the_time_of_the_vector, signature):
    with pytest.raises(WeChatPushRefused):
        receiver.verify_url(signature, "1714036504", "1514711492", "echo")


def test_a_json_push_opens_to_its_event(receiver):
    encrypted = encrypt(json.dumps(EVENT, ensure_ascii=False))
    assert receiver.open(sign(encrypted), as_json(encrypted)) == EVENT


def test_an_xml_push_opens_to_its_event_as_strings(receiver):
    encrypted = encrypt(xml_of(EVENT))
    assert receiver.open(sign(encrypted), as_xml(encrypted)) == {k: str(v) for k, v in EVENT.items()}


def test_chinese_in_an_event_survives(receiver):
    encrypted = encrypt('{"Content": "井盖缺失"}')
    assert receiver.open(sign(encrypted), as_json(encrypted)) == {"Content": "井盖缺失"}


def test_a_push_signed_with_another_token_is_refused(receiver):
    encrypted = encrypt("{}")
    with pytest.raises(WeChatPushRefused, match="微信") as refusal:
        receiver.open(sign(encrypted, token="BBBBB"), as_json(encrypted))
    assert refusal.value.status == 403
    assert refusal.value.details == {"reason": "signature"}


def test_a_signature_does_not_cover_another_message(receiver):
    signed, other = encrypt("{}"), encrypt('{"Event": "other"}')
    with pytest.raises(WeChatPushRefused):
        receiver.open(sign(signed), as_json(other))


def test_a_push_for_another_appid_is_refused(receiver):
    encrypted = encrypt("{}", appid="wxffffffffffffffff")
    with pytest.raises(WeChatPushRefused) as refusal:
        receiver.open(sign(encrypted), as_json(encrypted))
    assert "InvalidAppId" in refusal.value.details["reason"]


@pytest.mark.parametrize("seconds", [-660, 660])
def test_a_push_far_from_our_clock_is_refused(receiver, seconds):
    encrypted = encrypt("{}")
    with pytest.raises(WeChatPushRefused) as refusal:
        receiver.open(sign(encrypted, timestamp=int(time.time()) + seconds), as_json(encrypted))
    assert refusal.value.details == {"reason": "timestamp"}


def test_a_push_that_is_not_encrypted_is_refused_even_if_signed(receiver):
    stamp = str(int(time.time()))
    query = {"timestamp": stamp, "nonce": "1", "signature": signature_of(TOKEN, stamp, "1")}
    with pytest.raises(WeChatPushRefused):
        receiver.open(query, json.dumps(EVENT).encode())


LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + "]><xml><Encrypt>&j;</Encrypt></xml>"
)
FILE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><xml><Encrypt>&a;</Encrypt></xml>'


@pytest.mark.parametrize(
    "body",
    [
        LAUGHS.encode(),
        LAUGHS.encode("utf-16"),
        FILE.encode(),
        b"",
        b"{",
        b"[1]",
        b'{"Encrypt": 7}',
        b'{"Encrypt": "x"}',
        b"[" * 200_000,
        b'{"a":' * 20_000,
        b"<a>" * 50_000,
        b"<xml><Encrypt>" + b"<a>" * 30_000 + b"</a>" * 30_000 + b"</Encrypt></xml>",
        b"<xml/>",
        b"\xff\xfe\x00",
        b"<xml><Encrypt>" + b"A" * 300_000 + b"</Encrypt></xml>",
    ],
)
def test_a_hostile_or_broken_body_is_refused_at_once(receiver, body):
    with within(50), pytest.raises(WeChatPushRefused):
        receiver.open(sign(""), body)


def test_even_a_harmless_entity_is_refused(receiver):
    encrypted = encrypt("{}")
    body = f'<!DOCTYPE xml [<!ENTITY e "{encrypted}">]><xml><Encrypt>&e;</Encrypt></xml>'
    with pytest.raises(WeChatPushRefused) as refusal:
        receiver.open(sign(encrypted), body.encode())
    assert "cannot be read" in refusal.value.details["reason"]


def test_a_signed_message_that_cannot_be_decrypted_is_refused(receiver):
    for encrypted in ("A" * 43, "AAAA", "", encrypt("{}")[:-24], base64.b64encode(os.urandom(64)).decode()):
        with pytest.raises(WeChatPushRefused):
            receiver.open(sign(encrypted), as_json(encrypted))


def test_a_key_of_the_wrong_length_is_refused_when_the_receiver_is_made():
    with pytest.raises(ValueError, match="43"):
        PushReceiver(TOKEN, AES_KEY[:-1], APPID)


def test_deliveries_of_one_event_share_a_key_in_either_format(receiver):
    first, second = encrypt(json.dumps(EVENT)), encrypt(xml_of(EVENT))
    opened = [receiver.open(sign(first), as_json(first)), receiver.open(sign(second), as_xml(second))]
    assert dedup_key(opened[0]) == dedup_key(opened[1])


@pytest.mark.parametrize("name", ["FromUserName", "CreateTime", "Event", "OpenID", "RevokeInfo"])
def test_events_that_differ_have_different_keys(name):
    assert dedup_key(EVENT) != dedup_key({**EVENT, name: "9"})


def test_a_message_is_known_by_its_id_and_a_picture_check_by_its_trace():
    assert dedup_key({"MsgId": 1, "CreateTime": 1}) == dedup_key({"MsgId": "1", "CreateTime": 2})
    check = {"Event": "wxa_media_check", "CreateTime": 1}
    assert dedup_key({**check, "trace_id": "a"}) != dedup_key({**check, "trace_id": "b"})


def test_a_key_tells_nothing_of_the_person():
    assert str(EVENT["OpenID"]) not in dedup_key(EVENT)


def test_a_picture_verdict_is_read_from_either_format():
    check = {"Event": "wxa_media_check", "trace_id": "t1", "result": {"suggest": "risky", "label": "20002"}}
    verdict = picture_verdict(check)
    assert (verdict.suggest, verdict.label, verdict.trace_id) == ("risky", 20002, "t1")


def test_a_suggestion_that_nobody_knows_yet_is_never_taken_for_a_pass():
    assert picture_verdict({"trace_id": "t1", "result": {"suggest": "probably", "label": 100}}).suggest == "review"


def test_a_picture_that_wechat_could_not_fetch_has_no_verdict_but_may_be_asked_for_again():
    with pytest.raises(WeChatBusy) as failure:
        picture_verdict({"trace_id": "t1", "errcode": -1008, "errmsg": "download failed"})
    assert failure.value.transient
