"""Sessions: opaque 256-bit tokens of which only the hash is stored."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from pymongo import ASCENDING, IndexModel

from accounts.models import CitizenSession, StaffSession
from core.clock import now
from core.config import Sessions as SessionSettings
from core.database import Database
from core.encryption import hash_token
from core.errors import NotSignedIn
from core.ids import new_token

INDEXES = {
    "sessions": [
        IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0),
        IndexModel([("subject", ASCENDING)], name="subject"),
    ]
}

# How exactly the idle time is kept: writing on every request would make each read a write.
_SEEN_EVERY = timedelta(seconds=60)


class SessionService:
    """Opens, finds and ends sessions."""

    def __init__(self, database: Database, settings: SessionSettings) -> None:
        self._sessions = database["sessions"]
        self._staff = database["staff"]
        self._settings = settings

    async def open_citizen(self, citizen_id: str, openid: str) -> tuple[str, int]:
        """A new token for a citizen, and its life in seconds."""
        life = timedelta(days=self._settings.citizen_days)
        return await self._open("citizen", citizen_id, life, openid=openid), int(life.total_seconds())

    async def open_staff(self, staff_id: str) -> tuple[str, int]:
        """A new token for a member of staff, and its longest life in seconds; being idle ends it sooner."""
        life = timedelta(hours=self._settings.staff_hours)
        return await self._open("staff", staff_id, life), int(life.total_seconds())

    async def _open(self, kind: Literal["citizen", "staff"], subject: str, life: timedelta, **more: str) -> str:
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
        """Whose ``token`` it is. Raises :class:`NotSignedIn` when it is unknown, ended or expired."""
        session = await self._find("citizen", token, now())
        return CitizenSession(session["subject"], session["openid"])

    async def staff(self, token: str) -> StaffSession:
        """Whose ``token`` it is, with the roles as they are now. Raises :class:`NotSignedIn` also after idling."""
        moment = now()
        session = await self._find("staff", token, moment)
        if moment - session["seen_at"] > timedelta(minutes=self._settings.staff_idle_minutes):
            await self._sessions.delete_one({"_id": session["_id"]})
            raise NotSignedIn("您长时间没有操作，已自动退出，请重新登录。", code="SESSION_IDLE")
        if moment - session["seen_at"] > _SEEN_EVERY:
            await self._sessions.update_one({"_id": session["_id"]}, {"$set": {"seen_at": moment}})
        with_roles = [
            {"$match": {"_id": session["subject"], "disabled": False}},
            {"$project": {"password_hash": 0}},
            {"$lookup": {"from": "roles", "localField": "roles", "foreignField": "_id", "as": "granted"}},
        ]
        person = next(iter(await self._staff.aggregate(with_roles).to_list(1)), None)
        if person is None:
            raise NotSignedIn("账号已停用，请联系管理员。", code="ACCOUNT_DISABLED")
        return StaffSession(
            staff_id=person["_id"],
            name=person["name"],
            roles=tuple(person["roles"]),
            permissions=frozenset(p for role in person["granted"] for p in role["permissions"]),
            areas=tuple(person["areas"]),
            unit_id=person["unit_id"],
        )

    async def _find(self, kind: str, token: str, moment: datetime) -> dict[str, Any]:
        session = await self._sessions.find_one({"_id": hash_token(token), "kind": kind})
        # MongoDB's TTL thread runs once a minute: an expired session may still be there.
        if session is None or session["expires_at"] <= moment:
            raise NotSignedIn("登录已过期，请重新登录。", code="SESSION_EXPIRED")
        return dict(session)

    async def close(self, token: str) -> None:
        """End the session of ``token``."""
        await self._sessions.delete_one({"_id": hash_token(token)})

    async def close_all(self, subject: str) -> None:
        """End every session of a person."""
        await self._sessions.delete_many({"subject": subject})
