"""Serial numbers that are handed out in blocks, so that not every number costs a write."""

from __future__ import annotations

import asyncio

from pymongo import ReturnDocument

from core.database import Database


class Serials:
    """Numbers 1, 2, 3, ... of a series (for cases: one series a day), each given out once over all processes.

    A process takes ``block`` numbers at a time; what it has not used when it stops is a gap. Gaps are harmless, a
    number given twice is not.
    """

    def __init__(self, database: Database, *, block: int = 50) -> None:
        self._counters = database["serials"]
        self._block = block
        self._series = ""
        self._next = self._end = 0
        self._taking = asyncio.Lock()

    async def take(self, series: str) -> int:
        """The next number of ``series``."""
        async with self._taking:
            if series != self._series or self._next == self._end:
                counter = await self._counters.find_one_and_update(
                    {"_id": series}, {"$inc": {"taken": self._block}}, upsert=True, return_document=ReturnDocument.AFTER
                )
                self._series, self._end = series, counter["taken"] + 1
                self._next = self._end - self._block
            number = self._next
            self._next += 1
            return number
