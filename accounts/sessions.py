"""Sessions: opaque 256-bit tokens of which only the hash is stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from pymongo import ASCENDING, DESCENDING, IndexModel

from accounts.admin_scope import POWERS
from accounts.models import CitizenSession, Duty, OnBehalfOf, StaffSession
from accounts.passwords import Passwords
from core.audit import owe_audit
from core.clock import now
from core.config_sections import Sessions as SessionSettings
from core.database import Database
from core.encryption import hash_token
from core.errors import Forbidden, NotFound, NotSignedIn
from core.ids import new_id, new_token

INDEXES = {
    "sessions": [
        IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0),
        IndexModel([("subject", ASCENDING)], name="subject"),
    ]
}

BELIEVED_SECONDS = 2.0
"""For how long a process goes by what it has read of a citizen's session."""

_HELD_AT_MOST = 10_000

# How exactly the idle time is kept: writing on every request would make each read a write.
_SEEN_EVERY = timedelta(seconds=60)


_ENDED = {
    "replaced": ("SESSION_REPLACED", "您的账号已在别处登录，这里已退出。如果不是您本人登录，请立即修改密码。"),
    "password": ("SESSION_ENDED", "密码已修改，请用新密码重新登录。"),
    "second_factor": ("SESSION_ENDED", "动态验证码已重置，请重新登录。"),
    "ended": ("SESSION_ENDED", "这次登录已被结束，请重新登录。"),
}
_DUTIES: dict[Duty, Callable[[], Forbidden]] = {
    "password": lambda: Forbidden("请先修改密码，再进行其他操作。", code="PASSWORD_CHANGE_REQUIRED"),
    "second_factor": lambda: Forbidden("您的角色要求使用动态验证码登录，请先完成绑定。", code="SECOND_FACTOR_REQUIRED"),
}


def ended_by(why: Literal["password", "second_factor"], keep: str | None = None) -> dict[str, Any]:
    """The fields of an account whose sessions end, but for ``keep``; the others will be told ``why``."""
    return {"sessions": [keep] if keep else [], "sessions_ended": {"why": why, "at": now()}}


def in_force(delegation: dict[str, Any], moment: datetime) -> bool:
    """Whether the delegation can be used at ``moment``."""
    return bool(delegation["ended_at"] is None and delegation["begins_at"] <= moment < delegation["ends_at"])


def _check_counts(session: dict[str, Any], person: dict[str, Any]) -> None:
    """Raise :class:`NotSignedIn` for a session that the account no longer lists. Older accounts list none."""
    why = session.get("ended")
    if why is None and session["_id"] not in person.get("sessions", [session["_id"]]):
        ended = person.get("sessions_ended")
        why = ended["why"] if ended and ended["at"] >= session["opened_at"] else "replaced"
    if why is not None:
        code, message = _ENDED[why]
        raise NotSignedIn(message, code=code)


def _disabled() -> NotSignedIn:
    return NotSignedIn("账号已停用，请联系管理员。", code="ACCOUNT_DISABLED")


@dataclass(frozen=True)
class _Held:
    session: CitizenSession
    expires_at: datetime
    until: float


