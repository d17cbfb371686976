"""The areas of the map with what is in each: areas inside, staff, rules, open cases. Read only: maps are imported."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.models import StaffSession
from accounts.reach import held_by
from core.database import Database
from core.errors import NotFound
from core.paging import key_mark, read_key_mark
from core.queue.debts import Document
from places.models import Level
from places.service import PlaceService
from reports.catalogue.categories import Catalogue
from reports.states import OPEN

MOST_COUNTED = 10_000


@dataclass(frozen=True)
class AreaContents:
    """An area; ``staff`` are accounts given this very area, ``rules`` those that name it. None: out of reach."""

    code: str
    name: str
    level: str
    parent: str | None
    inside: int
    rules: int
    staff: int | None


class AreaOverview:
    """What is where."""

    def __init__(self, database: Database, *, places: PlaceService, catalogue: Catalogue) -> None:
        self._staff = database["staff"]
        self._reports = database["reports"]
        self._places = places
        self._catalogue = catalogue

    async def page(
        self, by: StaffSession, level: Level | None, parent: str | None, page: str | None, size: int
    ) -> tuple[list[AreaContents], str | None]:
        """One page of the areas by code, and the mark of the next one; without level or parent, the districts."""
        if level is None and parent is None:
            level = Level.DISTRICT
        after = read_key_mark(page) if page is not None else None
        found = await self._places.listed(level=level, parent=parent, after=after, size=size + 1)
        more = key_mark(found[size - 1]["_id"]) if len(found) > size else None
        return await self._contents(by, found[:size]), more

    async def get(self, by: StaffSession, code: str) -> tuple[AreaContents, int | None]:
        """One area, and how many open cases lie in it: up to :data:`MOST_COUNTED`, None where it is out of reach.

        Raises :class:`NotFound`.
        """
        found = await self._places.listed(code=code, size=1)
        if not found:
            raise NotFound("没有找到该区域，请刷新后重新选择。", code="AREA_NOT_FOUND")
        (contents,) = await self._contents(by, found)
        if not by.reach.has_area(code):
            return contents, None
        query: Document = {"areas": code, "state": {"$in": OPEN}}
        if by.unit_id is not None:
            query |= held_by(by.unit_id, "units")
        # By state: what is open is a small part of all cases, what lies in a district is all of them.
        return contents, await self._reports.count_documents(query, limit=MOST_COUNTED, hint="state")

    async def _contents(self, by: StaffSession, found: list[Document]) -> list[AreaContents]:
        codes = [area["_id"] for area in found]
        inside = await self._places.count_inside(codes)
        staff = {
            row["_id"]: row["n"]
            async for row in self._staff.aggregate(
                [
                    {"$match": {"areas": {"$in": codes}, "disabled": False}},
                    {"$unwind": "$areas"},
                    {"$match": {"areas": {"$in": codes}}},
                    {"$group": {"_id": "$areas", "n": {"$sum": 1}}},
                ]
            )
        }
        rules = [code for rule in await self._catalogue.rules() for code in rule.areas]
        return [
            AreaContents(
                code=area["_id"],
                name=area["name"],
                level=area["level"],
                parent=area["parent"],
                inside=inside.get(area["_id"], 0),
                rules=rules.count(area["_id"]),
                staff=staff.get(area["_id"], 0) if by.reach.has_area(area["_id"]) else None,
            )
            for area in found
        ]
