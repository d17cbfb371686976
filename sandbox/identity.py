"""Who is there: login, the access token, the phone number, how risky a person is."""

from __future__ import annotations

import base64
import secrets
from ipaddress import ip_address
from typing import Any

from sandbox.errors import Refusal
from sandbox.interface import Interface, text_of, whole_number


class CodeToSession(Interface):
    """code2Session: a login code becomes an openid, a new session_key and, for some, a unionid."""

    path = "/sns/jscode2session"
    verb = "GET"
    takes_token = False
    content_type = "text/plain"  # as WeChat answers it, though the body is JSON

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Refuses 41002, 41004, 41008, 40013, 40125, 40002, 40029, 40226, 45011."""
        given = {key: self.get_query_argument(key, "") for key in ("appid", "secret", "js_code", "grant_type")}
        for key, missing in (("appid", 41002), ("secret", 41004), ("js_code", 41008)):
            if not given[key]:
                raise Refusal(missing)
        settings = self.world.settings
        if given["appid"] != settings.appid:
            raise Refusal(40013)
        if not secrets.compare_digest(given["secret"].encode(), settings.appsecret.encode()):
            raise Refusal(40125)
        if given["grant_type"] != "authorization_code":
            raise Refusal(40002)
        people = self.world.people
        user = people.with_openid(people.redeem("login", given["js_code"]).openid)
        if user.blocked:
            raise Refusal(40226)
        people.count_login(user)
        user.last_active = self.world.now()
        self.world.records.add("logins", openid=user.openid, user=user.name)
        session_key = base64.b64encode(secrets.token_bytes(16)).decode()
        answer = {"session_key": session_key, "openid": user.openid}
        return answer | ({"unionid": user.unionid} if user.unionid else {})


class StableToken(Interface):
    """getStableAccessToken: the one access token that all who ask share while it is good."""

    path = "/cgi-bin/stable_token"
    takes_token = False
    minute_quota = (10_000, 45011)

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Refuses 40002, 41002, 41004, 40013, 40125, 47001, 45009."""
        if body.get("grant_type") != "client_credential":
            raise Refusal(40002)
        appid = text_of(body, "appid", missing=41002)
        secret = text_of(body, "secret", missing=41004)
        if appid != self.world.settings.appid:
            raise Refusal(40013)
        if not secrets.compare_digest(secret.encode(), self.world.settings.appsecret.encode()):
            raise Refusal(40125)
        force = body.get("force_refresh", False)
        if not isinstance(force, bool):
            raise Refusal(47001)
        token, expires_in = self.world.tokens.issue(force=force)
        return {"access_token": token, "expires_in": expires_in}


class PhoneNumber(Interface):
    """getPhoneNumber: a phone code, which is not a login code, becomes the number."""

    path = "/wxa/business/getuserphonenumber"

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Refuses 41008, 40029."""
        code = self.world.people.redeem("phone", text_of(body, "code", missing=41008))
        self.world.records.add("phones", openid=code.openid, phone=code.phone)
        country = str(code.country_code)
        info = {
            "phoneNumber": code.phone if country == "86" else f"+{country}{code.phone}",
            "purePhoneNumber": code.phone,
            "countryCode": code.country_code,
            "watermark": {"timestamp": int(self.world.now()), "appid": self.world.settings.appid},
        }
        return {"errcode": 0, "errmsg": "ok", "phone_info": info}


class RiskRank(Interface):
    """getUserRiskRank: from 0 (none) to 4 (highest). The answer's ``unoin_id`` is WeChat's own spelling."""

    path = "/wxa/getuserriskrank"

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Refuses 41002, 40013, 40003, 61010, 40097."""
        if text_of(body, "appid", missing=41002) != self.world.settings.appid:
            raise Refusal(40013)
        user = self.world.people.active(body.get("openid"))
        scene = whole_number(body, "scene", range(3))
        client_ip = text_of(body, "client_ip", missing=40097)
        try:
            ip_address(client_ip)
        except ValueError as error:
            raise Refusal(40097, "client_ip") from error
        self.world.records.add("risk_ranks", openid=user.openid, scene=scene, client_ip=client_ip, rank=user.risk_rank)
        query = secrets.randbelow(2**31)
        return {"errcode": 0, "errmsg": "getuserriskrank succ", "risk_rank": user.risk_rank, "unoin_id": query}
