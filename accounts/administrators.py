"""The district never loses its last administrator, whoever changes what at the same moment.

An administrator is an account that is not disabled, reaches the whole district, belongs to no unit, and holds
:data:`accounts.reach.ADMINISTRATION`. That is a fact of several documents (accounts and roles), so whatever may take
one away is done in turn, under a lease: two administrators who disable each other do not both succeed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from accounts.models import Role
from accounts.reach import ADMINISTRATION, within
from core.database import Database
from core.debts import Document
from core.errors import Conflict
from core.lease import in_turn

_LEASE = timedelta(seconds=30)


class Administrators:
    """Who administers the district of ``division`` (six digits)."""

    def __init__(self, database: Database, division: str) -> None:
        self._database = database
        self._accounts = database["staff"]
        self._roles = database["roles"]
        self._division = division

    @asynccontextmanager
    async def kept(
        self, *, changed_account: Document | None = None, changed_role: Role | None = None
    ) -> AsyncIterator[None]:
        """Make a change within the block, to an account or a role as it will then be.

        Raises :class:`Conflict` (``LAST_ADMINISTRATOR``) before the block when nobody would be left who administers.
        """
        if not await self._loses(changed_account, changed_role):
            yield
            return
        async with in_turn(self._database, "administrators", life=_LEASE):
            before = await self._count(None, None)
            if before and not await self._count(changed_account, changed_role):
                raise Conflict("这样做之后将没有全区管理员，请先为其他人设置管理员角色。", code="LAST_ADMINISTRATOR")
            yield

    async def _loses(self, changed_account: Document | None, changed_role: Role | None) -> bool:
        """Whether the change may take an administrator away; all others need not wait for their turn."""
        roles = await self._permissions(None)
        if changed_account is not None:
            present = await self._accounts.find_one({"_id": changed_account["_id"]})
            return present is not None and self._is(present, roles) and not self._is(changed_account, roles)
        assert changed_role is not None  # noqa: S101 - one of the two is given
        gone = roles.get(changed_role.key, frozenset()) - set(changed_role.permissions)
        return not ADMINISTRATION.isdisjoint(gone)

    async def _count(self, changed_account: Document | None, changed_role: Role | None) -> int:
        """How many there are, once the change is made."""
        roles = await self._permissions(changed_role)
        able = [key for key, permissions in roles.items() if not ADMINISTRATION.isdisjoint(permissions)]
        changed_id = changed_account["_id"] if changed_account else None
        count = 0
        async for account in self._accounts.find({"roles": {"$in": able}, "disabled": False}):
            count += account["_id"] != changed_id and self._is(account, roles)
        return count + (changed_account is not None and self._is(changed_account, roles))

    async def _permissions(self, changed: Role | None) -> dict[str, frozenset[str]]:
        found = {r["_id"]: frozenset(r["permissions"]) async for r in self._roles.find({"retired_at": None})}
        return {**found, changed.key: frozenset(changed.permissions)} if changed else found

    def _is(self, account: Document, roles: dict[str, frozenset[str]]) -> bool:
        held = {p for key in account["roles"] for p in roles.get(key, ())}
        return (
            not account["disabled"]
            and account["unit_id"] is None
            and within([self._division], account["areas"])
            and held >= ADMINISTRATION
        )
