"""Staff accounts (工作人员), units and roles: making them, and looking them up."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo import ASCENDING, IndexModel

from accounts.models import NewStaff, Role, Unit
from accounts.passwords import Passwords
from core.clock import now
from core.database import Collection, Database
from core.errors import Conflict, Invalid, NotFound
from core.ids import new_id
from core.queue.debts import OWED_INDEX, Document

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
}


class StaffService:
    """Staff, their roles and their units."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._staff = database["staff"]
        self._roles = database["roles"]
        self._units = database["units"]
        self._passwords = passwords

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

    async def disable(self, username: str) -> str:
        """Shut an account out at once, by an operator and whatever it may do; its id. Raises :class:`NotFound`."""
        change: Document = {"$set": {"disabled": True, "sessions": []}, "$inc": {"version": 1}}
        found = await self._staff.find_one_and_update({"username": username}, change, {"_id": 1})
        if found is None:
            raise NotFound("没有这个用户名，请核对。", code="NO_SUCH_STAFF")
        return str(found["_id"])

    async def check_names(self, roles: Sequence[str], unit_id: str | None) -> list[Role]:
        """The roles called ``roles``. Raises :class:`Invalid` where one, or the unit, does not exist."""
        found = [_role(r) async for r in self._roles.find({"_id": {"$in": list(roles)}, "retired_at": None})]
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

    async def roles(self, *, retired: bool = False) -> list[Role]:
        """All roles that can be given, by key; with ``retired`` also those that could be once."""
        wanted: Document = {} if retired else {"retired_at": None}
        return [_role(r) async for r in self._roles.find(wanted).sort("_id", ASCENDING)]

    async def names(self, staff_ids: Sequence[str]) -> dict[str, str]:
        """The names of those accounts among ``staff_ids`` that there are, by id."""
        return {s["_id"]: s["name"] async for s in self._staff.find({"_id": {"$in": list(staff_ids)}}, {"name": 1})}

    async def units(self, *, retired: bool = False) -> list[Unit]:
        """All disposal units that work, by key; with ``retired`` also those that did, for the names of what is past."""
        wanted: Document = {} if retired else {"retired_at": None}
        return [_unit(u) async for u in self._units.find(wanted).sort("_id", ASCENDING)]

    async def unit(self, key: str) -> Unit | None:
        """The unit ``key``, if there is one that works."""
        found = await self._units.find_one({"_id": key, "retired_at": None})
        return _unit(found) if found else None

    async def colleague(self, staff_id: str, unit_id: str | None) -> dict[str, str] | None:
        """{id, name} of a member of staff of the unit ``unit_id`` whose account works, if there is one."""
        found = await self._staff.find_one({"_id": staff_id, "unit_id": unit_id, "disabled": False}, {"name": 1})
        return {"id": found["_id"], "name": found["name"]} if found else None

    async def colleagues(self, unit_id: str | None) -> list[dict[str, str]]:
        """{id, name} of the staff of the unit ``unit_id`` whose accounts work, by name; of no unit, nobody."""
        if unit_id is None:
            return []
        found = self._staff.find({"unit_id": unit_id, "disabled": False}, {"name": 1}).sort("name", ASCENDING)
        return [{"id": person["_id"], "name": person["name"]} async for person in found]


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
