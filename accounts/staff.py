"""Staff accounts (工作人员), units and roles: signing in, and looking them up.

Source of the sign-in rules: GB/T 22239 level 3 (password strength, lock after failures, idle timeout).
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from pymongo import ASCENDING, IndexModel, ReturnDocument

from accounts.models import NewStaff, Role, Unit
from accounts.sessions import SessionService
from core.audit import Audit
from core.clock import now
from core.config import Sessions as SessionSettings
from core.database import Database
from core.errors import Conflict, Invalid, NotSignedIn, TooManyRequests
from core.ids import new_id

INDEXES = {
    "staff": [IndexModel([("username", ASCENDING)], name="username", unique=True)],
    "sign_in_failures": [IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0)],
}

# OWASP's second choice for argon2id: 19 MiB, so that several sign-ins at once stay within a process's memory.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Compared against when the name is unknown, so that the time taken does not tell which names exist.
_NOBODY = _HASHER.hash("nobody has this password")


def check_password_rules(username: str, password: str) -> None:
    """Raise :class:`Invalid` unless ``password`` has 10 to 128 characters of three kinds and not the user's name."""
    lower, upper, digit = (any(kind(c) for c in password) for kind in (str.islower, str.isupper, str.isdigit))
    mixed = lower + upper + digit + any(not c.isalnum() for c in password)
    if not 10 <= len(password) <= 128 or mixed < 3 or username in password.lower():
        raise Invalid(
            "密码须为 10 到 128 个字符，含大写、小写、数字、符号中的三种，且不含用户名。", code="WEAK_PASSWORD"
        )


class StaffService:
    """Staff, their roles and their units."""

    def __init__(self, database: Database, sessions: SessionService, audit: Audit, settings: SessionSettings) -> None:
        self._staff = database["staff"]
        self._roles = database["roles"]
        self._units = database["units"]
        self._failures = database["sign_in_failures"]
        self._sessions = sessions
        self._audit = audit
        self._settings = settings
        # One hash at a time: each takes 19 MiB and most of a core for some 30 ms.
        self._hashing = asyncio.Semaphore(1)

    async def sign_in(self, username: str, password: str) -> tuple[str, int]:
        """A session for who knows the password: (token, its longest life in seconds).

        Raises :class:`NotSignedIn` for a wrong name or password, :class:`TooManyRequests` while the name is locked.
        """
        username = username.lower()
        locked = await self._failures.find_one({"_id": username, "locked_until": {"$gt": now()}})
        if locked is not None:
            seconds = max(1, int((locked["locked_until"] - now()).total_seconds()))
            raise TooManyRequests(
                f"密码错误次数过多，请 {-(-seconds // 60)} 分钟后再试。", code="ACCOUNT_LOCKED", retry_after=seconds
            )
        person = await self._staff.find_one({"username": username, "disabled": False})
        if not await self._matches(person["password_hash"] if person else _NOBODY, password) or person is None:
            await self._audit.record(
                "staff.sign_in", subject={"kind": "username", "id": username}, object_={}, result="refused"
            )
            await self._count_failure(username)
            raise NotSignedIn("用户名或密码不正确。", code="WRONG_PASSWORD")
        await self._failures.delete_one({"_id": username})
        token, seconds = await self._sessions.open_staff(person["_id"])
        subject = {"kind": "staff", "id": person["_id"], "name": person["name"]}
        await self._audit.record("staff.sign_in", subject=subject, object_={})
        return token, seconds

    async def _matches(self, stored: str, password: str) -> bool:
        def verify() -> bool:
            try:
                return _HASHER.verify(stored, password)
            except VerificationError:
                return False

        async with self._hashing:
            return await asyncio.to_thread(verify)

    async def _count_failure(self, username: str) -> None:
        moment = now()
        lock = timedelta(minutes=self._settings.staff_lock_minutes)
        # Names that do not exist are counted too: otherwise being locked would tell that a name exists.
        after = await self._failures.find_one_and_update(
            {"_id": username},
            {"$inc": {"count": 1}, "$set": {"expires_at": moment + lock}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        if after["count"] >= self._settings.staff_failures:
            await self._failures.update_one({"_id": username}, {"$set": {"locked_until": moment + lock, "count": 0}})
            await self._audit.record(
                "staff.locked", subject={"kind": "username", "id": username}, object_={}, result="refused"
            )

    async def create(self, person: NewStaff, password: str) -> str:
        """Make an account; its id. Raises :class:`Invalid` for a weak password or an unknown role or unit."""
        check_password_rules(person.username, password)
        missing = set(person.roles) - {r["_id"] async for r in self._roles.find({"_id": {"$in": person.roles}})}
        if missing:
            raise Invalid(f"没有这些角色：{'、'.join(sorted(missing))}。", code="NO_SUCH_ROLE")
        if person.unit_id is not None and await self._units.find_one({"_id": person.unit_id}) is None:
            raise Invalid("没有这个处置部门。", code="NO_SUCH_UNIT")
        if await self._staff.find_one({"username": person.username}, {"_id": 1}) is not None:
            raise Conflict("这个用户名已有人使用。", code="USERNAME_TAKEN")
        async with self._hashing:
            hashed = await asyncio.to_thread(_HASHER.hash, password)
        staff_id = new_id()
        await self._staff.insert_one(
            {
                "_id": staff_id,
                **person.model_dump(),
                "password_hash": hashed,
                "disabled": False,
                "created_at": now(),
            }
        )
        return staff_id

    async def put_role(self, role: Role) -> None:
        """Add or replace a role."""
        document = role.model_dump()
        await self._roles.replace_one({"_id": role.key}, {"_id": document.pop("key"), **document}, upsert=True)

    async def put_unit(self, unit: Unit) -> None:
        """Add or replace a unit."""
        document = unit.model_dump()
        await self._units.replace_one({"_id": unit.key}, {"_id": document.pop("key"), **document}, upsert=True)

    async def roles(self) -> list[Role]:
        """All roles, by key."""
        return [Role(key=r.pop("_id"), **r) async for r in self._roles.find().sort("_id", ASCENDING)]

    async def units(self) -> list[Unit]:
        """All disposal units, by key."""
        return [Unit(key=u.pop("_id"), **u) async for u in self._units.find().sort("_id", ASCENDING)]

    async def unit(self, key: str) -> Unit | None:
        """The unit ``key``, if there is one."""
        found = await self._units.find_one({"_id": key})
        return Unit(key=found.pop("_id"), **found) if found else None
