"""Administering roles: names for sets of permissions, chosen from those that the code knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from accounts.admin_scope import POWERS, check_grant
from accounts.administrators import Administrators
from accounts.models import Role, StaffSession
from core.audit import owe_audit
from core.clock import now
from core.database import Database
from core.errors import Conflict, Invalid, NotFound
from core.queue.debts import Amendment, Document
from core.versions import change_version, changes_between, stale, version_of

_AUDITED = ("name", "permissions", "requires_totp", "retired_at")


class RoleAdministration:
    """What district administrators do with roles. ``known`` are the permissions that anything in the code asks for."""

    def __init__(self, database: Database, *, administrators: Administrators, known: frozenset[str]) -> None:
        self._roles = database["roles"]
        self._accounts = database["staff"]
        self._administrators = administrators
        self.known = known

    async def list(self) -> list[tuple[Document, int]]:
        """All roles by key, each with how many accounts that are not disabled have it."""
        counted = self._accounts.aggregate(
            [
                {"$match": {"disabled": False}},
                {"$unwind": "$roles"},
                {"$group": {"_id": "$roles", "held_by": {"$sum": 1}}},
            ]
        )
        held = {row["_id"]: row["held_by"] async for row in counted}
        return [(role, held.get(role["_id"], 0)) async for role in self._roles.find().sort("_id", ASCENDING)]

    async def create(self, by: StaffSession, role: Role) -> Document:
        """Add a role. Raises :class:`Invalid`, :class:`Forbidden` and :class:`Conflict` (``KEY_TAKEN``,
        ``POWERS_APART``)."""
        self._check(by, role.permissions)
        _check_second_factor({"permissions": []}, role.model_dump())
        document = {"_id": role.key, **role.model_dump(exclude={"key"}), "version": 1}
        document["owed"] = [self._audit("role.create", by, {}, document)]
        async with self._administrators.kept(changed_role=role):
            try:
                await self._roles.insert_one(document)
            except DuplicateKeyError:
                raise Conflict("这个角色代码已有人使用，请换一个。", code="KEY_TAKEN") from None
        return document

    async def change(self, by: StaffSession, key: str, version: int, wanted: dict[str, Any]) -> Document:
        """Change name, permissions or the demand for a second factor; the role after it. It holds from the next
        request of everybody who has it.

        Raises :class:`Forbidden` (``CANNOT_GRANT``) where the role permits more than ``by`` holds, before or after, and
        whatever of it is changed; :class:`Invalid` (``SECOND_FACTOR_KEPT``) where a power would be had without a second
        factor; :class:`Conflict` (``STALE``; ``LAST_ADMINISTRATOR`` where nobody would be left to mend it;
        ``POWERS_APART`` where somebody would hold two powers).
        """
        before = await self._ours(by, key, version, wanted.get("permissions", ()))
        after = {**before, **wanted}
        _check_second_factor(before, after)
        role = Role(key=key, **{name: after[name] for name in ("name", "permissions")})
        async with self._administrators.kept(changed_role=role):
            return await self._put(by, "role.change", before, version, wanted)

    async def retire(self, by: StaffSession, key: str, version: int) -> Document:
        """Have the role given to nobody any more; the role after it.

        Raises :class:`Conflict` (``ROLE_IN_USE``, with how many accounts) while anybody has it, disabled ones too: they
        may be let in again.
        """
        before = await self._ours(by, key, version)
        if before.get("retired_at") is not None:
            return before
        await self._check_unused(key)
        after = await self._put(by, "role.retire", before, version, {"retired_at": now()})
        try:
            # An account that had been given it just before may have come in between: then it goes on.
            await self._check_unused(key)
        except Conflict:
            await self._put(by, "role.restore", after, version_of(after), {"retired_at": None})
            raise
        return after

    async def restore(self, by: StaffSession, key: str, version: int) -> Document:
        """Have a retired role given again; the role after it."""
        before = await self._ours(by, key, version)
        if before.get("retired_at") is None:
            return before
        return await self._put(by, "role.restore", before, version, {"retired_at": None})

    async def _check_unused(self, key: str) -> None:
        accounts = await self._accounts.count_documents({"roles": key}, limit=1000)
        if accounts:
            raise Conflict(
                f"还有 {accounts} 个账号使用这个角色（含已停用的账号），请先为他们更换角色。",
                code="ROLE_IN_USE",
                details={"accounts": accounts},
            )

    async def _ours(self, by: StaffSession, key: str, version: int, wanted: Sequence[str] = ()) -> Document:
        """The role, as far as ``by`` may change it at all, to permit what is ``wanted``, and has seen its version."""
        role = await self._roles.find_one({"_id": key})
        if role is None:
            raise _no_such_role()
        self._check(by, {*role["permissions"], *wanted}, held=role["permissions"])
        if version_of(role) != version:
            raise stale(role)
        return dict(role)

    async def _put(
        self, by: StaffSession, action: str, before: Document, version: int, wanted: dict[str, Any]
    ) -> Document:
        amendment = Amendment(set=wanted, owe=[self._audit(action, by, before, {**before, **wanted})])
        return await change_version(self._roles, before["_id"], version, amendment, missing=_no_such_role())

    def _check(self, by: StaffSession, permissions: Any, held: Any = ()) -> None:
        unknown = sorted(set(permissions) - self.known - set(held))
        if unknown:
            raise Invalid(
                f"没有这些权限：{'、'.join(unknown)}。", code="NO_SUCH_PERMISSION", details={"permissions": unknown}
            )
        check_grant(by, permissions)

    @staticmethod
    def _audit(action: str, by: StaffSession, before: Document, after: Document) -> Document:
        return owe_audit(
            action,
            subject=by.named(),
            object_={"kind": "role", "id": after["_id"], "name": after["name"]},
            changes=changes_between(before, after, _AUDITED),
        )


def _check_second_factor(before: Document, after: Document) -> None:
    """Raise :class:`Invalid` when a power is given without the demand for a second factor, or loses it."""
    powers = POWERS.intersection(after["permissions"])
    kept = powers <= set(before["permissions"]) and not before.get("requires_totp")
    if powers and not after.get("requires_totp") and not kept:
        raise Invalid(
            "能管理账号、角色或查看审计日志的角色，须要求动态验证码登录。",
            code="SECOND_FACTOR_KEPT",
            details={"permissions": sorted(powers)},
        )


def _no_such_role() -> NotFound:
    return NotFound("没有这个角色，请刷新后再试。", code="NO_SUCH_ROLE")
