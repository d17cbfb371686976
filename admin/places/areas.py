"""The areas of the map with what is in each. They are imported by ``python -m places import``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from pydantic import Field

from handlers.base import BaseHandler
from handlers.models import Answer, Query
from handlers.operations import operation
from places.models import Level
from reports.area_overview import AreaOverview


class AreaQuery(Query):
    """Which areas; without either, the district. By code."""

    level: Level | None = None
    parent: Annotated[str | None, Field(pattern=r"^[0-9]{6}([0-9]{3}){0,3}$", description="Those right inside it.")] = (
        None
    )
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=200)] = 50


class AreaAccount(Answer):
    """An area, and what is in it."""

    code: str
    name: str
    level: Level
    parent: str | None
    inside: int = Field(description="Areas right inside it.")
    rules: int = Field(description="Routing rules that name it.")
    staff: int | None = Field(description="Accounts given this very area; null where it is out of one's reach.")


class AreaPage(Answer):
    """One page of areas."""

    areas: list[AreaAccount]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class AreaDetail(AreaAccount):
    """An area, with how much is to be done in it."""

    open_cases: int | None = Field(description="Up to ten thousand; null where it is out of one's reach.")


class Areas(BaseHandler):
    """``/areas``."""

    @operation(
        "List areas", audience="staff", reach="shared", query=AreaQuery, answer=AreaPage, permission="report.view"
    )
    async def get(self, query: AreaQuery) -> AreaPage:
        """Level by level: the areas inside one are those that name it as their parent."""
        found, following = await self.services[AreaOverview].page(
            self.staff, query.level, query.parent, query.page, query.size
        )
        return AreaPage(areas=[AreaAccount(**asdict(area)) for area in found], next_page=following)


class Area(BaseHandler):
    """``/areas/{area_code}``."""

    @operation("Read an area", audience="staff", reach="shared", answer=AreaDetail, permission="report.view")
    async def get(self, area_code: str) -> AreaDetail:
        """With the open cases in it."""
        contents, open_cases = await self.services[AreaOverview].get(self.staff, area_code)
        return AreaDetail(**asdict(contents), open_cases=open_cases)
