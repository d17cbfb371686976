"""Delegation while away."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accounts.delegation import DelegationService
from accounts.sessions import SessionService, in_force
from admin.accounts.session import StaffView, staff_view
from admin.accounts.staff import RoleKeys, Version, Words
from core.clock import now
from core.queue.debts import Document
from handlers.base import BaseHandler
from handlers.models import Answer, Body, GivenMoment, Moment, ObjectId, Query
from handlers.operations import operation


class Colleague(Answer):
    """A member of staff by name."""

    staff_id: str
    name: str


class Delegation(Answer):
    """Roles that somebody has lent to a colleague for a time."""

    delegation_id: str
    lender: Colleague
    delegate: Colleague
    roles: list[str]
    not_lent: list[str] = Field(
        description="What these roles permit and the delegate does not get: accounts, roles and the audit log stay "
        "with the lender."
    )
    begins_at: Moment
    ends_at: Moment
    reason: str
    ended_at: Moment | None = Field(description="When it was ended before its time.")
    in_force: bool
    version: int


class DelegationPage(Answer):
    """One page of delegations."""

    delegations: list[Delegation]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class DelegationQuery(Query):
    """Which delegations of one's own; newest first."""

    direction: Annotated[Literal["given", "received"], Field(description="Lent by oneself, or to oneself.")] = (
        "received"
    )
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class NewDelegation(Body):
    """Which of one's roles are lent, to whom, for how long and why."""

    to: ObjectId
    roles: RoleKeys
    begins_at: GivenMoment
    ends_at: GivenMoment
    reason: Words


class SeenDelegation(Body):
    """Which version was seen."""

    version: Version


class Acting(Body):
    """The delegation to act by; null: as oneself."""

    delegation_id: ObjectId | None


async def _view(service: DelegationService, delegation: Document) -> Delegation:
    lender, delegate = delegation["from"], delegation["to"]
    shared = ("roles", "begins_at", "ends_at", "reason", "ended_at", "version")
    return Delegation(
        delegation_id=delegation["_id"],
        lender=Colleague(staff_id=lender["id"], name=lender["name"]),
        delegate=Colleague(staff_id=delegate["id"], name=delegate["name"]),
        not_lent=await service.not_lent(delegation),
        in_force=in_force(delegation, now()),
        **{name: delegation[name] for name in shared},
    )


class Delegations(BaseHandler):
    """``/delegations``."""

    @operation("List one's delegations", audience="staff", reach="own", query=DelegationQuery, answer=DelegationPage)
    async def get(self, query: DelegationQuery) -> DelegationPage:
        """Those that are over, too."""
        service = self.services[DelegationService]
        found, following = await service.list(self.staff, query.direction, query.page, query.size)
        return DelegationPage(delegations=[await _view(service, d) for d in found], next_page=following)

    @operation(
        "Lend one's roles while away",
        audience="staff",
        reach="own",
        body=NewDelegation,
        answer=Delegation,
        status=201,
        limits=("write",),
        errors=(403, 404, 409),
    )
    async def post(self, body: NewDelegation) -> Delegation:
        """To a colleague of the same unit and area, for ninety days at most; it ends by itself. ``not_lent`` says what
        of the roles stays with the lender; 422 NOTHING_LENT where that is all."""
        service = self.services[DelegationService]
        made = await service.create(self.staff, body.to, body.roles, body.begins_at, body.ends_at, body.reason)
        self.services.wake("delegations")
        return await _view(service, made)


class DelegationEnd(BaseHandler):
    """``/delegations/{delegation_id}/end``."""

    @operation(
        "End a delegation before its time",
        audience="staff",
        reach="limited",
        body=SeenDelegation,
        answer=Delegation,
        limits=("write",),
        errors=(409,),
    )
    async def post(self, delegation_id: str, body: SeenDelegation) -> Delegation:
        """By who lent, who was lent to, or an administrator. Whoever uses it is told at their next request."""
        service = self.services[DelegationService]
        ended = await service.end(self.staff, delegation_id, body.version)
        self.services.wake("delegations")
        return await _view(service, ended)


class SessionActing(BaseHandler):
    """``/session/acting``."""

    @operation(
        "Act for an absent colleague, or as oneself again",
        audience="staff",
        reach="own",
        body=Acting,
        answer=StaffView,
        limits=("write",),
        errors=(403, 404),
    )
    async def put(self, body: Acting) -> StaffView:
        """From now on this session has the colleague's roles and reach in place of one's own. The answer shows them."""
        await self.services[DelegationService].act(self.staff, body.delegation_id)
        self.services.wake("delegations")
        token = self.request.headers["Authorization"].partition(" ")[2].strip()
        return staff_view(await self.services[SessionService].staff(token))
