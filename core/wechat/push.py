"""What WeChat pushes to the callback address: checked, decrypted, and recognised when it comes twice.

Only the secure mode (安全模式) is accepted. Answer ``success`` within 5 seconds or WeChat sends the push again.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import orjson
import xmltodict
from pydantic import BaseModel
from wechatpy.crypto import WeChatCrypto
from wechatpy.exceptions import WeChatException

from core.clock import now
from core.errors import Forbidden
from core.wechat.errors import error_for
from core.wechat.models import CheckResult, Verdict
from core.wechat.transport import read

FRESH_SECONDS = 600
"""How far a push's timestamp may be from our clock, before or after it."""
REPEATED_WITHIN = timedelta(days=30)
"""For how long :func:`dedup_key` is to be remembered where doing something twice would do harm: longer by far than a
signed envelope is accepted (twice ``FRESH_SECONDS``), and than WeChat may repeat a withdrawal (15 days)."""
MAX_BODY_BYTES = 256 * 1024


class WeChatPushRefused(Forbidden):
    """403: not from WeChat, or not for this mini-program."""

    default_code = "WECHAT_PUSH_REFUSED"

    def __init__(self, reason: str) -> None:
        super().__init__(
            "微信推送未通过校验，请核对消息推送的 Token、EncodingAESKey 与 AppID", details={"reason": reason}
        )


def signature_of(*parts: str) -> str:
    """WeChat's signature: SHA-1, in hex, over the parts sorted and joined."""
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()  # noqa: S324 - WeChat's choice


class PushReceiver:
    """Opens the pushes of one mini-program. ``aes_key`` is the console's EncodingAESKey, 43 characters."""

    def __init__(self, token: str, aes_key: str, appid: str) -> None:
        if len(aes_key) != 43:
            raise ValueError("the EncodingAESKey of the message push has 43 characters")
        self._token = token
        self._crypto = WeChatCrypto(token, aes_key, appid)

    def verify_url(self, signature: str, timestamp: str, nonce: str, echostr: str) -> str:
        """What to answer when WeChat checks the callback address. Raises :class:`WeChatPushRefused`."""
        self._check(signature, timestamp, nonce)
        return echostr

    def open(self, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """The event in ``body``, JSON or XML as the console is set; from XML all values are strings.

        Raises :class:`WeChatPushRefused` when it is not signed by WeChat, stale, or meant for another appid.
        """
        if query.get("encrypt_type") != "aes":
            raise WeChatPushRefused("not encrypted")
        if len(body) > MAX_BODY_BYTES:
            raise WeChatPushRefused("too large")
        signature, timestamp, nonce = (query.get(name, "") for name in ("msg_signature", "timestamp", "nonce"))
        encrypted = _parse(body).get("Encrypt")
        if not isinstance(encrypted, str):
            raise WeChatPushRefused("no Encrypt")
        self._check(signature, timestamp, nonce, encrypted)
        try:
            event = self._crypto.decrypt_message({"Encrypt": encrypted}, signature, timestamp, nonce)
        except (WeChatException, ValueError, IndexError, struct.error) as error:
            raise WeChatPushRefused(f"cannot be decrypted: {type(error).__name__}") from error
        return _parse(event.encode())

    def _check(self, signature: str, timestamp: str, nonce: str, *encrypted: str) -> None:
        # In constant time, which wechatpy's own comparison is not; as bytes, since the signature can hold anything.
        expected = signature_of(self._token, timestamp, nonce, *encrypted)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise WeChatPushRefused("signature")
        if not timestamp.isdecimal() or abs(now().timestamp() - int(timestamp)) > FRESH_SECONDS:
            raise WeChatPushRefused("timestamp")


def dedup_key(event: Mapping[str, Any]) -> str:
    """The same 64 hex digits for each delivery of one event, whatever the format. Holds no personal data.

    WeChat's rule is MsgId, or FromUserName with CreateTime for events. An event's name alone is not enough beside them:
    withdrawals of authorisation come from the platform's name, so two users' may share a second.
    """
    if event.get("MsgId"):
        names: tuple[str, ...] = ("MsgId",)
    elif event.get("trace_id"):
        names = ("Event", "trace_id")
    else:
        names = ("FromUserName", "CreateTime", "MsgType", "Event", "OpenID", "RevokeInfo")
    return hashlib.sha256(repr([(name, str(event.get(name, ""))) for name in names]).encode()).hexdigest()


Withdrawn = Literal["account", "phone", "nickname"]
_EVENTS: dict[str, Withdrawn] = {
    "user_authorization_cancellation": "account",  # the person has closed their account with WeChat
    "user_info_modified": "nickname",  # WeChat has cleared it away, as one that may do harm
}
# RevokeInfo of a mini-program: 1 number plate, 2 address, 3 invoice, 4 Bluetooth, 5 microphone, 6 nickname and avatar,
# 7 camera, 8 phone, 12 steps, 13 location, 14 chosen pictures or videos, 15 chosen files, 16 mail address, 18 chosen
# place, 19 nickname chosen in the keyboard, 20 chosen avatar. Web pages (201 ...) and mobile applications (301) count
# otherwise. Source: developers.weixin.qq.com, mini-program, authorized_user_information_changes.
_REVOKED: dict[str, Withdrawn] = {"6": "nickname", "8": "phone", "19": "nickname"}
_REVOKED_NOT_HELD = frozenset({"1", "2", "3", "4", "5", "7", "12", "13", "14", "15", "16", "18", "20"})


@dataclass(frozen=True)
class Withdrawal:
    """That whoever has ``openid`` wants ``what`` deleted; None where it is nothing that an account holds."""

    openid: str
    what: Withdrawn | None
    known: bool
    """Whether the number that says what was withdrawn is one of a mini-program's."""


def withdrawal(event: Mapping[str, Any]) -> Withdrawal | None:
    """What a person takes back by ``event``; None for an event of another kind."""
    kind, openid = str(event.get("Event", "")), str(event.get("OpenID", ""))
    if kind == "user_authorization_revoke":
        number = str(event.get("RevokeInfo", "")).strip()
        return Withdrawal(openid, _REVOKED.get(number), number in _REVOKED or number in _REVOKED_NOT_HELD)
    return Withdrawal(openid, _EVENTS[kind], known=True) if kind in _EVENTS else None


class _MediaCheck(BaseModel):
    trace_id: str
    result: CheckResult


def picture_verdict(event: Mapping[str, Any]) -> Verdict:
    """The verdict in a ``wxa_media_check`` event, for the picture that ``trace_id`` was given out for.

    Raises :class:`core.wechat.errors.WeChatError` when there is none: WeChat could not check the picture, for example
    -1008 (transient) when it could not fetch it. ``event["trace_id"]`` then says which.
    """
    errcode = int(event.get("errcode") or 0)
    if errcode:
        raise error_for(errcode, str(event.get("errmsg", "")))
    check = read(_MediaCheck, dict(event))
    return Verdict(check.result.suggest, check.result.label, check.trace_id)


def _parse(body: bytes) -> dict[str, Any]:
    """JSON or XML by its first character. The body is not yet known to be WeChat's, so entities are refused."""
    try:
        if body.lstrip().startswith(b"{"):
            document = orjson.loads(body)
        else:
            document = xmltodict.parse(body, disable_entities=True).get("xml")
    except (ValueError, xmltodict.expat.ExpatError) as error:
        raise WeChatPushRefused(f"cannot be read: {type(error).__name__}") from error
    if not isinstance(document, dict):
        raise WeChatPushRefused("not an object")
    return document
