"""Administering roles, and the permissions that they are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from accounts.models import Role
from accounts.role_administration import RoleAdministration
from admin.accounts.staff import Version
from admin.accounts.units import Seen
from core.queue.debts import Document
from core.services import Services
from core.versions import version_of
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Moment, PlainText
from handlers.operations import operation

Name = Annotated[PlainText, Field(min_length=1, max_length=40)]
Permissions = Annotated[list[Annotated[str, Field(pattern=r"^[a-z_.]{2,60}$")]], Field(max_length=200)]


class RoleAccount(Answer):
    """A role, with how many accounts have it."""

    key: str
    name: str
    permissions: list[str]
    requires_totp: bool
    held_by: int = Field(description="Accounts that are not disabled.")
    retired_at: Moment | None = Field(description="Since when it is given to nobody; null while it is.")
    version: int


class Roles(Answer):
    """All roles."""

    roles: list[RoleAccount]
    permissions: list[str] = Field(description="What a role can be made of: everything that the code asks for.")


class NewRole(Body):
    """A role to be added."""

    key: Annotated[str, Field(pattern=r"^[a-z_]{2,40}$")]
    name: Name
    permissions: Permissions
    requires_totp: bool = False


class RoleChange(Body):
    """What is to be changed; what is left out stays."""

    version: Version
    name: Name | None = None
    permissions: Permissions | None = None
    requires_totp: bool | None = None


def _view(role: Document, held_by: int) -> RoleAccount:
    return RoleAccount(
        key=role["_id"],
        name=role["name"],
        permissions=role["permissions"],
        requires_totp=role.get("requires_totp", False),
        held_by=held_by,
        retired_at=role.get("retired_at"),
        version=version_of(role),
    )


async def _account(services: Services, key: str) -> RoleAccount:
    return next(_view(*row) for row in await services[RoleAdministration].list() if row[0]["_id"] == key)


class StaffRoles(BaseHandler):
    """``/roles``."""

    @operation("List roles and permissions", audience="staff", reach="shared", answer=Roles, permission="staff.view")
    async def get(self) -> Roles:
        """Roles belong to the whole district."""
        service = self.services[RoleAdministration]
        return Roles(roles=[_view(*row) for row in await service.list()], permissions=sorted(service.known))

    @operation(
        "Add a role",
        audience="staff",
        reach="district",
        body=NewRole,
        answer=RoleAccount,
        status=201,
        permission="role.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, body: NewRole) -> RoleAccount:
        """By a district administrator, of permissions that they hold (or any work, with staff.grant_any). 409
        POWERS_APART for two powers in one; 422 SECOND_FACTOR_KEPT for a power without a second factor."""
        permissions = list(dict.fromkeys(body.permissions))
        role = await self.services[RoleAdministration].create(
            self.staff, Role(**{**body.model_dump(), "permissions": permissions})
        )
        self.services.wake("roles")
        return _view(role, 0)


class StaffRole(BaseHandler):
    """``/roles/{role_key}``."""

    @operation(
        "Change a role",
        audience="staff",
        reach="district",
        body=RoleChange,
        answer=RoleAccount,
        permission="role.manage",
        limits=("write",),
        errors=(409,),
    )
    async def patch(self, role_key: str, body: RoleChange) -> RoleAccount:
        """Holds from the next request of everybody who has it. 403 CANNOT_GRANT where it permits more than one holds,
        409 LAST_ADMINISTRATOR where nobody could undo it, 409 POWERS_APART where somebody would hold two powers, 422
        SECOND_FACTOR_KEPT where a power would be had without a second factor."""
        wanted = body.model_dump(exclude_none=True, exclude={"version"})
        await self.services[RoleAdministration].change(self.staff, role_key, body.version, wanted)
        self.services.wake("roles")
        return await _account(self.services, role_key)


class RoleRetiring(BaseHandler):
    """``/roles/{role_key}/retire``."""

    @operation(
        "Retire a role",
        audience="staff",
        reach="district",
        body=Seen,
        answer=RoleAccount,
        permission="role.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, role_key: str, body: Seen) -> RoleAccount:
        """409 ROLE_IN_USE while any account has it, disabled ones too. The key stays taken: the audit log names it."""
        role = await self.services[RoleAdministration].retire(self.staff, role_key, body.version)
        self.services.wake("roles")
        return _view(role, 0)


class RoleRestoring(BaseHandler):
    """``/roles/{role_key}/restore``."""

    @operation(
        "Have a retired role given again",
        audience="staff",
        reach="district",
        body=Seen,
        answer=RoleAccount,
        permission="role.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, role_key: str, body: Seen) -> RoleAccount:
        """With the permissions that it had."""
        await self.services[RoleAdministration].restore(self.staff, role_key, body.version)
        self.services.wake("roles")
        return await _account(self.services, role_key)
