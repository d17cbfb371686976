"""Staff sign in and out, and look up what their screens choose from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from pydantic import Field

from accounts.models import Duty, StaffSession
from accounts.sessions import SessionService
from accounts.sign_in import Device, SignInService
from accounts.staff import StaffService
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Moment
from handlers.operations import operation
from places.service import PlaceService
from reports.catalogue.categories import Catalogue


class Credentials(Body):
    """A user name and password."""

    username: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{3,40}$")]
    password: Annotated[str, Field(min_length=1, max_length=128)]
    code: Annotated[
        str | None,
        Field(
            pattern=r"^([0-9]{6}|[0-9A-Za-z]{4}(-[0-9A-Za-z]{4}){3})$",
            description="Six digits of the authenticator app, or a recovery code. 401 CODE_REQUIRED asks for it.",
        ),
    ] = None


class ActingFor(Answer):
    """The absent colleague for whom somebody acts, and until when."""

    delegation_id: str
    staff_id: str
    name: str
    until: Moment


class StaffView(Answer):
    """A member of staff, with what they may do and where."""

    staff_id: str
    name: str
    roles: list[str]
    permissions: list[str]
    areas: list[str]
    unit: str | None
    duties: list[Duty] = Field(
        description="To be seen to before anything else is let through: password (PUT /me/password), second_factor."
    )
    on_behalf_of: ActingFor | None = Field(description="The absent colleague whose roles and reach these are.")


class StaffSessionOpened(Answer):
    """A new session; the token goes into ``Authorization: Bearer``."""

    token: str
    expires_in: int = Field(description="Seconds at most; being idle ends it sooner.")
    staff: StaffView


class UnitView(Answer):
    """A disposal unit."""

    key: str
    name: str
    short_name: str


class RoleView(Answer):
    """A role and what it permits."""

    key: str
    name: str
    permissions: list[str]
    requires_totp: bool


class CategoryName(Answer):
    """A category's key and name."""

    key: str
    name: str


class AreaView(Answer):
    """A district, street, community or grid."""

    code: str
    name: str
    level: str
    parent: str | None


class Directory(Answer):
    """What lists and forms choose from."""

    units: list[UnitView]
    roles: list[RoleView]
    categories: list[CategoryName]
    areas: list[AreaView]


def staff_view(staff: StaffSession) -> StaffView:
    """The signed-in member of staff."""
    return StaffView(
        staff_id=staff.staff_id,
        name=staff.name,
        roles=list(staff.roles),
        permissions=sorted(staff.permissions),
        areas=list(staff.areas),
        unit=staff.unit_id,
        duties=list(staff.duties),
        on_behalf_of=ActingFor(**asdict(staff.on_behalf_of)) if staff.on_behalf_of else None,
    )


class Session(BaseHandler):
    """``/session``."""

    @operation(
        "Sign in with a password",
        audience="anyone",
        body=Credentials,
        answer=StaffSessionOpened,
        limits=("sign_in",),
        errors=(401,),
    )
    async def post(self, body: Credentials) -> StaffSessionOpened:
        """A name locks for a while after repeated failures. One's older session ends, and is told so."""
        device = Device(self.address, self.request.headers.get("User-Agent", ""))
        token, seconds = await self.services[SignInService].sign_in(body.username, body.password, body.code, device)
        staff = await self.services[SessionService].staff(token, unready=True)
        return StaffSessionOpened(token=token, expires_in=seconds, staff=staff_view(staff))

    @operation("Sign out", audience="staff", reach="own", limits=("write",), unready=True)
    async def delete(self) -> None:
        """Ends this session."""
        await self.services[SessionService].close(self.request.headers["Authorization"].partition(" ")[2].strip())
        await self.services.audit.record("staff.sign_out", subject=self.staff.named(), object_={})


class Me(BaseHandler):
    """``/me``."""

    @operation("Who I am", audience="staff", reach="own", answer=StaffView, unready=True)
    async def get(self) -> StaffView:
        """Roles, permissions and reach, as they are now."""
        return staff_view(self.staff)


class DirectoryHandler(BaseHandler):
    """``/directory``."""

    @operation(
        "Units, roles, categories, areas", audience="staff", reach="shared", answer=Directory, permission="report.view"
    )
    async def get(self) -> Directory:
        """What lists and forms choose from; grids are left out of the areas, there are thousands."""
        services = self.services
        return Directory(
            units=[UnitView(**u.model_dump()) for u in await services[StaffService].units()],
            roles=[RoleView(**r.model_dump()) for r in await services[StaffService].roles()],
            categories=[CategoryName(key=c.key, name=c.name) for c in await services[Catalogue].categories()],
            areas=[
                AreaView(code=a.code, name=a.name, level=a.level.value, parent=a.parent)
                for a in await services[PlaceService].areas()
                if a.level.value != "grid"
            ],
        )
