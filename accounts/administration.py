"""Administering staff accounts: list, make, change, disable, give a new password.

Each change is one update on the version that was seen, with its audit entry owed in it. Who may change whom is in
:mod:`accounts.admin_scope`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.errors import DuplicateKeyError

from accounts.admin_scope import check_grant
from accounts.administrators import Administrators
from accounts.authority import Authority
from accounts.models import NewStaff, StaffSession
from accounts.passwords import Passwords
from accounts.sessions import ended_by
from accounts.staff import StaffService, new_account, username_taken
from core.audit import owe_audit
from core.database import Database
from core.errors import Conflict, Forbidden, Invalid, NotFound
from core.ids import new_id
from core.paging import by_key
from core.queue.debts import Amendment, Document
from core.versions import change_version, changes_between, stale, version_of

KnownAreas = Callable[[Iterable[str]], Awaitable[set[str]]]
"""Which of some area codes exist."""

_AUDITED = ("name", "roles", "areas", "unit_id", "disabled")
_SHOWN = {"password_hash": 0, "password_history": 0, "totp.secret": 0, "totp.recovery": 0, "totp_pending": 0, "owed": 0}


@dataclass(frozen=True)
class StaffFilters:
    """What accounts can be listed by; None means any."""

    text: str | None = None
    role: str | None = None
    unit: str | None = None
    area: str | None = None
    disabled: bool | None = None


class StaffAdministration:
    """What administrators do with accounts."""

    def __init__(
        self,
        database: Database,
        *,
        staff: StaffService,
        passwords: Passwords,
        administrators: Administrators,
        known_areas: KnownAreas,
    ) -> None:
        self._accounts = database["staff"]
        self._staff = staff
        self._passwords = passwords
        self._administrators = administrators
        self._authority = Authority(database)
        self._known_areas = known_areas

    async def list(
        self, by: StaffSession, filters: StaffFilters, page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        """One page of the accounts that ``by`` administers, by user name, and the mark of the next page."""
        query: Document = {"$and": [by.reach.enclosed(), *_conditions(filters)]}
        return await by_key(self._accounts, query, page, size, key="username", fields=_SHOWN)

    async def get(self, by: StaffSession, staff_id: str) -> Document:
        """The account ``staff_id``. Raises :class:`NotFound` also for one that ``by`` does not administer."""
        found = await self._accounts.find_one({"_id": staff_id, **by.reach.enclosed()}, _SHOWN)
        if found is None:
            raise _no_such_staff()
        return dict(found)

    async def administered(self, by: StaffSession, staff_id: str) -> Document:
        """The account ``staff_id``, which ``by`` may change: it can do no more than ``by``, and nowhere else.

        Raises :class:`NotFound` for one that is out of reach and :class:`Forbidden` for a stronger one.
        """
        account = await self.get(by, staff_id)
        await self._authority.check(by, account)
        return account

    async def create(self, by: StaffSession, person: NewStaff) -> tuple[Document, str]:
        """Make an account: (it, its first password, which is not shown again and has to be changed).

        Raises :class:`Invalid` for an unknown role, unit or area, :class:`Forbidden` for what is beyond ``by``'s reach
        and :class:`Conflict` for a user name that is taken or roles that hold two powers (``POWERS_APART``).
        """
        await self._check(by, person.roles, person.areas, person.unit_id)
        password, fields = await self._passwords.initial()
        document = new_account(new_id(), person, fields)
        document["owed"] = [
            owe_audit(
                "staff.create",
                subject=by.named(),
                object_=_object(document),
                changes=changes_between({}, document, ("username", *_AUDITED)),
            )
        ]
        async with self._administrators.kept(changed_account=document):
            try:
                await self._accounts.insert_one(document)
            except DuplicateKeyError:
                raise username_taken() from None
        return document, password

    async def change(self, by: StaffSession, staff_id: str, version: int, wanted: dict[str, Any]) -> Document:
        """Change name, roles, areas or unit (those of ``wanted``); the account after it.

        Raises what :meth:`create` does, and :class:`Conflict` (``STALE``; ``LAST_ADMINISTRATOR``).
        """
        before = await self._ours(by, staff_id, version)
        whole = {**before, **wanted}
        await self._check(by, whole["roles"], whole["areas"], whole["unit_id"], before=before)
        return await self._apply(by, "staff.change", before, version, wanted)

    async def set_disabled(
        self, by: StaffSession, staff_id: str, version: int, disabled: bool, reason: str | None = None
    ) -> Document:
        """Shut the account out at once (its sessions end), or let it in again; the account after it.

        Raises :class:`Conflict` (``STALE``, ``OWN_ACCOUNT``, ``LAST_ADMINISTRATOR``).
        """
        before = await self._ours(by, staff_id, version)
        if disabled:
            _refuse_own(by, staff_id, "不能停用自己的账号，请由其他管理员操作。")
        action = "staff.disable" if disabled else "staff.enable"
        wanted: dict[str, Any] = {"disabled": disabled}
        return await self._apply(by, action, before, version, wanted, {"sessions": []} if disabled else {}, reason)

    async def reset_password(
        self, by: StaffSession, staff_id: str, version: int, reason: str | None = None
    ) -> tuple[Document, str]:
        """A new first password: (the account, the password). Its sessions end. One's own is changed by who knows it."""
        _refuse_own(by, staff_id, "不能重置自己的密码，请用当前密码修改，或请其他管理员重置。")
        before = await self._ours(by, staff_id, version)
        stored = await self._accounts.find_one({"_id": staff_id}, {"password_hash": 1, "password_history": 1})
        if stored is None:
            raise _no_such_staff()
        password, fields = await self._passwords.initial(stored)
        more = {**fields, **ended_by("password")}
        return await self._apply(by, "staff.reset_password", before, version, {}, more, reason), password

    async def reset_second_factor(self, by: StaffSession, staff_id: str, version: int, reason: str) -> Document:
        """Take the second factor off the account, whose owner has lost it; its sessions end. Not off one's own."""
        _refuse_own(by, staff_id, "不能重置自己的动态验证码，请由其他管理员操作。")
        before = await self._ours(by, staff_id, version)
        return await self._apply(
            by,
            "staff.reset_second_factor",
            before,
            version,
            {},
            {**ended_by("second_factor"), "totp": None, "totp_pending": None},
            reason,
        )

    async def _ours(self, by: StaffSession, staff_id: str, version: int) -> Document:
        """The account, as far as ``by`` may change it at all and has seen its present version."""
        account = await self.administered(by, staff_id)
        if version_of(account) != version:
            raise stale(account)
        return account

    async def _check(
        self,
        by: StaffSession,
        roles: Sequence[str],
        areas: Sequence[str],
        unit_id: str | None,
        before: Document | None = None,
    ) -> None:
        """Raise unless an account may have these; what it has already may stay, such as a unit retired since."""
        kept = before is not None and before["unit_id"] == unit_id
        granted = await self._staff.check_names(roles, None if kept else unit_id)
        known = await self._known_areas(areas)
        unknown = sorted(set(areas) - known)
        if unknown and (before is None or before["areas"] != areas):
            raise Invalid(f"没有这些区域：{'、'.join(unknown)}。", code="NO_SUCH_AREA", details={"areas": unknown})
        if not by.reach.encloses(areas, unit_id):
            raise Forbidden("只能管理您负责的区域和部门内的人员。", code="OUT_OF_REACH")
        check_grant(by, {permission for role in granted for permission in role.permissions})

    async def _apply(
        self,
        by: StaffSession,
        action: str,
        before: Document,
        version: int,
        wanted: dict[str, Any],
        unseen: dict[str, Any] | None = None,
        reason: str | None = None,
    ) -> Document:
        """The update itself; ``unseen`` is set too, without the audit log telling before and after."""
        after = {**before, **wanted}
        entry = owe_audit(
            action,
            subject=by.named(),
            object_=_object(before),
            reason=reason,
            changes=changes_between(before, after, _AUDITED),
        )
        amendment = Amendment(set={**wanted, **(unseen or {})}, owe=[entry])
        async with self._administrators.kept(changed_account=after):
            changed = await change_version(self._accounts, before["_id"], version, amendment, missing=_no_such_staff())
        return changed


def _conditions(filters: StaffFilters) -> list[Document]:
    conditions: list[Document] = [
        {name: value}
        for name, value in (("roles", filters.role), ("unit_id", filters.unit), ("disabled", filters.disabled))
        if value is not None
    ]
    if filters.area is not None:
        conditions.append({"areas": {"$regex": f"^{re.escape(filters.area)}"}})
    if filters.text is not None:
        begins = {"$regex": f"^{re.escape(filters.text)}"}
        lower = {"$regex": f"^{re.escape(filters.text.lower())}"}
        conditions.append({"$or": [{"username": lower}, {"name": begins}]})
    return conditions


def _refuse_own(by: StaffSession, staff_id: str, message: str) -> None:
    if staff_id == by.staff_id:
        raise Conflict(message, code="OWN_ACCOUNT")


def _object(account: Document) -> dict[str, str]:
    return {"kind": "staff", "id": account["_id"], "name": account["name"]}


def _no_such_staff() -> NotFound:
    return NotFound("没有找到这位工作人员，请刷新后再试。", code="NO_SUCH_STAFF")
