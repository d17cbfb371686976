"""Counting wrong passwords and codes: after some a name is locked for a while, whether it exists or not.

A try is counted before it is looked at, in one conditional update, and given back when it was right: of however many at
once, no more are looked at than may be wrong.

Source: GB/T 22239 level 3, 8.1.4.1 b (handling of failed sign-ins).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from weakref import WeakValueDictionary

from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.errors import DuplicateKeyError

from core.clock import now
from core.config_sections import Sessions as SessionSettings
from core.database import Collection, Database
from core.errors import TooManyRequests
from core.ids import new_id
from core.queue.debts import Document

INDEXES = {"sign_in_failures": [IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0)]}


class Attempt:
    """A try that is counted as a failure until :meth:`succeed` or :meth:`withdraw` says otherwise.

    ``locks``: it is the last one that the name has, so that a failure leaves the name locked.
    """

    def __init__(self, names: Collection, name: str, attempt: str, most: int, *, locks: bool) -> None:
        self._names = names
        self._attempt = attempt
        self._most = most
        self.locks = locks
        # A lock that was set by another try stays, whatever becomes of this one.
        unlocked = [{_last(most): {"$exists": False}}, {_last(most): attempt}]
        self._mine: Document = {"_id": name, "tries": attempt, "$or": unlocked}

    async def succeed(self) -> None:
        """It was right: it is forgotten, and so are the tries before it."""
        after_it = {"$add": [{"$indexOfArray": ["$tries", self._attempt]}, 1]}
        forgotten = {"$set": {"tries": {"$slice": ["$tries", after_it, self._most]}}}
        await self._names.update_one(self._mine, [forgotten])

    async def withdraw(self) -> None:
        """It was neither right nor wrong: it alone is forgotten."""
        await self._names.update_one(self._mine, {"$pull": {"tries": self._attempt}})


class SignInLockout:
    """The tries of each name that were not right. As many as are allowed are a lock, until ``expires_at``."""

    def __init__(self, database: Database, settings: SessionSettings) -> None:
        self._names = database["sign_in_failures"]
        self._most = settings.staff_failures
        self._lock = timedelta(minutes=settings.staff_lock_minutes)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def attempt(self, name: str) -> AsyncIterator[Attempt]:
        """Look at a secret of ``name`` within the block, and say there what came of it; else it has failed.

        Raises :class:`TooManyRequests` (``ACCOUNT_LOCKED``) while ``name`` is locked.
        """
        # One after the other, as far as this process can see: right ones at once do not lock each other out.
        async with self._turns.setdefault(name, asyncio.Lock()):
            yield await self._reserve(name)

    async def _reserve(self, name: str) -> Attempt:
        attempt = new_id()
        while True:
            moment = now()
            open_ = {"_id": name, "$or": [{_last(self._most): {"$exists": False}}, {"expires_at": {"$lte": moment}}]}
            kept = {"$cond": [{"$gt": ["$expires_at", moment]}, {"$ifNull": ["$tries", []]}, []]}
            counted = {"tries": {"$concatArrays": [kept, [attempt]]}, "expires_at": moment + self._lock}
            try:
                # Names that do not exist are counted too: otherwise being locked would tell that a name exists.
                after = await self._names.find_one_and_update(
                    open_, [{"$set": counted}], upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # locked, or another one's first try came in between
                await self._check(name)
                continue
            return Attempt(self._names, name, attempt, self._most, locks=len(after["tries"]) >= self._most)

    async def _check(self, name: str) -> None:
        moment = now()
        locked = await self._names.find_one(
            {"_id": name, _last(self._most): {"$exists": True}, "expires_at": {"$gt": moment}}
        )
        if locked is not None:
            seconds = max(1, int((locked["expires_at"] - moment).total_seconds()))
            raise TooManyRequests(
                f"密码或验证码错误次数过多，请 {-(-seconds // 60)} 分钟后再试。",
                code="ACCOUNT_LOCKED",
                retry_after=seconds,
            )


def _last(most: int) -> str:
    """Where the last of ``most`` tries is: a name that has one there is locked."""
    return f"tries.{most - 1}"
