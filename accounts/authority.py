"""What an account can do, by its own roles and by those that are lent to it, and so who may change it.

Whoever can do more than an administrator, or anywhere that the administrator does not reach, is not theirs to change:
not by a field, not by a password, not by ending a session or a delegation.
"""

from __future__ import annotations

from accounts.admin_scope import POWERS, check_grant
from accounts.models import StaffSession
from core.clock import now
from core.database import Database
from core.errors import Forbidden
from core.queue.debts import Document


class Authority:
    """Who may change which account."""

    def __init__(self, database: Database) -> None:
        self._accounts = database["staff"]
        self._roles = database["roles"]
        self._delegations = database["delegations"]

    async def check(self, by: StaffSession, account: Document) -> None:
        """Raise :class:`Forbidden` unless ``by`` holds what ``account`` can do, wherever it can do it.

        ``CANNOT_GRANT`` for a permission that it has and ``by`` does not, ``OUT_OF_REACH`` for an area or unit.
        """
        if not by.reach.encloses(account["areas"], account["unit_id"]):
            raise _out_of_reach()
        permissions = await self._permissions(account["roles"])
        # What is lent, or will be, is used by whoever gets hold of the account.
        lent = {"to.id": account["_id"], "ended_at": None, "ends_at": {"$gt": now()}}
        async for delegation in self._delegations.find(lent, {"from.id": 1, "roles": 1}):
            lender = await self._accounts.find_one({"_id": delegation["from"]["id"]}, {"areas": 1, "unit_id": 1})
            if lender is not None and not by.reach.encloses(lender["areas"], lender["unit_id"]):
                raise _out_of_reach()
            permissions |= await self._permissions(delegation["roles"]) - POWERS
        check_grant(by, permissions)

    async def _permissions(self, roles: list[str]) -> set[str]:
        """What ``roles`` permit; one that is retired may be restored, and counts."""
        return {p async for role in self._roles.find({"_id": {"$in": roles}}) for p in role["permissions"]}


def _out_of_reach() -> Forbidden:
    return Forbidden("只能管理您负责的区域和部门内的人员。", code="OUT_OF_REACH")
