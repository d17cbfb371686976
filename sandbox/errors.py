"""The refusals that WeChat answers, as HTTP 200 with ``errcode`` and ``errmsg``."""

from __future__ import annotations

import secrets
import time

MESSAGES = {
    -1: "system error",
    40001: (
        "invalid credential, access_token is invalid or not latest, could get access_token by getStableAccessToken, "
        "more details at https://mmbizurl.cn/s/JtxxFh33r"
    ),
    40002: "invalid grant_type",
    40003: "invalid openid",
    40013: "invalid appid",
    40014: "invalid access_token",
    40029: "invalid code",
    40037: "invalid template_id",
    40097: "invalid args",
    40125: "invalid appsecret",
    40164: "invalid ip, not in whitelist",
    40169: "invalid length for scene, or the data is not json string",
    40226: "code blocked",
    41001: "access_token missing",
    41002: "appid missing",
    41004: "appsecret missing",
    41008: "missing code",
    41030: "invalid page",
    42001: "access_token expired",
    43001: "require GET method",
    43002: "require POST method",
    43101: "user refuse to accept the msg",
    44002: "empty post data",
    44004: "empty content",
    44991: "reach max api minute frequency limit",
    45002: "content size out of limit",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit, must slower, retry next minute",
    47001: "data format error",
    47003: "argument invalid!",
    61010: "code is expired",
}


def request_id() -> str:
    """The ``rid`` with which WeChat's support finds a call again; trace ids have the same form."""
    return f"{int(time.time()):08x}-{secrets.token_hex(4)}-{secrets.token_hex(4)}"


class Refusal(Exception):
    """A call that is answered with an errcode. ``detail`` follows the code's own message."""

    def __init__(self, errcode: int, detail: str = "") -> None:
        message = MESSAGES.get(errcode, "error")
        self.errcode = errcode
        self.errmsg = f"{message} {detail}".rstrip()
        super().__init__(f"{errcode} {self.errmsg}")

    def answer(self) -> dict[str, object]:
        """The body of the answer."""
        return {"errcode": self.errcode, "errmsg": f"{self.errmsg} rid: {request_id()}"}
