"""The district never loses its last administrator of accounts, nor its last one of roles, and nobody comes to hold two
of the powers that are kept apart, whoever changes what at the same moment.

Administrators are accounts that are not disabled, reach the whole district, belong to no unit, and hold one of
:data:`ADMINISTRATION`. Both are facts of several documents (accounts and roles), so whatever may take an administrator
away or bring powers together is done in turn, under a lease: two administrators who disable each other do not both
succeed, nor do one who gives a role to an account and one who adds a power to that role.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

from accounts.admin_scope import GRANT_ANY, POWERS, brings_together
from accounts.models import Role
from accounts.reach import within
from core.database import Database
from core.errors import Conflict
from core.queue.debts import Document
from core.queue.lease import in_turn

_LEASE = timedelta(seconds=30)
ADMINISTRATION = (frozenset({"staff.manage"}), frozenset({"staff.manage", GRANT_ANY}), frozenset({"role.manage"}))
"""What somebody has to hold, if anybody does, or nobody could mend it any more."""
_ALL = frozenset[str]().union(*ADMINISTRATION)


class Administrators:
    """Who administers the whole district, of ``division`` (six digits), and who holds which power."""

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

        Raises :class:`Conflict` before the block: ``LAST_ADMINISTRATOR`` when nobody would be left for accounts, or for
        roles; ``POWERS_APART`` when somebody would come to hold two powers, disabled accounts and retired roles
        included: they may be let in again.
        """
        loses = await self._loses(changed_account, changed_role)
        if not loses and not await self._gives(changed_account, changed_role):
            yield
            return
        async with in_turn(self._database, "administrators", life=_LEASE):
            await self._check_apart(changed_account, changed_role)
            lost = await self._administered(None, None) - await self._administered(changed_account, changed_role)
            if lost:
                raise Conflict(
                    "这样做之后全区将没有人能管理账号或角色，请先为其他人设置相应的管理员角色。",
                    code="LAST_ADMINISTRATOR",
                    details={"permissions": sorted(frozenset[str]().union(*lost))},
                )
            yield

    async def _loses(self, changed_account: Document | None, changed_role: Role | None) -> bool:
        """Whether the change may take an administrator away; all others need not wait for their turn."""
        roles = await self._permissions(None)
        if changed_account is not None:
            present = await self._accounts.find_one({"_id": changed_account["_id"]})
            return present is not None and bool(self._of(present, roles) - self._of(changed_account, roles))
        assert changed_role is not None  # noqa: S101 - one of the two is given
        gone = roles.get(changed_role.key, frozenset()) - set(changed_role.permissions)
        return not _ALL.isdisjoint(gone)

    async def _gives(self, changed_account: Document | None, changed_role: Role | None) -> bool:
        """Whether the change gives an account a role, or a role a power."""
        if changed_account is not None:
            present = await self._accounts.find_one({"_id": changed_account["_id"]}, {"roles": 1})
            return not set(changed_account["roles"]) <= set(present["roles"] if present else ())
        assert changed_role is not None  # noqa: S101 - one of the two is given
        present = await self._roles.find_one({"_id": changed_role.key}, {"permissions": 1})
        return not POWERS.intersection(changed_role.permissions) <= set(present["permissions"] if present else ())

    async def _check_apart(self, changed_account: Document | None, changed_role: Role | None) -> None:
        """Raise ``POWERS_APART`` when the change brings powers together in an account, or in a role by itself."""
        before = {r["_id"]: frozenset(r["permissions"]) async for r in self._roles.find({}, {"permissions": 1})}
        after = {**before, changed_role.key: frozenset(changed_role.permissions)} if changed_role else before
        if changed_account is not None:
            present = await self._accounts.find_one({"_id": changed_account["_id"]}, {"roles": 1})
            held = _held(present["roles"] if present else (), before)
            if brings_together(held, _held(changed_account["roles"], after)):
                raise _powers_apart("这个账号会同时掌握其中两项，请改为其他角色")
        if changed_role is not None:
            key = changed_role.key
            if brings_together(before.get(key, ()), after[key]):
                raise _powers_apart("这个角色会同时包含其中两项，请分成不同的角色")
            holders = self._accounts.find({"roles": key}, {"roles": 1})
            roles = [account["roles"] async for account in holders]
            gaining = sum(brings_together(_held(keys, before), _held(keys, after)) for keys in roles)
            if gaining:
                raise _powers_apart(f"有 {gaining} 个账号会同时掌握其中两项，请先调整这些账号的角色")

    async def _administered(self, changed_account: Document | None, changed_role: Role | None) -> set[frozenset[str]]:
        """What of :data:`ADMINISTRATION` somebody holds for the whole district, once the change is made."""
        roles = await self._permissions(changed_role)
        able = [key for key, permissions in roles.items() if not _ALL.isdisjoint(permissions)]
        held = self._of(changed_account, roles) if changed_account is not None else set()
        others = {"_id": {"$ne": changed_account["_id"]}} if changed_account is not None else {}
        async for account in self._accounts.find({"roles": {"$in": able}, "disabled": False, **others}):
            held |= self._of(account, roles)
        return held

    async def _permissions(self, changed: Role | None) -> dict[str, frozenset[str]]:
        found = {r["_id"]: frozenset(r["permissions"]) async for r in self._roles.find({"retired_at": None})}
        return {**found, changed.key: frozenset(changed.permissions)} if changed else found

    def _of(self, account: Document, roles: dict[str, frozenset[str]]) -> set[frozenset[str]]:
        """What of :data:`ADMINISTRATION` the account ``account`` holds for the whole district."""
        if account["disabled"] or account["unit_id"] is not None or not within([self._division], account["areas"]):
            return set()
        held = {p for key in account["roles"] for p in roles.get(key, ())}
        return {needed for needed in ADMINISTRATION if needed <= held}


def _held(roles: Iterable[str], permissions: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """What ``roles`` permit together."""
    return frozenset[str]().union(*(permissions.get(key, frozenset()) for key in roles))


def _powers_apart(so: str) -> Conflict:
    return Conflict(f"账号管理、角色管理和审计须由不同的人负责：这样做之后{so}。", code="POWERS_APART")
