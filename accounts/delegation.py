"""Delegation while away (代理): a member of staff lends own roles to a colleague for a time.

Whoever acts by a delegation has the absent colleague's roles and reach in place of their own, not added to them, and
every step says for whom it was taken. It ends by itself; what the colleague loses meanwhile is lost to the delegate too
(:meth:`accounts.sessions.SessionService.staff` asks at every request). It cannot be passed on: only one's own roles can
be lent, as oneself, and the permissions with which one could give them away otherwise are not lent.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from pymongo import ASCENDING, DESCENDING, IndexModel, ReturnDocument

from accounts.admin_scope import POWERS
from accounts.authority import Authority
from accounts.models import StaffSession
from accounts.reach import within
from accounts.sessions import SessionService, in_force
from core.audit import owe_audit
from core.clock import now
from core.database import Database
from core.errors import Conflict, Forbidden, Invalid, NotFound
from core.ids import new_id
from core.paging import newest_first
from core.queue.debts import OWED_INDEX, Amendment, Document
from core.queue.slots import SLOT_INDEX, insert_in_slot
from core.versions import change_version

_NEWEST = [("created_at", DESCENDING), ("_id", DESCENDING)]
INDEXES = {
    "delegations": [
        IndexModel([("from.id", ASCENDING), *_NEWEST], name="from"),
        IndexModel([("to.id", ASCENDING), *_NEWEST], name="to"),
        SLOT_INDEX,
        OWED_INDEX,
    ]
}

LONGEST = timedelta(days=90)
MOST = 10  # that one person has lent at a time


class DelegationService:
    """Lending roles, using what was lent, taking it back. ``demands``: whether roles can demand a second factor."""

    def __init__(self, database: Database, sessions: SessionService, *, demands: bool) -> None:
        self._delegations = database["delegations"]
        self._accounts = database["staff"]
        self._roles = database["roles"]
        self._sessions = sessions
        self._authority = Authority(database)
        self._demands = demands

    async def create(
        self, by: StaffSession, to: str, roles: Sequence[str], begins_at: datetime, ends_at: datetime, reason: str
    ) -> Document:
        """Lend ``roles`` of one's own to the colleague ``to`` for a time.

        Raises :class:`Forbidden` (``NOT_PASSED_ON``) for who acts for another, :class:`Invalid` for roles that one does
        not have, that permit nothing which can be lent (``NOTHING_LENT``), or a time that makes no sense,
        :class:`NotFound` for a colleague out of reach, :class:`Conflict` (``TOO_MANY_DELEGATIONS``).
        """
        if by.on_behalf_of is not None:
            raise Forbidden("代理权限不能再转给别人，请切换回本人身份。", code="NOT_PASSED_ON")
        strange = sorted(set(roles) - set(by.roles))
        if strange:
            raise Invalid(f"您没有这些角色：{'、'.join(strange)}。", code="NOT_ONES_ROLE", details={"roles": strange})
        permissions = await self._permissions(roles)
        if permissions <= POWERS:
            raise Invalid(
                "账号管理、角色管理和审计权限不能由他人代理，这些角色没有其他可代理的权限。",
                code="NOTHING_LENT",
                details={"not_lent": sorted(permissions)},
            )
        moment = now()
        if not (begins_at < ends_at and moment < ends_at and ends_at - max(begins_at, moment) <= LONGEST):
            raise Invalid(
                f"代理期限须晚于现在，且最长 {LONGEST.days} 天。",
                details={"fields": [{"field": "ends_at", "problem": f"须晚于开始时间和现在，最长 {LONGEST.days} 天"}]},
            )
        colleague = await self._colleague(by, to)
        document: Document = {
            "_id": new_id(),
            "from": {"id": by.staff_id, "name": by.name},
            "to": {"id": colleague["_id"], "name": colleague["name"]},
            "roles": list(dict.fromkeys(roles)),
            "begins_at": begins_at,
            "ends_at": ends_at,
            "reason": reason,
            "created_at": moment,
            "ended_at": None,
            "ended_by": None,
            "version": 1,
        }
        told = {"roles": document["roles"], "begins_at": begins_at, "ends_at": ends_at, "to": colleague["_id"]}
        document["owed"] = [self._audit("delegation.create", by, document, reason=reason, details=told)]
        if not await self._insert(document, moment):
            raise Conflict(f"同时最多设置 {MOST} 个代理，请先结束不需要的。", code="TOO_MANY_DELEGATIONS")
        return document

    async def not_lent(self, delegation: Document) -> list[str]:
        """What the roles of ``delegation`` permit to who lends them, and not to who acts by it."""
        return sorted(POWERS & await self._permissions(delegation["roles"]))

    async def _permissions(self, roles: Sequence[str]) -> set[str]:
        found = self._roles.find({"_id": {"$in": list(roles)}}, {"permissions": 1})
        return {permission async for role in found for permission in role["permissions"]}

    async def _insert(self, document: Document, moment: datetime) -> bool:
        """Insert the new delegation, if its lender may have one more; those that are over by now count no more."""
        lender = {"from.id": document["from"]["id"]}
        over = {**lender, "slot": {"$type": "string"}, "ends_at": {"$lte": moment}}
        await self._delegations.update_many(over, {"$unset": {"slot": ""}})
        # Those that were made before there were slots have none, and count.
        without = {**lender, "slot": None, "ended_at": None, "ends_at": {"$gt": moment}}
        left = MOST - await self._delegations.count_documents(without)
        return await insert_in_slot(self._delegations, document, document["from"]["id"], left)

    async def list(
        self, by: StaffSession, direction: Literal["given", "received"], page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        """One page of what one has lent or was lent, newest first, and the mark of the next one."""
        theirs = {"from.id" if direction == "given" else "to.id": by.staff_id}
        return await newest_first(self._delegations, theirs, page, size, fields={"owed": 0})

    async def end(self, by: StaffSession, delegation_id: str, version: int) -> Document:
        """End it before its time: who gave it, who got it, or who administers who gave it; the delegation after it.

        Whoever uses it just then is told at their next request. Raises :class:`NotFound`, :class:`Conflict`, and
        :class:`Forbidden` for an administrator who holds less than who gave it.
        """
        found = await self._delegations.find_one({"_id": delegation_id})
        if found is None or not await self._may_end(by, found):
            raise _no_such_delegation()
        if found["ended_at"] is not None:
            raise Conflict("这个代理已经结束。", code="DELEGATION_ENDED")
        amendment = Amendment(
            set={"ended_at": now(), "ended_by": by.staff_id},
            unset=["slot"],
            owe=[self._audit("delegation.end", by, found)],
        )
        return await change_version(self._delegations, delegation_id, version, amendment, missing=_no_such_delegation())

    async def act(self, by: StaffSession, delegation_id: str | None) -> None:
        """Use a delegation in this session from the next request on; None: be oneself again.

        Raises :class:`NotFound` for one that is not one's own or not in force, and :class:`Forbidden`
        (``SECOND_FACTOR_REQUIRED``) where its roles demand a second factor that this session has not shown.
        """
        if delegation_id is None:
            await self._sessions.act_for(by.session, None)
            return
        found = await self._delegations.find_one({"_id": delegation_id, "to.id": by.staff_id})
        if found is None or not in_force(found, now()):
            raise NotFound("没有这个代理，或不在有效期内。", code="NO_SUCH_DELEGATION")
        demanding = {"_id": {"$in": found["roles"]}, "requires_totp": True}
        if self._demands and not by.second_factor and await self._roles.find_one(demanding, {"_id": 1}):
            raise Forbidden("代理的角色要求使用动态验证码登录，请先绑定后重新登录。", code="SECOND_FACTOR_REQUIRED")
        # On record before it can be used: the session is another document.
        entry = self._audit("delegation.use", by, found)
        still = {"_id": delegation_id, "ended_at": None}
        if not await self._delegations.find_one_and_update(
            still, {"$push": {"owed": entry}}, return_document=ReturnDocument.AFTER
        ):
            raise NotFound("没有这个代理，或不在有效期内。", code="NO_SUCH_DELEGATION")
        await self._sessions.act_for(by.session, delegation_id)

    async def _colleague(self, by: StaffSession, staff_id: str) -> Document:
        """Who can stand in: somebody of the same unit whose area is a part of one's own, or the other way round."""
        found = await self._accounts.find_one({"_id": staff_id, "disabled": False})
        near = found is not None and (
            found["unit_id"] == by.unit_id
            and (
                any(within([area], by.areas) for area in found["areas"])
                or any(within([area], found["areas"]) for area in by.areas)
            )
        )
        if found is None or not near or staff_id == by.staff_id:
            raise NotFound("没有找到这位同事：代理人须是同一部门、区域相关的在职人员。", code="NO_SUCH_STAFF")
        return dict(found)

    async def _may_end(self, by: StaffSession, delegation: Document) -> bool:
        if by.staff_id in (delegation["from"]["id"], delegation["to"]["id"]):
            return True
        if "staff.manage" not in by.permissions:
            return False
        giver = await self._accounts.find_one({"_id": delegation["from"]["id"]})
        if giver is None or not by.reach.encloses(giver["areas"], giver["unit_id"]):
            return False
        await self._authority.check(by, giver)
        return True

    @staticmethod
    def _audit(
        action: str,
        by: StaffSession,
        delegation: Document,
        reason: str | None = None,
        details: Document | None = None,
    ) -> Document:
        return owe_audit(
            action,
            subject=by.named(),
            object_={"kind": "delegation", "id": delegation["_id"], "name": delegation["from"]["name"]},
            reason=reason,
            details=details,
        )


def _no_such_delegation() -> NotFound:
    return NotFound("没有这个代理，请刷新后再试。", code="NO_SUCH_DELEGATION")
