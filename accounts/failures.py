"""Counting wrong passwords and codes: after some a name is locked for a while, whether it exists or not.

Source: GB/T 22239 level 3, 8.1.4.1 b (handling of failed sign-ins).
"""

from __future__ import annotations

from datetime import timedelta

from pymongo import ASCENDING, IndexModel, ReturnDocument

from core.clock import now
from core.config import Sessions as SessionSettings
from core.database import Database
from core.errors import TooManyRequests

INDEXES = {"sign_in_failures": [IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0)]}


class Failures:
    """The failures of each name."""

    def __init__(self, database: Database, settings: SessionSettings) -> None:
        self._failures = database["sign_in_failures"]
        self._settings = settings

    async def check(self, name: str) -> None:
        """Raise :class:`TooManyRequests` (``ACCOUNT_LOCKED``) while ``name`` is locked."""
        locked = await self._failures.find_one({"_id": name, "locked_until": {"$gt": now()}})
        if locked is not None:
            seconds = max(1, int((locked["locked_until"] - now()).total_seconds()))
            raise TooManyRequests(
                f"密码或验证码错误次数过多，请 {-(-seconds // 60)} 分钟后再试。",
                code="ACCOUNT_LOCKED",
                retry_after=seconds,
            )

    async def count(self, name: str) -> bool:
        """One more failure; whether it locks the name."""
        moment = now()
        lock = timedelta(minutes=self._settings.staff_lock_minutes)
        # Names that do not exist are counted too: otherwise being locked would tell that a name exists.
        after = await self._failures.find_one_and_update(
            {"_id": name},
            {"$inc": {"count": 1}, "$set": {"expires_at": moment + lock}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        if after["count"] < self._settings.staff_failures:
            return False
        await self._failures.update_one({"_id": name}, {"$set": {"locked_until": moment + lock, "count": 0}})
        return True

    async def forget(self, name: str) -> None:
        """After a success."""
        await self._failures.delete_one({"_id": name})
