"""WeChat's mini-program server interface, as the few calls that the product makes.

Every call raises a :class:`core.wechat.errors.WeChatError`; its ``transient`` says whether trying again later can help.
Nothing is tried again here, but for one renewal of a refused access token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import BaseModel, Field
from redis.asyncio import Redis

from core.wechat.access_token import AccessToken
from core.wechat.errors import TokenRefused, WeChatError
from core.wechat.models import CheckResult, EnvVersion, MiniProgramState, Scene, Session, Verdict
from core.wechat.transport import Observe, Transport, new_http_client, read

MAX_CHECKED_CHARACTERS = 2500
_CODE_SCENE = re.compile(r"[0-9A-Za-z!#$&'()*+,/:;=?@\-._~]{1,32}")


class _Session(BaseModel):
    # session_key is left out: nothing here needs it, and what is not read cannot leak.
    openid: str = Field(min_length=1)
    unionid: str | None = None


class _PhoneInfo(BaseModel):
    purePhoneNumber: str = Field(pattern=r"^\d{4,14}$")
    countryCode: int = Field(ge=1, le=999)


class _Phone(BaseModel):
    phone_info: _PhoneInfo


class _Sent(BaseModel):
    msgid: int | str = ""


class _TextCheck(BaseModel):
    result: CheckResult
    trace_id: str


class _PictureCheck(BaseModel):
    trace_id: str = Field(min_length=1)


class _Risk(BaseModel):
    risk_rank: int = Field(ge=0, le=4)


class WeChat:
    """The client of one mini-program; one an application, shared by all its tasks. Close it at the end."""

    def __init__(
        self,
        base_url: str,
        appid: str,
        appsecret: str,
        redis: Redis,
        *,
        http: httpx.AsyncClient | None = None,
        observe: Observe | None = None,
    ) -> None:
        self._appid = appid
        self._appsecret = appsecret
        self._http = http or new_http_client()
        self._http_is_ours = http is None
        self._transport = Transport(base_url, self._http, observe)
        self._token = AccessToken(self._transport, appid, appsecret, redis)

    async def close(self) -> None:
        """Close the connections, unless the HTTP client was given."""
        await self._token.close()
        if self._http_is_ours:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def code2session(self, code: str) -> Session:
        """Who holds the one-use ``code`` of ``wx.login``, which is good for 5 minutes.

        Raises :class:`CodeInvalid`, :class:`UserBlocked`; :class:`WeChatBusy` too after 100 a minute of one user.
        """
        params = {
            "appid": self._appid,
            "secret": self._appsecret,
            "js_code": code,
            "grant_type": "authorization_code",
        }
        session = read(_Session, await self._transport.call("GET", "/sns/jscode2session", params=params))
        return Session(session.openid, session.unionid or None)

    async def phone_number(self, code: str) -> str:
        """The phone behind the one-use ``code`` of the phone button, in E.164: ``+8613800138000``.

        The code is not a login code. Raises :class:`CodeInvalid`.
        """
        answer = await self._call("/wxa/business/getuserphonenumber", {"code": code})
        phone = read(_Phone, answer).phone_info
        return f"+{phone.countryCode}{phone.purePhoneNumber}"

    async def send_subscribe_message(
        self,
        openid: str,
        template_id: str,
        page: str,
        data: Mapping[str, str],
        miniprogram_state: MiniProgramState = "formal",
    ) -> str:
        """Send one message, which uses up one accept of the user's; its id at WeChat ("" if WeChat names none).

        ``data`` maps the template's keys to values, made with :func:`core.wechat.templates.fit`; an empty ``page``
        opens nothing. Raises :class:`SubscriptionUsedUp` and :class:`MessageRefused`, both final.
        """
        body: dict[str, Any] = {
            "touser": openid,
            "template_id": template_id,
            "miniprogram_state": miniprogram_state,
            "lang": "zh_CN",
            "data": {key: {"value": value} for key, value in data.items()},
        }
        if page:
            body["page"] = page
        return str(read(_Sent, await self._call("/cgi-bin/message/subscribe/send", body)).msgid)

    async def check_text(
        self, openid: str, scene: Scene, content: str, *, title: str = "", nickname: str = ""
    ) -> Verdict:
        """WeChat's verdict on a text of 1 to 2,500 characters by a user who was active within 2 hours.

        Raises :class:`NotRecentlyActive`, and :class:`ValueError` for a text that is too long or empty.
        """
        if not 0 < len(content) <= MAX_CHECKED_CHARACTERS:
            raise ValueError(f"a checked text has 1 to {MAX_CHECKED_CHARACTERS} characters, not {len(content)}")
        body = {"version": 2, "openid": openid, "scene": int(scene), "content": content}
        body |= {name: value for name, value in (("title", title), ("nickname", nickname)) if value}
        # errcode 0 only says that the check was made: the text can still be risky.
        check = read(_TextCheck, await self._call("/wxa/msg_sec_check", body))
        return Verdict(check.result.suggest, check.result.label, check.trace_id)

    async def check_picture(self, openid: str, scene: Scene, media_url: str) -> str:
        """Ask for a check of the picture at ``media_url``, at most 10 MB, that WeChat can fetch.

        Gives the trace id; the verdict is pushed within 30 minutes, see :func:`core.wechat.push.picture_verdict`.
        Raises :class:`NotRecentlyActive`.
        """
        body = {"version": 2, "media_type": 2, "media_url": media_url, "openid": openid, "scene": int(scene)}
        return read(_PictureCheck, await self._call("/wxa/media_check_async", body)).trace_id

    async def risk_rank(self, openid: str, scene: int, client_ip: str) -> int:
        """How risky WeChat thinks the user is, 0 to 4 with 4 the worst.

        ``scene`` is 0 for registering, 1 for a promotion, 2 for other. Raises :class:`NotRecentlyActive`.
        """
        body = {"appid": self._appid, "openid": openid, "scene": scene, "client_ip": client_ip}
        return read(_Risk, await self._call("/wxa/getuserriskrank", body)).risk_rank

    async def code_unlimited(
        self,
        scene: str,
        page: str,
        *,
        check_path: bool = True,
        env_version: EnvVersion = "release",
        width: int = 430,
    ) -> bytes:
        """The mini-program code (小程序码) that opens ``page`` with ``scene``: a picture ``width`` pixels wide.

        Raises :class:`ValueError` for a scene, page or width that WeChat would refuse.
        """
        if not _CODE_SCENE.fullmatch(scene):
            raise ValueError("a scene has 1 to 32 characters of 0-9 A-Z a-z !#$&'()*+,/:;=?@-._~")
        if page.startswith("/"):
            raise ValueError("a page is written without a leading slash")
        if not 280 <= width <= 1280:
            raise ValueError("a code is 280 to 1280 pixels wide")
        body = {"scene": scene, "page": page, "check_path": check_path, "env_version": env_version, "width": width}
        picture = await self._call("/wxa/getwxacodeunlimit", body)
        if not isinstance(picture, bytes):
            raise WeChatError(200, "the answer is not a picture")
        return picture

    async def _call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | bytes:
        """POST with the access token; when that is refused, renew it and try once more, then fail."""
        token = await self._token.get()
        try:
            return await self._transport.call("POST", path, params={"access_token": token}, json=body)
        except TokenRefused:
            token = await self._token.get(failed=token)
        return await self._transport.call("POST", path, params={"access_token": token}, json=body)
