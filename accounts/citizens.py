"""Citizens (市民): signing in with WeChat, profile, phone, consents, export, deletion.

Source of the duties: PIPL articles 13 to 17 (consent), 44 to 47 (access, copy, deletion).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.errors import DuplicateKeyError

from accounts.models import ConsentSubject
from accounts.sessions import BELIEVED_SECONDS, SessionService
from core.clock import now
from core.database import Database
from core.encryption import Vault, mask_phone
from core.errors import AppError, Forbidden, Invalid, NotFound, Unavailable, Upstream
from core.ids import new_id
from core.queue.debts import OWED_INDEX, owe
from core.wechat import REPEATED_WITHIN, CodeInvalid, UserBlocked, WeChat, WeChatError, Withdrawn

INDEXES = {
    "citizens": [
        # A deleted citizen has no openid any more: the same person may come back as a new one.
        IndexModel(
            [("openid", ASCENDING)],
            name="openid",
            unique=True,
            partialFilterExpression={"openid": {"$exists": True}},
        ),
        IndexModel([("phone.index", ASCENDING)], name="phone", sparse=True),
        OWED_INDEX,
    ],
    "withdrawals": [IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0)],
}

_BELIEVED = 2 * timedelta(seconds=BELIEVED_SECONDS)


def wechat_problem(error: WeChatError) -> AppError:
    """What to tell a citizen when WeChat refused."""
    if isinstance(error, CodeInvalid):
        return Invalid("微信凭证已失效，请返回重试。", code="WECHAT_CODE_INVALID")
    if isinstance(error, UserBlocked):
        return Forbidden("微信提示该账号存在风险，暂时不能登录。", code="WECHAT_USER_BLOCKED")
    if error.transient:
        return Unavailable("微信服务繁忙，请稍后重试。", code="WECHAT_BUSY")
    return Upstream("微信服务返回错误，请稍后重试。", code="WECHAT_ERROR")


class CitizenService:
    """What citizens can do with their own account."""

    def __init__(self, database: Database, sessions: SessionService, wechat: WeChat, vault: Vault) -> None:
        self._citizens = database["citizens"]
        self._withdrawals = database["withdrawals"]
        self._sessions = sessions
        self._wechat = wechat
        self._vault = vault

    async def sign_in(self, code: str) -> tuple[str, int, dict[str, Any]]:
        """Exchange a wx.login ``code``: (token, its seconds, the citizen's document)."""
        try:
            identity = await self._wechat.code2session(code)
        except WeChatError as error:
            raise wechat_problem(error) from error
        citizen = await self._by_openid(identity.openid, identity.unionid)
        token, seconds = await self._sessions.open_citizen(citizen["_id"], identity.openid)
        return token, seconds, citizen

    async def _by_openid(self, openid: str, unionid: str | None) -> dict[str, Any]:
        moment = now()
        change: dict[str, Any] = {
            "$set": {"signed_in_at": moment, **({"unionid": unionid} if unionid else {})},
            "$setOnInsert": {"_id": new_id(), "created_at": moment, "nickname": "", "consents": [], "owed": []},
        }
        try:
            found = await self._citizens.find_one_and_update(
                {"openid": openid}, change, upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:  # two first sign-ins at once: the other one has made the citizen
            found = await self._citizens.find_one_and_update(
                {"openid": openid}, {"$set": change["$set"]}, return_document=ReturnDocument.AFTER
            )
        assert found is not None  # noqa: S101 - an upsert, or a row that the unique index has just shown
        return dict(found)

    async def get(self, citizen_id: str) -> dict[str, Any]:
        """The citizen's document. Raises :class:`NotFound` once deleted."""
        found = await self._citizens.find_one({"_id": citizen_id, "deleted_at": {"$exists": False}})
        if found is None:
            raise NotFound("账号不存在或已注销。", code="NO_SUCH_CITIZEN")
        return dict(found)

    def masked_phone(self, citizen: dict[str, Any]) -> str | None:
        """The citizen's phone as ``138****1234``, if one is known."""
        sealed = citizen.get("phone")
        return mask_phone(self._vault.open(sealed, "phone")) if sealed else None

    async def rename(self, citizen_id: str, nickname: str) -> dict[str, Any]:
        """Set the nickname; the citizen after it."""
        return await self._change(citizen_id, {"$set": {"nickname": nickname}})

    async def set_phone(self, citizen_id: str, code: str) -> dict[str, Any]:
        """Exchange a getPhoneNumber ``code`` and keep the number, encrypted; the citizen after it."""
        try:
            phone = await self._wechat.phone_number(code)
        except WeChatError as error:
            raise wechat_problem(error) from error
        return await self._change(citizen_id, {"$set": {"phone": self._vault.seal(phone, "phone")}})

    async def consent(self, citizen_id: str, subject: ConsentSubject, version: str, given: bool) -> dict[str, Any]:
        """Add to the consent log, which is never rewritten; the citizen after it."""
        line = {"subject": subject, "version": version, "given": given, "at": now()}
        return await self._change(citizen_id, {"$push": {"consents": {"$each": [line], "$slice": -200}}})

    async def _change(self, citizen_id: str, change: dict[str, Any]) -> dict[str, Any]:
        after = await self._citizens.find_one_and_update(
            {"_id": citizen_id, "deleted_at": {"$exists": False}}, change, return_document=ReturnDocument.AFTER
        )
        if after is None:
            raise NotFound("账号不存在或已注销。", code="NO_SUCH_CITIZEN")
        return dict(after)

    async def export(self, citizen_id: str) -> dict[str, Any]:
        """What the account itself holds about the citizen, in clear: it is their own."""
        citizen = await self.get(citizen_id)
        return {
            "citizen_id": citizen["_id"],
            "openid": citizen["openid"],
            "unionid": citizen.get("unionid"),
            "nickname": citizen["nickname"],
            "phone": self._vault.open(citizen["phone"], "phone") if citizen.get("phone") else None,
            "created_at": citizen["created_at"],
            "signed_in_at": citizen["signed_in_at"],
            "consents": citizen["consents"],
        }

    async def delete(self, citizen_id: str) -> None:
        """Forget the citizen: at once here, and owed elsewhere (reports stay, without their person)."""
        await self._citizens.update_one(
            {"_id": citizen_id, "deleted_at": {"$exists": False}},
            {
                "$set": {"deleted_at": now(), "nickname": "", "consents": []},
                "$unset": {"openid": "", "unionid": "", "phone": ""},
                # Another process may believe a session for a moment more: what comes in by it is forgotten as well.
                "$push": {
                    "owed": {"$each": [owe("forget"), owe("forget", delay=2 * timedelta(seconds=BELIEVED_SECONDS))]}
                },
            },
        )
        await self._sessions.close_all(citizen_id)

    async def withdraw(self, openid: str, what: Withdrawn, key: str) -> None:
        """Delete ``what`` of whoever has ``openid``, as WeChat tells that they want; once for each ``key``.

        Come again, it does nothing: a person who came back, or gave their phone anew, did so after what they withdrew.
        Where the first time was broken off it goes on, but not with an account made since.
        """
        moment = now()
        # Looked up before the claim: whoever stands still in between meets no account that was made meanwhile.
        citizen = await self._citizens.find_one({"openid": openid}, {"created_at": 1})
        first = {"at": moment, "done": False, "expires_at": moment + REPEATED_WITHIN}
        claim = await self._withdrawals.find_one_and_update({"_id": key}, {"$setOnInsert": first}, upsert=True)
        if claim is not None and (claim["done"] or citizen is None or citizen["created_at"] > claim["at"]):
            return
        if citizen is not None and what == "account":
            await self.delete(citizen["_id"])
        elif citizen is not None:
            change = {"$unset": {"phone": ""}} if what == "phone" else {"$set": {"nickname": ""}}
            await self._citizens.update_one({"_id": citizen["_id"]}, change)
        await self._withdrawals.update_one({"_id": key}, {"$set": {"done": True}})
