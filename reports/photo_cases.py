"""How many open cases one photo of a citizen may be in: sent again and again, it makes no case after case.

Each photo has a few places for the numbers of the cases that were made of it. A place is taken by one conditional
update before the case is there, so that sixty at once get no more than there are; those of cases that are over are
given to others.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from core.clock import now
from core.database import Database
from core.debts import Document
from core.errors import Conflict
from reports.states import OPEN

MOST: Final = 3
"""Open cases of one photo. A photo may show several problems; nobody honest needs it for more than these."""

_NEVER_MADE = timedelta(minutes=1)
"""A place whose case is not there for so long was taken by a process that died before it made it."""


class PhotoCases:
    """The places of all photos."""

    def __init__(self, database: Database) -> None:
        self._photos = database["photos"]
        self._reports = database["reports"]

    async def take(self, photo_ids: Sequence[str], number: str) -> None:
        """Take a place of each photo for the case ``number`` that is to be made. Again it changes nothing.

        Raises :class:`Conflict` (``PHOTO_IN_CASES``) for a photo that has none left.
        """
        for photo_id in photo_ids:
            others = await self._take_one(photo_id, number)
            if others:
                await self._give_back(photo_ids, number)
                raise Conflict(
                    f"这张照片已用于您的上报 {'、'.join(others)}，请在其中补充说明，或另拍照片后再上报。",
                    code="PHOTO_IN_CASES",
                    details={"photo_id": photo_id, "numbers": others},
                )

    async def _take_one(self, photo_id: str, number: str) -> list[str]:
        """Take a place of the photo; the cases in it where there is none left."""
        places = await self._places(photo_id)
        if any(place["number"] == number for place in places.values()):
            return []
        taken = {"number": number, "at": now()}
        for at in map(str, range(MOST)):
            path, old = f"cases.{at}", places.get(at)
            if old is None:
                free: Document = {path: {"$exists": False}}
            elif await self._is_over(old):
                free = {f"{path}.number": old["number"]}
            else:
                continue
            if (await self._photos.update_one({"_id": photo_id, **free}, {"$set": {path: taken}})).matched_count:
                return []
        return sorted(place["number"] for place in (await self._places(photo_id)).values())

    async def _places(self, photo_id: str) -> dict[str, Document]:
        photo = await self._photos.find_one({"_id": photo_id}, {"cases": 1})
        return (photo or {}).get("cases") or {}

    async def _is_over(self, place: Document) -> bool:
        report = await self._reports.find_one({"_id": place["number"]}, {"state": 1})
        return report["state"] not in OPEN if report else now() - place["at"] > _NEVER_MADE

    async def _give_back(self, photo_ids: Sequence[str], number: str) -> None:
        for photo_id in photo_ids:
            for at, place in (await self._places(photo_id)).items():
                if place["number"] == number:
                    mine = {"_id": photo_id, f"cases.{at}.number": number}
                    await self._photos.update_one(mine, [{"$unset": [f"cases.{at}"]}])