class SessionService:
    """Opens, finds and ends sessions."""

    def __init__(self, database: Database, settings: SessionSettings, passwords: Passwords) -> None:
        self._sessions = database["sessions"]
        self._staff = database["staff"]
        self._delegations = database["delegations"]
        self._settings = settings
        self._passwords = passwords
        self._held: dict[str, _Held] = {}

    async def open_citizen(self, citizen_id: str, openid: str) -> tuple[str, int]:
        """A new token for a citizen, and its life in seconds."""
        life = timedelta(days=self._settings.citizen_days)
        return await self._open("citizen", citizen_id, life, openid=openid), int(life.total_seconds())

    async def open_staff(
        self,
        staff_id: str,
        *,
        proven: dict[str, Any],
        second_factor: bool = False,
        address: str | None = None,
        agent: str = "",
    ) -> tuple[str, int]:
        """A new token for a member of staff, and its longest life in seconds; being idle ends it sooner.

        The account lists the sessions that count: one push to it opens this one and ends the oldest beyond the number
        that one person may have. ``proven`` are fields that the account must still have: who has proven a password
        opens nothing with it once it was reset. Raises :class:`NotSignedIn` then, and for an account that has been
        disabled meanwhile.
        """
        life = timedelta(hours=self._settings.staff_hours)
        more = {"sid": new_id(), "second_factor": second_factor, "address": address, "agent": agent[:200]}
        token = await self._open("staff", staff_id, life, **more)
        counted = {"$push": {"sessions": {"$each": [hash_token(token)], "$slice": -self._settings.staff_sessions}}}
        opened = await self._staff.update_one({"_id": staff_id, "disabled": False, **proven}, counted)
        if not opened.matched_count:
            if await self._staff.find_one({"_id": staff_id, "disabled": False}, {"_id": 1}) is None:
                raise _disabled()
            raise NotSignedIn("您的账号刚刚有其他修改，请重新登录。", code="SESSION_ENDED")
        return token, int(life.total_seconds())

    async def _open(self, kind: Literal["citizen", "staff"], subject: str, life: timedelta, **more: Any) -> str:
        token = new_token()
        moment = now()
        await self._sessions.insert_one(
            {
                "_id": hash_token(token),
                "kind": kind,
                "subject": subject,
                "opened_at": moment,
                "seen_at": moment,
                "expires_at": moment + life,
                **more,
            }
        )
        return token

    async def citizen(self, token: str) -> CitizenSession:
        """Whose ``token`` it is. Raises :class:`NotSignedIn` when it is unknown, ended or expired.

        A phone asks several times within a moment: what was found is believed for :data:`BELIEVED_SECONDS`, so a
        session that another process has ended may go on here for as long.
        """
        key = hash_token(token)
        held = self._held.get(key)
        if held is not None and held.until > time.monotonic() and held.expires_at > now():
            return held.session
        found = await self._find("citizen", token, now())
        session = CitizenSession(found["subject"], found["openid"])
        if len(self._held) >= _HELD_AT_MOST:
            self._held.clear()
        self._held[key] = _Held(session, found["expires_at"], time.monotonic() + BELIEVED_SECONDS)
        return session

    async def staff(self, token: str, *, unready: bool = False, looking: bool = False) -> StaffSession:
        """Whose ``token`` it is, with the roles as they are now.

        Raises :class:`NotSignedIn` also after idling, and when the session was ended from elsewhere (and says by
        what), and :class:`Forbidden` while the person has something to see to first (``PASSWORD_CHANGE_REQUIRED``,
        ``SECOND_FACTOR_REQUIRED``), unless ``unready`` lets them, or once when a delegation used by it has ended.
        ``looking`` is no use of the session: it changes nothing, and does not keep it from idling.
        """
        moment = now()
        session = await self._find("staff", token, moment)
        if moment - session["seen_at"] > timedelta(minutes=self._settings.staff_idle_minutes):
            if not looking:
                await self._sessions.delete_one({"_id": session["_id"]})
            raise NotSignedIn("您长时间没有操作，已自动退出，请重新登录。", code="SESSION_IDLE")
        person = await self._person(session["subject"])
        if person is None:
            raise _disabled()
        _check_counts(session, person)
        if moment - session["seen_at"] > _SEEN_EVERY and not looking:
            await self._sessions.update_one({"_id": session["_id"]}, {"$set": {"seen_at": moment}})
        duties = self._duties(person)
        if duties and not unready:
            raise _DUTIES[duties[0]]()
        own = StaffSession(
            staff_id=person["_id"],
            name=person["name"],
            roles=tuple(person["roles"]),
            permissions=frozenset(p for role in person["granted"] for p in role["permissions"]),
            areas=tuple(person["areas"]),
            unit_id=person["unit_id"],
            session=session["_id"],
            second_factor=session.get("second_factor", False),
            duties=duties,
        )
        if not session.get("acting"):
            return own
        return await self._acting(own, session["acting"], moment, looking=looking)

    async def _person(self, staff_id: str) -> dict[str, Any] | None:
        """The account with its roles (``granted``), unless it is disabled. A role that was retired grants nothing."""
        with_roles: list[dict[str, Any]] = [
            {"$match": {"_id": staff_id, "disabled": False}},
            {"$project": {"password_hash": 0, "password_history": 0, "totp.secret": 0, "totp_pending": 0, "owed": 0}},
            {"$lookup": {"from": "roles", "localField": "roles", "foreignField": "_id", "as": "granted"}},
        ]
        person = next(iter(await self._staff.aggregate(with_roles).to_list(1)), None)
        if person is not None:
            person["granted"] = [role for role in person["granted"] if role.get("retired_at") is None]
        return person

    def _duties(self, person: dict[str, Any]) -> tuple[Duty, ...]:
        duties: list[Duty] = ["password"] if self._passwords.must_be_changed(person) else []
        demanded = self._settings.second_factor == "by_role" and any(r.get("requires_totp") for r in person["granted"])
        if demanded and not person.get("totp"):
            duties.append("second_factor")
        return tuple(duties)

    async def _acting(self, own: StaffSession, delegation_id: str, moment: datetime, *, looking: bool) -> StaffSession:
        """``own`` with the roles and reach of the colleague who delegated them, as far as these still have them."""
        delegation = await self._delegations.find_one({"_id": delegation_id, "to.id": own.staff_id})
        absent = await self._person(delegation["from"]["id"]) if delegation and in_force(delegation, moment) else None
        if delegation is None or absent is None:
            if not looking:
                mine = {"_id": own.session, "acting": delegation_id}
                await self._sessions.update_one(mine, {"$set": {"acting": None}})
            raise Forbidden("代理已结束，已切换回您本人的身份，请确认后重新操作。", code="DELEGATION_ENDED")
        granted = [role for role in absent["granted"] if role["_id"] in delegation["roles"]]
        return replace(
            own,
            name=f"{own.name}（代{absent['name']}）",
            roles=tuple(role["_id"] for role in granted),
            permissions=frozenset(p for role in granted for p in role["permissions"]) - POWERS,
            areas=tuple(absent["areas"]),
            unit_id=absent["unit_id"],
            on_behalf_of=OnBehalfOf(delegation_id, absent["_id"], absent["name"], delegation["ends_at"]),
        )

    async def act_for(self, session: str, delegation_id: str | None) -> None:
        """Have the session use the delegation from its next request on; None: be oneself again."""
        await self._sessions.update_one({"_id": session}, {"$set": {"acting": delegation_id}})

    async def proven(self, session: str) -> None:
        """The second factor has been shown in this session."""
        await self._sessions.update_one({"_id": session}, {"$set": {"second_factor": True}})

    async def open_sessions(self, staff_id: str) -> list[dict[str, Any]]:
        """The sessions of a member of staff that count now, newest first."""
        person = await self._staff.find_one({"_id": staff_id}, {"sessions": 1})
        moment = now()
        seen_since = moment - timedelta(minutes=self._settings.staff_idle_minutes)
        query = {
            "_id": {"$in": (person or {}).get("sessions", [])},
            "ended": None,
            "expires_at": {"$gt": moment},
            "seen_at": {"$gte": seen_since},
        }
        return [s async for s in self._sessions.find(query).sort("opened_at", DESCENDING)]

    async def end(self, by: StaffSession, staff_id: str, sid: str) -> None:
        """End one session of a member of staff; whoever uses it is told so. Raises :class:`NotFound`."""
        session = await self._sessions.find_one({"subject": staff_id, "kind": "staff", "sid": sid})
        entry = owe_audit("staff.end_session", subject=by.named(), object_={"kind": "staff", "id": staff_id})
        ended = session and await self._staff.update_one(
            {"_id": staff_id, "sessions": session["_id"]},
            {"$pull": {"sessions": session["_id"]}, "$push": {"owed": entry}},
        )
        if not session or not ended or not ended.matched_count:
            raise NotFound("没有这个登录会话，可能已经结束。", code="NO_SUCH_SESSION")
        # Only what it is told hangs on this: it has ended already.
        await self._sessions.update_one({"_id": session["_id"]}, {"$set": {"ended": "ended"}})

    async def _find(self, kind: str, token: str, moment: datetime) -> dict[str, Any]:
        session = await self._sessions.find_one({"_id": hash_token(token), "kind": kind})
        # MongoDB's TTL thread runs once a minute: an expired session may still be there.
        if session is None or session["expires_at"] <= moment:
            raise NotSignedIn("登录已过期，请重新登录。", code="SESSION_EXPIRED")
        return dict(session)

    async def close(self, token: str) -> None:
        """End the session of ``token``."""
        self._held.pop(hash_token(token), None)
        ended = await self._sessions.find_one_and_delete({"_id": hash_token(token)})
        if ended is not None and ended["kind"] == "staff":
            await self._staff.update_one({"_id": ended["subject"]}, {"$pull": {"sessions": ended["_id"]}})

    async def close_all(self, subject: str) -> None:
        """End every session of a person."""
        for key in [k for k, held in self._held.items() if held.session.citizen_id == subject]:
            del self._held[key]
        await self._sessions.delete_many({"subject": subject})
