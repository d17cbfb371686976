"""What WeChat refuses, as errors that a caller can act on.

Each holds WeChat's ``errcode`` and ``errmsg``. The message never holds a secret, a token or an openid: whatever was
sent is masked in it. Where no code came from WeChat, ``errcode`` is an HTTP status, or :data:`NO_ANSWER`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

NO_ANSWER = 599
"""The ``errcode`` of a call without a readable answer; WeChat's own codes are negative or have five digits."""


class WeChatError(Exception):
    """WeChat refused a call for a reason that no subclass names. Final unless ``transient``."""

    transient: ClassVar[bool] = False

    def __init__(self, errcode: int, errmsg: str) -> None:
        super().__init__(f"{errcode}: {errmsg}")
        self.errcode = errcode
        self.errmsg = errmsg


class WeChatBusy(WeChatError):
    """Try again later: WeChat is busy, a quota is used up, or there was no answer in time.

    Without an answer the call may still have been carried out: a code may be used, a message may have been sent.
    """

    transient = True


class TokenRefused(WeChatError):
    """The access token was refused, and renewing it did not help or is not permitted yet. Try again later."""

    transient = True


class Misconfigured(WeChatError):
    """The appid, the secret, the caller's address or the permission is wrong; only the operator can mend it."""


class CodeInvalid(WeChatError):
    """The login or phone code is wrong, used, or older than 5 minutes. The phone has to get a new one."""


class UserBlocked(WeChatError):
    """WeChat has blocked this user as a high risk."""


class SubscriptionUsedUp(WeChatError):
    """The user refused the template, or every accept of theirs has been used for one message each. Never retry."""


class MessageRefused(WeChatError):
    """The recipient, the template, the page or a value of the message is out of form: our fault, final."""


class NotRecentlyActive(WeChatError):
    """The user has not opened the mini-program within the last two hours, which this call asks for."""


_KINDS: dict[type[WeChatError], tuple[int, ...]] = {
    WeChatBusy: (-1, -1008, 429, NO_ANSWER, 45009, 45011),
    TokenRefused: (40001, 40014, 42001),
    Misconfigured: (40013, 40125, 40164, 41002, 41004, 48001),
    CodeInvalid: (40029, 40163, 41008),
    UserBlocked: (40226,),
    SubscriptionUsedUp: (43101,),
    MessageRefused: (40003, 40037, 41030, 47003),
    NotRecentlyActive: (61010,),
}
_KIND_OF = {code: kind for kind, codes in _KINDS.items() for code in codes}


def error_for(errcode: int, errmsg: str, sent: Iterable[str] = ()) -> WeChatError:
    """The error that ``errcode`` stands for, with every string in ``sent`` masked in its message."""
    # The longest first: an openid must not survive because a part of it was masked before.
    for value in sorted((s for s in sent if len(s) > 5), key=len, reverse=True):
        errmsg = errmsg.replace(value, "***")
    kind = WeChatBusy if 500 <= errcode < 600 else _KIND_OF.get(errcode, WeChatError)
    return kind(errcode, errmsg[:300])
