"""Reach: what of the district somebody may see and act on. One rule, for a document at hand and for a query.

An area's code begins with the codes of those around it: 6 digits are a district, 3 more a street, a community, a grid.
Documents keep the codes of all areas that they lie in. A unit's own staff reach what their unit has; the command centre
(``unit_id`` None) reaches what any unit has.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

_DISTRICT = 6  # digits


@dataclass(frozen=True)
class Reach:
    """So far somebody reaches. ``areas`` are codes of areas, with everything inside."""

    areas: tuple[str, ...]
    unit_id: str | None = None

    def contains(self, areas: Collection[str], *unit_ids: str | None) -> bool:
        """Whether what lies in ``areas`` (all those around it) and is held by ``unit_ids`` is in reach."""
        return self.covers(areas) and (self.unit_id is None or self.unit_id in unit_ids)

    def covers(self, areas: Collection[str]) -> bool:
        """Whether what lies in ``areas`` lies in reach, whoever holds it."""
        return not set(self.areas).isdisjoint(areas)

    def conditions(self, *, units: str | None = None) -> list[Document]:
        """The same as conditions on documents with ``areas`` and ``unit_id``.

        ``units`` is the array in which documents keep the units that help, where they do; see :func:`held_by`.
        Documents that no unit ever holds are out of every unit's reach: see :meth:`places`.
        """
        if districts := [code for code in self.areas if len(code) == _DISTRICT]:
            within: Document = {"areas.0": {"$in": districts}}  # what is all around comes first, and no index is needed
            if len(districts) < len(self.areas):
                within = {"areas": {"$in": list(self.areas)}}
        else:
            within = {"areas": {"$in": list(self.areas)}}
        return [within, *([] if self.unit_id is None else [held_by(self.unit_id, units)])]

    def places(self) -> Document:
        """The condition on documents that lie in areas and are held by no unit: a unit's own staff reach none."""
        return {"areas": {"$in": list(self.areas) if self.unit_id is None else []}}

    def inside(self, field: str) -> Document:
        """The condition that the one area in ``field`` lies in reach; entered by an index on it."""
        return {"$or": [{field: {"$gte": code, "$lt": f"{code}~"}} for code in self.areas]}

    @property
    def is_of_a_district(self) -> bool:
        """Whether a whole district is in it."""
        return any(len(code) == _DISTRICT for code in self.areas)

    def has_area(self, code: str) -> bool:
        """Whether the area lies in reach, whoever holds what is in it."""
        return within([code], self.areas)

    def encloses(self, areas: Collection[str], unit_id: str | None) -> bool:
        """Whether another reach lies within this one: an account's, or that of what somebody left behind."""
        return bool(areas) and within(areas, self.areas) and self.unit_id in (None, unit_id)

    def enclosed(self, field: str = "") -> Document:
        """The same as a condition on documents that keep a reach, as :meth:`stored` gives it; in ``field`` if named."""
        areas, unit_id = (f"{field}.{name}" if field else name for name in ("areas", "unit_id"))
        if not self.areas:
            return {"_id": {"$in": []}}  # an empty pattern would fit everywhere
        around = {"$regex": f"^({'|'.join(map(re.escape, self.areas))})"}
        condition: Document = {areas: around, "$nor": [{areas: {"$elemMatch": {"$not": around}}}]}
        return {**condition, unit_id: self.unit_id} if self.unit_id is not None else condition

    def stored(self) -> Document:
        """As what somebody leaves behind keeps it."""
        return {"areas": list(self.areas), "unit_id": self.unit_id}


def within(areas: Iterable[str], around: Iterable[str]) -> bool:
    """Whether each of ``areas`` is one of ``around`` or lies in one."""
    outer = tuple(around)
    return all(area.startswith(outer) for area in areas)


def held_by(unit_id: str, units: str | None = None) -> Document:
    """Documents that the unit has, as the lead or beside another. Each way has an index; the second holds few."""
    if units is None:
        return {"unit_id": unit_id}
    beside = {f"{units}.unit_id": unit_id, f"{units}.1.unit_id": {"$exists": True}}
    return {"$or": [{"unit_id": unit_id}, beside]}
