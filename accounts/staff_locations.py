"""Where members of staff on duty were last (位置上报), so that a task goes to who is nearest.

Personal data, kept as short as it serves: one position of each person, the last, deleted by itself after some minutes
or at once when its owner says so. There is no track, and nothing but the handing out of tasks reads it. Every report of
a position carries the consent of whom it is of (PIPL articles 13 and 28: a position is sensitive).
"""

from __future__ import annotations

from collections.abc import Collection as Several
from datetime import datetime, timedelta

from pymongo import ASCENDING, GEOSPHERE, IndexModel

from accounts.models import StaffSession
from core.clock import now
from core.database import Database
from core.queue.debts import Document

INDEXES = {
    "staff_positions": [
        IndexModel([("location", GEOSPHERE)], name="location"),
        IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0),
    ]
}


class StaffLocations:
    """The last positions of staff; it alone touches ``staff_positions``. ``keep`` is how long one is kept."""

    def __init__(self, database: Database, *, keep: timedelta) -> None:
        self._positions = database["staff_positions"]
        self._staff = database["staff"]
        self._keep = keep

    async def put(self, staff: StaffSession, longitude: float, latitude: float) -> datetime:
        """Keep a WGS-84 position in place of the one before; until when it is kept."""
        expires_at = now() + self._keep
        await self._positions.replace_one(
            {"_id": staff.staff_id},
            {
                "_id": staff.staff_id,
                "location": {"type": "Point", "coordinates": [longitude, latitude]},
                "at": now(),
                "expires_at": expires_at,
            },
            upsert=True,
        )
        return expires_at

    async def forget(self, staff_id: str) -> None:
        """Delete a person's position; there may be none."""
        await self._positions.delete_one({"_id": staff_id})

    async def nearest(
        self,
        roles: list[str],
        areas: list[str],
        location: Document,
        *,
        metres: int,
        besides: Several[str] = (),
        limit: int,
    ) -> list[str]:
        """Who has one of ``roles`` in one of ``areas`` and is within ``metres`` of a GeoJSON point, nearest first."""
        whom = {"disabled": False, "roles": {"$in": roles}, "areas": {"$in": areas}, "unit_id": None}
        stages: list[Document] = [
            {
                "$geoNear": {
                    "near": location,
                    "key": "location",
                    "distanceField": "metres",
                    "maxDistance": metres,
                    # MongoDB deletes what has expired once a minute.
                    "query": {"expires_at": {"$gt": now()}, "_id": {"$nin": list(besides)}},
                }
            },
            {"$lookup": {"from": "staff", "localField": "_id", "foreignField": "_id", "as": "who"}},
            {"$match": {f"who.0.{name}": condition for name, condition in whom.items()}},
            {"$limit": limit},
            {"$project": {"_id": 1}},
        ]
        return [str(found["_id"]) async for found in self._positions.aggregate(stages)]

    async def of_area(self, roles: list[str], area: str, *, besides: Several[str] = (), limit: int) -> list[str]:
        """Who has one of ``roles`` in ``area`` itself (not in one around it), wherever they are."""
        whom = {
            "areas": area,
            "disabled": False,
            "roles": {"$in": roles},
            "unit_id": None,
            "_id": {"$nin": list(besides)},
        }
        return [str(s["_id"]) async for s in self._staff.find(whom, {"_id": 1}).sort("username", 1).limit(limit)]
