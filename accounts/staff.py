"""Staff accounts (工作人员), units and roles: signing in, and looking them up.

Source of the sign-in rules: GB/T 22239 level 3 (password strength, lock after failures, idle timeout).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from pymongo import ASCENDING, IndexModel, ReturnDocument

from accounts.models import NewStaff, Role, Unit
from accounts.passwords import Passwords
from accounts.sessions import SessionService
from core.audit import Audit
from core.clock import now
from core.config import Sessions as SessionSettings
from core.database import Collection, Database
from core.debts import OWED_INDEX, Document
from core.errors import Conflict, Invalid, NotSignedIn, TooManyRequests
from core.ids import new_id

INDEXES = {
    "staff": [
        IndexModel([("username", ASCENDING)], name="username", unique=True),
        *(
            IndexModel([(name, ASCENDING), ("username", ASCENDING)], name=name)
            for name in ("roles", "unit_id", "areas", "name", "disabled")
        ),
        OWED_INDEX,
    ],
    "roles": [OWED_INDEX],
    "units": [OWED_INDEX],
    "sign_in_failures": [IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0)],
}


class StaffService:
    """Staff, their roles and their units."""

    def __init__(
        self,
        database: Database,
        sessions: SessionService,
        audit: Audit,
        settings: SessionSettings,
        passwords: Passwords,
    ) -> None:
        self._staff = database["staff"]
        self._roles = database["roles"]
        self._units = database["units"]
        self._failures = database["sign_in_failures"]
        self._sessions = sessions
        self._audit = audit
        self._settings = settings
        self._passwords = passwords

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
        if not await self._passwords.matches(person and person["password_hash"], password) or person is None:
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

    async def create(self, person: NewStaff, password: str, *, must_change: bool = False) -> str:
        """Make an account; its id. Raises :class:`Invalid` for a weak password or an unknown role or unit.

        ``must_change`` makes its owner choose another password before anything else.
        """
        self._passwords.check_rules(person.username, password)
        await self.check_names(person.roles, person.unit_id)
        if await self._staff.find_one({"username": person.username}, {"_id": 1}) is not None:
            raise username_taken()
        hashed = await self._passwords.hash(password)
        staff_id = new_id()
        await self._staff.insert_one(
            new_account(staff_id, person, {"password_hash": hashed, "must_change_password": must_change})
        )
        return staff_id

    async def check_names(self, roles: Sequence[str], unit_id: str | None) -> list[Role]:
        """The roles called ``roles``. Raises :class:`Invalid` where one, or the unit, does not exist."""
        found = [_role(r) async for r in self._roles.find({"_id": {"$in": list(roles)}})]
        missing = set(roles) - {role.key for role in found}
        if missing:
            raise Invalid(f"没有这些角色：{'、'.join(sorted(missing))}。", code="NO_SUCH_ROLE")
        if unit_id is not None and await self.unit(unit_id) is None:
            raise Invalid("没有这个处置部门。", code="NO_SUCH_UNIT")
        return found

    async def put_role(self, role: Role) -> None:
        """Add or replace a role."""
        await _put(self._roles, role)

    async def put_unit(self, unit: Unit) -> None:
        """Add or replace a unit."""
        await _put(self._units, unit)

    async def roles(self) -> list[Role]:
        """All roles, by key."""
        return [_role(r) async for r in self._roles.find().sort("_id", ASCENDING)]

    async def units(self) -> list[Unit]:
        """All disposal units that work, by key: not those that are retired."""
        return [_unit(u) async for u in self._units.find({"retired_at": None}).sort("_id", ASCENDING)]

    async def unit(self, key: str) -> Unit | None:
        """The unit ``key``, if there is one that works."""
        found = await self._units.find_one({"_id": key, "retired_at": None})
        return _unit(found) if found else None


def username_taken() -> Conflict:
    """The refusal of a name that is somebody's, also of one whose account is disabled."""
    return Conflict("这个用户名已有人使用。", code="USERNAME_TAKEN")


def new_account(staff_id: str, person: NewStaff, password: Document) -> Document:
    """The document of a new account; ``password`` holds the fields that belong to it."""
    moment = now()
    return {
        "_id": staff_id,
        **person.model_dump(),
        "disabled": False,
        "created_at": moment,
        "password_history": [],
        "password_changed_at": moment,
        "version": 1,
        "sessions": [],
        "owed": [],
        **password,
    }


async def _put(collection: Collection, item: Role | Unit) -> None:
    document = item.model_dump()
    key = document.pop("key")
    await collection.update_one({"_id": key}, {"$set": document, "$inc": {"version": 1}}, upsert=True)


def _role(document: Document) -> Role:
    return Role(key=document["_id"], **{k: v for k, v in document.items() if k in Role.model_fields})


def _unit(document: Document) -> Unit:
    return Unit(key=document["_id"], **{k: v for k, v in document.items() if k in Unit.model_fields})
