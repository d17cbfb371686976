"""Administering staff accounts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from accounts.administration import StaffAdministration, StaffFilters
from accounts.models import NewStaff
from core.queue.debts import Document
from core.versions import version_of
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Moment, PlainText, Query, WordsSought
from handlers.operations import operation

Version = Annotated[int, Field(ge=1, le=2**31, description="The version that the screen showed; else 409 STALE.")]
Words = Annotated[PlainText, Field(min_length=2, max_length=200)]
PersonName = Annotated[PlainText, Field(min_length=1, max_length=40)]
RoleKeys = Annotated[list[Annotated[str, Field(pattern=r"^[a-z_]{2,40}$")]], Field(min_length=1, max_length=20)]
AreaCodes = Annotated[
    list[Annotated[str, Field(pattern=r"^[0-9]{6}([0-9]{3}){0,3}$")]], Field(min_length=1, max_length=200)
]
UnitKey = Annotated[str, Field(pattern=r"^[a-z0-9_]{2,40}$")]


class StaffQuery(Query):
    """Which accounts; all conditions must hold. By user name."""

    text: Annotated[
        WordsSought | None, Field(min_length=1, max_length=40, description="Beginning of name or user name.")
    ] = None
    role: Annotated[str | None, Field(max_length=40)] = None
    unit: Annotated[str | None, Field(max_length=40)] = None
    area: Annotated[
        str | None, Field(pattern=r"^[0-9]{6,15}$", description="Who works in this area or one inside it.")
    ] = None
    disabled: bool | None = None
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class Account(Answer):
    """A staff account."""

    staff_id: str
    username: str
    name: str
    roles: list[str]
    areas: list[str]
    unit: str | None
    disabled: bool
    must_change_password: bool
    second_factor: bool = Field(description="Whether one is set up.")
    created_at: Moment
    version: int


class AccountPage(Answer):
    """One page of accounts."""

    staff: list[Account]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class AccountWithPassword(Answer):
    """An account and its first password, which is shown this once and has to be changed at the first sign-in."""

    account: Account
    initial_password: str


class NewAccount(Body):
    """An account to be made; its first password is made up by the system."""

    username: Annotated[str, Field(pattern=r"^[a-z0-9._-]{3,40}$")]
    name: PersonName
    roles: RoleKeys
    areas: AreaCodes
    unit: UnitKey | None = None


class AccountChange(Body):
    """What is to be changed; what is left out stays. `unit` null is the command centre."""

    version: Version
    name: PersonName | None = None
    roles: RoleKeys | None = None
    areas: AreaCodes | None = None
    unit: UnitKey | None = None


class Because(Body):
    """Which version was seen, and why it is done; the reason is recorded."""

    version: Version
    reason: Words


def account_view(account: Document) -> Account:
    """The account as administrators see it."""
    return Account(
        staff_id=account["_id"],
        username=account["username"],
        name=account["name"],
        roles=account["roles"],
        areas=account["areas"],
        unit=account["unit_id"],
        disabled=account["disabled"],
        must_change_password=bool(account.get("must_change_password")),
        second_factor=bool((account.get("totp") or {}).get("confirmed_at")),
        created_at=account["created_at"],
        version=version_of(account),
    )


class StaffAccounts(BaseHandler):
    """``/staff``."""

    @operation(
        "List staff accounts",
        audience="staff",
        reach="limited",
        query=StaffQuery,
        answer=AccountPage,
        permission="staff.view",
    )
    async def get(self, query: StaffQuery) -> AccountPage:
        """Those within the areas and unit of whoever asks."""
        filters = StaffFilters(**query.model_dump(exclude={"page", "size"}))
        found, following = await self.services[StaffAdministration].list(self.staff, filters, query.page, query.size)
        return AccountPage(staff=[account_view(a) for a in found], next_page=following)

    @operation(
        "Make a staff account",
        audience="staff",
        reach="limited",
        body=NewAccount,
        answer=AccountWithPassword,
        status=201,
        permission="staff.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, body: NewAccount) -> AccountWithPassword:
        """Within one's own areas and unit, and with roles that permit no more than one's own (or any work, with
        staff.grant_any)."""
        person = NewStaff(**body.model_dump(exclude={"unit"}), unit_id=body.unit)
        account, password = await self.services[StaffAdministration].create(self.staff, person)
        self.services.wake("staff")
        return AccountWithPassword(account=account_view(account), initial_password=password)


class StaffAccount(BaseHandler):
    """``/staff/{staff_id}``."""

    @operation("Read a staff account", audience="staff", reach="limited", answer=Account, permission="staff.view")
    async def get(self, staff_id: str) -> Account:
        """404 also for one that is out of reach."""
        return account_view(await self.services[StaffAdministration].get(self.staff, staff_id))

    @operation(
        "Change name, roles, areas or unit",
        audience="staff",
        reach="limited",
        body=AccountChange,
        answer=Account,
        permission="staff.manage",
        limits=("write",),
        errors=(409,),
    )
    async def patch(self, staff_id: str, body: AccountChange) -> Account:
        """Holds from the person's next request. 409 LAST_ADMINISTRATOR where nobody would administer the district."""
        given = body.model_dump(exclude_unset=True, exclude={"version"})
        wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None or name == "unit"}
        if "unit" in wanted:
            wanted["unit_id"] = wanted.pop("unit")
        account = await self.services[StaffAdministration].change(self.staff, staff_id, body.version, wanted)
        self.services.wake("staff")
        return account_view(account)


class StaffDisabling(BaseHandler):
    """``/staff/{staff_id}/disable``."""

    @operation(
        "Shut an account out",
        audience="staff",
        reach="limited",
        body=Because,
        answer=Account,
        permission="staff.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, staff_id: str, body: Because) -> Account:
        """Its sessions end at once. Not one's own account, and not the last administrator's."""
        account = await self.services[StaffAdministration].set_disabled(
            self.staff, staff_id, body.version, True, body.reason
        )
        self.services.wake("staff")
        return account_view(account)


class StaffEnabling(BaseHandler):
    """``/staff/{staff_id}/enable``."""

    @operation(
        "Let an account in again",
        audience="staff",
        reach="limited",
        body=Because,
        answer=Account,
        permission="staff.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, staff_id: str, body: Because) -> Account:
        """With the password, roles and areas that it had."""
        account = await self.services[StaffAdministration].set_disabled(
            self.staff, staff_id, body.version, False, body.reason
        )
        self.services.wake("staff")
        return account_view(account)


class StaffPassword(BaseHandler):
    """``/staff/{staff_id}/password-reset``."""

    @operation(
        "Give a new first password",
        audience="staff",
        reach="limited",
        body=Because,
        answer=AccountWithPassword,
        permission="staff.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, staff_id: str, body: Because) -> AccountWithPassword:
        """Made up by the system, shown this once, to be changed at the next sign-in; the account's sessions end. Not
        one's own: that is changed, with the present one."""
        account, password = await self.services[StaffAdministration].reset_password(
            self.staff, staff_id, body.version, body.reason
        )
        self.services.wake("staff")
        return AccountWithPassword(account=account_view(account), initial_password=password)
