"""What holds a point, and the areas there are. This service and the importer alone touch the ``areas`` collection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pymongo import IndexModel
from pymongo.errors import OperationFailure

from core.database import Database
from core.errors import Invalid, NotFound, Unavailable
from places.coordinates import check
from places.models import Area, AreaRef, Level, Located, Point, chain_of

AREAS: Final = "areas"

# Never sharded: a city has thousands of areas, not millions, and the importer puts a new set in place by a rename.
INDEXES: Final[dict[str, list[IndexModel]]] = {
    AREAS: [IndexModel([("geometry", "2dsphere")]), IndexModel([("level", 1)]), IndexModel([("parent", 1)])],
}

_QUERY_PLAN_KILLED = 175


class PlaceService:
    """Geography as the domains use it."""

    INDEXES = INDEXES

    def __init__(self, database: Database) -> None:
        self._areas = database[AREAS]

    async def locate(self, longitude: float, latitude: float) -> Located:
        """The district, street, community and grid that hold a WGS-84 point: one indexed query.

        A point on a border belongs to both sides; the deepest chain of nested areas wins, then the smallest code, so
        that the answer never changes and never mixes two communities. A gap in the map leaves the deeper levels
        ``None``. Raises :class:`Invalid` (``OUTSIDE_DISTRICT``, or ``INVALID`` for what is no position) and
        :class:`Unavailable` (``NO_DISTRICT``) while no district is imported.
        """
        try:
            point = Point(coordinates=check(longitude, latitude))
        except ValueError as error:
            raise Invalid("位置坐标不正确，请重新选择位置。", details={"fields": ["longitude", "latitude"]}) from error
        query = {"geometry": {"$geoIntersects": {"$geometry": point.model_dump()}}}
        names = {found["_id"]: found["name"] for found in await self._find(query, {"name": 1})}
        nested = [chain for chain in map(chain_of, names) if names.keys() >= set(chain)]
        if not nested:
            raise await self._outside()
        chain = min(nested, key=lambda codes: (-len(codes), codes))
        return Located.from_chain([AreaRef(code=code, name=names[code]) for code in chain])

    async def areas(self, level: Level | None = None, parent: str | None = None) -> list[Area]:
        """All areas, of one level or within one parent where given, by code."""
        query = {k: v for k, v in (("level", level), ("parent", parent)) if v is not None}
        return sorted((Area.model_validate(found) for found in await self._find(query)), key=lambda area: area.code)

    async def get(self, code: str) -> Area:
        """The area ``code``. Raises :class:`NotFound` (``AREA_NOT_FOUND``)."""
        found = await self._areas.find_one({"_id": code})
        if found is None:
            raise NotFound("没有找到该区域，请刷新后重新选择。", code="AREA_NOT_FOUND")
        return Area.model_validate(found)

    async def exists(self, code: str) -> bool:
        """Whether there is an area ``code``."""
        return await self._areas.find_one({"_id": code}, {"_id": 1}) is not None

    async def listed(
        self,
        *,
        size: int,
        level: Level | None = None,
        parent: str | None = None,
        code: str | None = None,
        after: str | None = None,
    ) -> list[dict[str, Any]]:
        """Up to ``size`` areas by code, those after ``after``, without their outlines: _id, name, level, parent."""
        query: dict[str, Any] = {k: v for k, v in (("level", level), ("parent", parent)) if v is not None}
        bounds = {op: v for op, v in (("$eq", code), ("$gt", after)) if v is not None}
        if bounds:
            query["_id"] = bounds
        shown = {"name": 1, "level": 1, "parent": 1}
        return await self._areas.find(query, shown).sort("_id", 1).limit(size).to_list(size)

    async def count_inside(self, codes: list[str]) -> dict[str, int]:
        """How many areas lie right inside each of ``codes``; those with none are left out."""
        counted = self._areas.aggregate(
            [{"$match": {"parent": {"$in": codes}}}, {"$group": {"_id": "$parent", "n": {"$sum": 1}}}]
        )
        return {row["_id"]: row["n"] async for row in counted}

    async def known(self, codes: Iterable[str]) -> set[str]:
        """Which of ``codes`` are those of areas."""
        return {found["_id"] for found in await self._find({"_id": {"$in": list(codes)}}, {"_id": 1})}

    async def names(self, codes: Iterable[str]) -> dict[str, str]:
        """The names of those areas among ``codes`` that there are, by code."""
        return {found["_id"]: found["name"] for found in await self._find({"_id": {"$in": list(codes)}}, {"name": 1})}

    async def _outside(self) -> Invalid | Unavailable:
        served = sorted(found["name"] for found in await self._find({"level": Level.DISTRICT}, {"name": 1}))
        if not served:
            return Unavailable("系统尚未设置服务区域，暂时无法受理，请联系管理员。", code="NO_DISTRICT")
        message = f"该位置不在服务范围内。目前仅受理{'、'.join(served)}范围内的事项，请重新选择位置。"
        return Invalid(message, code="OUTSIDE_DISTRICT", details={"districts": served})

    async def _find(self, query: dict[str, Any], projection: dict[str, int] | None = None) -> list[dict[str, Any]]:
        """All that ``query`` finds. An import that puts a new set in place stops the queries under way: ask again."""
        try:
            return await self._areas.find(query, projection).to_list(None)
        except OperationFailure as error:
            if error.code != _QUERY_PLAN_KILLED:
                raise
        return await self._areas.find(query, projection).to_list(None)
