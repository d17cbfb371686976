"""Where a case lies: found again when staff set its point (定位), as only an area was known or it was wrong.

An order that came without a position lies in the middle of the area that it named (``place_precision``); once somebody
knows the place, area, grid and what the photos say of their distance follow from the point, in the same update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from accounts.models import StaffSession
from core.errors import Invalid
from core.queue.debts import Document
from photos.service import PhotoService
from places.coordinates import LonLat, distance
from places.models import Located, Position
from places.service import PlaceService
from reports.models import Actor
from reports.search import searchable


@dataclass(frozen=True)
class Place:
    """A point with the areas that hold it, and the photos that say how far from it they were taken."""

    position: Position
    located: Located
    photos: dict[str, Document]

    @property
    def named(self) -> str:
        """The place as people read it, without its district where it has a street."""
        inner = [area.name for area in (self.located.street, self.located.community, self.located.grid) if area]
        return "".join(inner) or self.located.district.name


class Placing:
    """Finds the place of a point."""

    def __init__(self, *, places: PlaceService, photos: PhotoService) -> None:
        self._places = places
        self._photos = photos

    async def find(self, report: Document, actor: Actor, position: Position) -> Place:
        """Where ``position`` lies. Raises :class:`Invalid`: outside the district, or out of reach of who acts.

        Nobody moves a case out of their own reach: who finds that it is not in their street returns it.
        """
        located = await self._places.locate(*position.wgs84())
        if isinstance(actor, StaffSession) and not actor.reach.covers(located.areas):
            problem = "这个位置不在您的辖区内，请将案件退回区中心处理"
            raise Invalid(
                f"{problem}。",
                code="PLACE_OUT_OF_REACH",
                details={"fields": [{"field": "location", "problem": problem}]},
            )
        return Place(position, located, await self._photos.known(report["photos"]))


def moved(report: Document, place: Place, address: str | None) -> Document:
    """The fields of ``report`` that say where it lies, once it lies at ``place``."""
    longitude, latitude = place.position.wgs84()
    words = report["address"] if address is None else address
    return {
        "location": {"type": "Point", "coordinates": [longitude, latitude]},
        "given_location": given_location(place.position),
        "areas": place.located.areas,
        "place": place_names(place.located),
        "place_precision": "exact",
        "photo_facts": [_seen_from(fact, place, longitude, latitude) for fact in report["photo_facts"]],
        "address": words,
        **searchable(report["description"], words),
    }


def before_and_after(report: Document, place: Place) -> Document:
    """What the timeline keeps of a move, for staff: [longitude, latitude], WGS-84, and the smallest area."""
    was = report["location"]["coordinates"]
    return {
        "location": list(place.position.wgs84()),
        "location_before": list(was),
        "area": place.located.areas[-1],
        "area_before": report["areas"][-1] if report["areas"] else "",
        "precision_before": report.get("place_precision", "exact"),
    }


def given_location(position: Position) -> dict[str, Any]:
    """A position as it came in."""
    stored = position.stored()
    return {"coordinates": list(stored.coordinates), "crs": stored.crs.value}


def place_names(located: Located) -> Document:
    """The areas around a case with their names, as the case keeps them."""
    return located.model_dump(mode="json", include={"district", "street", "community", "grid"})


def _seen_from(fact: Document, place: Place, longitude: float, latitude: float) -> Document:
    photo = place.photos.get(fact["id"])
    return photo_facts(photo, longitude, latitude) if photo else {**fact, "metres_away": None}


def photo_facts(photo: Document, longitude: float, latitude: float) -> Document:
    """What the photo itself says of when and where: how far from the place reported, in whole metres."""
    where = photo["position"]
    away = distance(LonLat(*where), LonLat(longitude, latitude)) if where else None
    return {
        "id": photo["_id"],
        "taken_at": photo["taken_at"],
        "metres_away": None if away is None or not math.isfinite(away) else round(away),
        "perceptual_hash": photo["perceptual_hash"],
    }
