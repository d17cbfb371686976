"""Administering disposal units."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from accounts.models import Unit
from accounts.unit_administration import UnitAdministration
from admin.accounts.staff import UnitKey, Version
from core.queue.debts import Document
from core.versions import version_of
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Moment, PlainText
from handlers.operations import operation

Name = Annotated[PlainText, Field(min_length=1, max_length=60)]
ShortName = Annotated[PlainText, Field(min_length=1, max_length=20)]


class UnitAccount(Answer):
    """A disposal unit; a retired one gets no more cases."""

    key: str
    name: str
    short_name: str
    retired_at: Moment | None
    version: int


class Units(Answer):
    """All units."""

    units: list[UnitAccount]


class NewUnit(Body):
    """A unit to be added."""

    key: UnitKey
    name: Name
    short_name: ShortName


class UnitChange(Body):
    """What is to be changed; what is left out stays."""

    version: Version
    name: Name | None = None
    short_name: ShortName | None = None


class Seen(Body):
    """Which version was seen."""

    version: Version


def _view(unit: Document) -> UnitAccount:
    return UnitAccount(
        key=unit["_id"],
        name=unit["name"],
        short_name=unit["short_name"],
        retired_at=unit.get("retired_at"),
        version=version_of(unit),
    )


class DisposalUnits(BaseHandler):
    """``/units``."""

    @operation("List disposal units", audience="staff", reach="shared", answer=Units, permission="staff.view")
    async def get(self) -> Units:
        """The retired ones too. What forms choose from is in /directory."""
        return Units(units=[_view(unit) for unit in await self.services[UnitAdministration].list()])

    @operation(
        "Add a disposal unit",
        audience="staff",
        reach="district",
        body=NewUnit,
        answer=UnitAccount,
        status=201,
        permission="unit.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, body: NewUnit) -> UnitAccount:
        """A key is used once, since old cases name it."""
        unit = await self.services[UnitAdministration].create(self.staff, Unit(**body.model_dump()))
        self.services.wake("units")
        return _view(unit)


class DisposalUnit(BaseHandler):
    """``/units/{unit_key}``."""

    @operation(
        "Rename a disposal unit",
        audience="staff",
        reach="district",
        body=UnitChange,
        answer=UnitAccount,
        permission="unit.manage",
        limits=("write",),
        errors=(409,),
    )
    async def patch(self, unit_key: str, body: UnitChange) -> UnitAccount:
        """Cases keep the name that the unit had when they were dispatched to it."""
        wanted = body.model_dump(exclude_none=True, exclude={"version"})
        unit = await self.services[UnitAdministration].rename(self.staff, unit_key, body.version, wanted)
        self.services.wake("units")
        return _view(unit)


class UnitRetiring(BaseHandler):
    """``/units/{unit_key}/retire``."""

    @operation(
        "Retire a disposal unit",
        audience="staff",
        reach="district",
        body=Seen,
        answer=UnitAccount,
        permission="unit.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, unit_key: str, body: Seen) -> UnitAccount:
        """409 UNIT_IN_USE while it has open cases or a routing rule names it."""
        unit = await self.services[UnitAdministration].retire(self.staff, unit_key, body.version)
        self.services.wake("units")
        return _view(unit)


class UnitRestoring(BaseHandler):
    """``/units/{unit_key}/restore``."""

    @operation(
        "Have a retired unit work again",
        audience="staff",
        reach="district",
        body=Seen,
        answer=UnitAccount,
        permission="unit.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, unit_key: str, body: Seen) -> UnitAccount:
        """From now on it may be dispatched to and named in rules."""
        unit = await self.services[UnitAdministration].restore(self.staff, unit_key, body.version)
        self.services.wake("units")
        return _view(unit)
