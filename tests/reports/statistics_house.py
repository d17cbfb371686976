"""A database with reports and their statistics, held against a slow and plain count."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from core.paging import read_mark
from reports.statistics.indicators import COUNTS
from reports.statistics.reading import NOBODY, By, Figures, Selection, Statistics
from reports.statistics.recount import Recount, collections
from tests.reports.statistics_oracle import slow_lists
from tests.timing import until


def without_zeros(counts: dict[str, int]) -> dict[str, int]:
    return {key: number for key, number in counts.items() if number}


def days_of(row: dict[str, Any]) -> dict[str, dict[str, int]]:
    """The counts of each day of a row on which there is anything."""
    return {day: kept for day, counts in row["d"].items() if (kept := without_zeros(counts))}


class House:
    """A database with reports and their statistics."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.reports = database["reports"]
        self.recount = Recount(database)
        self.statistics = Statistics(database)

    async def generation(self) -> str:
        state = await self.database["statistics_state"].find_one({"_id": "reports"})
        return str(state["generation"])

    async def kept(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The facts and the rows (those that are not all zero) as they are stored."""
        facts, rows = collections(self.database, await self.generation())
        sums = {r["_id"]: r | {"n": without_zeros(r["n"]), "d": days_of(r)} async for r in rows.find()}
        return {f["_id"]: f async for f in facts.find()}, {key: r for key, r in sums.items() if r["d"]}

    async def put(self, documents: list[dict[str, Any]]) -> None:
        for document in documents:
            await self.reports.replace_one({"_id": document["_id"]}, document, upsert=True)

    async def all(self) -> list[dict[str, Any]]:
        return [dict(r) async for r in self.reports.find()]

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """The changes are followed."""
        follower = asyncio.create_task(self.recount.follow(0.01))
        try:
            yield
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    async def counted_to(self, moment: datetime) -> None:
        """Come back as soon as the statistics say that they hold what had changed by ``moment``."""

        async def reached() -> bool:
            state = await self.database["statistics_state"].find_one({"_id": "reports"}) or {}
            return bool(state.get("counted_to") and state["counted_to"] >= moment)

        await until(reached)

    async def answers_like_a_slow_count(self, selection: Selection, by: By | None) -> None:
        figures = await self.statistics.figures(selection, by)
        assert not figures.more
        await self.pages_are_the_whole(selection, by, figures)
        slow = slow_lists(await self.all(), by=by, moment=figures.moment, **vars(selection))
        assert figures.groups == {g: {k: len(v) for k, v in lists.items()} for g, lists in slow.items()}
        together = slow_lists(await self.all(), by=None, moment=figures.moment, **vars(selection)).get(None, {})
        assert figures.total == {key: len(cases) for key, cases in together.items()}
        for key in COUNTS:
            assert await self.listed(selection, key) == together.get(key, []), key

    async def pages_are_the_whole(self, selection: Selection, by: By | None, whole: Figures) -> None:
        """Two groups at a time come to what all of them are, in order."""
        keys = list(whole.groups)
        assert keys == sorted(keys, key=lambda key: (key is None, key or ""))
        if by is None:
            return
        groups: dict[str | None, dict[str, int]] = {}
        after = None
        while True:
            figures = await self.statistics.figures(selection, by, after=after, size=2)
            assert len(figures.groups) == 2 or not figures.more
            assert figures.total == whole.total
            groups |= figures.groups
            if not figures.more:
                break
            after = list(groups)[-1] or NOBODY
        assert groups == whole.groups
        assert list(groups) == keys

    async def listed(self, selection: Selection, key: str) -> list[str]:
        numbers, page = await self.statistics.cases(selection, key, None, 3)
        while page is not None:
            read_mark(page)
            more, page = await self.statistics.cases(selection, key, page, 3)
            numbers += more
        return numbers
