"""People: citizens and staff, what they may do and where, and their sessions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from accounts.reach import Reach
from core.plain_text import plain

ConsentSubject = Literal["privacy_policy", "location", "photos", "phone"]


@dataclass(frozen=True)
class CitizenSession:
    """A signed-in citizen (市民)."""

    citizen_id: str
    openid: str


Duty = Literal["password", "second_factor"]
"""What a member of staff has to do first: choose a password of their own, set up the second factor."""


@dataclass(frozen=True)
class OnBehalfOf:
    """The absent colleague whose roles are used, by which delegation, and until when."""

    delegation_id: str
    staff_id: str
    name: str
    until: datetime


@dataclass(frozen=True)
class StaffSession:
    """A signed-in member of staff, with what the roles allow and the areas and unit that this is limited to.

    ``areas`` are area codes; a code covers everything inside it. ``unit_id`` None is the command centre, which works on
    every unit's cases; a unit's staff work on their own unit's only. ``session`` is the session's key, and
    ``second_factor`` whether a code was given in it.

    Who acts for an absent colleague (代理, ``on_behalf_of``) has that colleague's roles and reach instead of their own,
    and a name that says so; ``staff_id`` stays their own. ``duties`` have to be seen to before anything else.
    """

    staff_id: str
    name: str
    roles: tuple[str, ...]
    permissions: frozenset[str]
    areas: tuple[str, ...]
    unit_id: str | None
    session: str = ""
    second_factor: bool = False
    duties: tuple[Duty, ...] = ()
    on_behalf_of: OnBehalfOf | None = None

    def named(self) -> dict[str, str]:
        """As the subject of an audit entry: {kind, id, name}, and on_behalf_of whom (their id)."""
        named = {"kind": "staff", "id": self.staff_id, "name": self.name}
        return {**named, "on_behalf_of": self.on_behalf_of.staff_id} if self.on_behalf_of else named

    @property
    def reach(self) -> Reach:
        """How far this person reaches."""
        return Reach(self.areas, self.unit_id)

    def reaches(self, areas: list[str], *unit_ids: str | None) -> bool:
        """Whether a case in ``areas`` (its district, street, community and grid) held by ``unit_ids`` is in reach."""
        return self.reach.contains(areas, *unit_ids)


class Role(BaseModel):
    """A role (角色): a name for a set of permissions. ``requires_totp``: who has it signs in with a second factor."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(pattern=r"^[a-z_]{2,40}$")]
    name: str
    permissions: list[str]
    requires_totp: bool = False


class Unit(BaseModel):
    """A disposal unit (处置部门): who puts a problem right."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(pattern=r"^[a-z0-9_]{2,40}$")]
    name: str
    short_name: str


class NewStaff(BaseModel):
    """A staff account to be made. ``areas`` are area codes, ``roles`` keys of roles."""

    model_config = ConfigDict(extra="forbid")

    username: Annotated[str, Field(pattern=r"^[a-z0-9._-]{3,40}$")]
    name: Annotated[str, AfterValidator(plain), Field(min_length=1, max_length=40)]
    roles: Annotated[list[str], Field(min_length=1)]
    areas: Annotated[list[str], Field(min_length=1)]
    unit_id: str | None = None


@dataclass(frozen=True)
class Consent:
    """One line of a citizen's consent log (PIPL articles 14 to 16): given or withdrawn, for which text's version."""

    subject: ConsentSubject
    version: str
    given: bool
    at: datetime
