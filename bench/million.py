"""A district with a million cases, to measure lists on: :mod:`bench.lists` makes it and asks for them.

The demo district's cases, made by the product itself and standing in every state, are copied to other places, times,
reporters and words until there are as many as asked for. So a copy has the very shape that the product writes, without
a second description of it here.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

from pymongo import IndexModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.district import long_warned_of
from core.clock import SHANGHAI, now
from core.database import Database, ensure_indexes
from core.ids import new_id
from reports.search import searchable
from reports.states import OPEN

Document = dict[str, Any]

YEARS = 3
_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
_BATCH = 1000
_FIRST_COPY = 500_000
"""Copies have serial numbers from here on; the product starts each day at 1."""
_OPEN_DAYS = 12
"""Cases older than this are over, but for one in a thousand."""
_BY_HOUR = (1, 1, 1, 1, 1, 2, 4, 8, 12, 14, 14, 11, 9, 9, 11, 12, 12, 11, 10, 9, 7, 5, 3, 2)
"""How many are reported in each hour of a day in Shanghai, in proportion."""
_BY_WEEKDAY = (11, 10, 10, 10, 11, 13, 12)
_ROADS = (
    "解放",
    "人民",
    "中山",
    "建设",
    "和平",
    "新华",
    "朝阳",
    "云溪",
    "桥东",
    "滨江",
    "文化",
    "工业",
    "胜利",
    "东风",
)
_AT = ("门前", "路口", "公交站旁", "小区东门", "菜市场旁", "学校对面", "停车场出口", "天桥下", "巷口", "河边")
_MORE = (
    "已经好几天了",
    "影响出行",
    "味道很大",
    "夜里更严重",
    "老人孩子不安全",
    "希望尽快处理",
    "之前反映过",
    "下雨更糟",
)


@dataclass(frozen=True)
class Spot:
    """A grid that cases lie in: its place as cases keep it, and a WGS-84 rectangle within it."""

    areas: list[str]
    place: Document
    west: float
    south: float
    east: float
    north: float


class Multiplier:
    """Makes cases from others: the same life at another time and place, of another reporter, in other words."""

    def __init__(self, originals: Sequence[Document], spots: Sequence[Spot], *, until: datetime, seed: int = 1) -> None:
        self._rng = random.Random(seed)
        self._spots = spots
        # A few grids are reported from again and again, most hardly ever.
        self._spot_weights = list(accumulate(1 / (rank + 3) for rank in range(len(spots))))
        self._until = until
        self._over = [r for r in originals if r["state"] not in OPEN]
        self._open = [r for r in originals if r["state"] in OPEN]
        # People report what lies about far more than what burns: originals early in the list count for more.
        self._weights = {
            id(rows): list(accumulate(1 / math.sqrt(n + 1) for n in range(len(rows))))
            for rows in (self._over, self._open)
        }
        self._citizens = [new_id() for _ in range(50_000)]

    def make(self, count: int) -> Iterator[Document]:
        """``count`` cases, the oldest first, numbered as on the day that each was submitted."""
        days = YEARS * 365
        begin = self._until - timedelta(days=days)
        serial, day = 0, ""
        for at in sorted(self._moment(begin, days) for _ in range(count)):
            today = at.astimezone(SHANGHAI).strftime("%Y%m%d")
            serial, day = (serial + 1, day) if today == day else (_FIRST_COPY, today)
            yield self._copy(at, day, serial)

    def _moment(self, begin: datetime, days: int) -> datetime:
        rng = self._rng
        while True:
            # Twice as many a day at the end as at the beginning: such a service grows.
            day = begin + timedelta(days=int(days * math.sqrt(rng.uniform(0.25, 1.0)) * 2 - days))
            if rng.random() * 13 < _BY_WEEKDAY[day.weekday()]:
                hour = rng.choices(range(24), _BY_HOUR)[0]
                local = day.astimezone(SHANGHAI).replace(hour=hour, minute=0, second=0, microsecond=0)
                at = local.astimezone(UTC) + timedelta(milliseconds=rng.randrange(3_600_000))
                if at < self._until:
                    return at

    def _pick(self, rows: list[Document]) -> Document:
        weights = self._weights[id(rows)]
        return rows[bisect_left(weights, self._rng.random() * weights[-1])]

    def _copy(self, at: datetime, day: str, serial: int) -> Document:
        rng = self._rng
        recent = self._until - at < timedelta(days=_OPEN_DAYS) and rng.random() < 0.6
        original = self._pick(self._open if recent or rng.random() < 0.001 else self._over)
        spot = self._spots[bisect_left(self._spot_weights, rng.random() * self._spot_weights[-1])]
        shift = at - original["created_at"]
        address = f"{rng.choice(_ROADS)}路{rng.randrange(1, 400)}号{rng.choice(_AT)}"
        words = f"{address}，{original['description']}，{rng.choice(_MORE)}"
        copy: Document = _shifted(original, shift)
        return {
            **copy,
            "_id": f"{spot.areas[0]}{day}{serial:06d}",
            "reporter": {**original["reporter"], "citizen_id": rng.choice(self._citizens)},
            "description": words,
            "address": address,
            **searchable(words, address),
            "location": {
                "type": "Point",
                "coordinates": [
                    round(rng.uniform(spot.west, spot.east), 6),
                    round(rng.uniform(spot.south, spot.north), 6),
                ],
            },
            "areas": spot.areas,
            "place": spot.place,
            "followers": [],
            "owed": [],
            **long_warned_of(copy),
        }


def _shifted(value: Any, by: timedelta) -> Any:
    """``value`` with every moment in it moved."""
    if isinstance(value, dict):
        return {k: _shifted(v, by) for k, v in value.items()}
    if isinstance(value, list):
        return [_shifted(v, by) for v in value]
    return value + by if isinstance(value, datetime) else value


async def spots_of(database: Database) -> list[Spot]:
    """The grids of the district, each with the areas around it and the middle of its rectangle."""
    named = {a["_id"]: {"code": a["_id"], "name": a["name"]} async for a in database["areas"].find({}, {"name": 1})}
    spots = []
    async for grid in database["areas"].find({"level": "grid"}):
        ring = grid["geometry"]["coordinates"][0]
        ring = ring[0] if isinstance(ring[0][0], list) else ring
        xs, ys = sorted(x for x, _ in ring), sorted(y for _, y in ring)
        code = grid["_id"]
        areas = [code[:6], code[:9], code[:12], code]
        place = {
            level: named.get(c) for level, c in zip(("district", "street", "community", "grid"), areas, strict=True)
        }
        margin_x, margin_y = (xs[-1] - xs[0]) / 5, (ys[-1] - ys[0]) / 5
        spots.append(Spot(areas, place, xs[0] + margin_x, ys[0] + margin_y, xs[-1] - margin_x, ys[-1] - margin_y))
    return spots


async def multiply(database: Database, count: int, indexes: list[IndexModel], console: Console) -> None:
    """Bring the reports of ``database``, a demo district, to ``count``; shows a progress bar.

    The indexes are taken off meanwhile and built again after it, which is much faster than keeping them up.
    """
    reports = database["reports"]
    if await reports.estimated_document_count() < count:
        await _fill(database, count, console)
    with Progress(*_COLUMNS, console=console) as bar:
        building = bar.add_task("Building indexes", total=len(indexes))
        for index in indexes:
            await ensure_indexes(database, {"reports": [index]})
            bar.advance(building)


async def _fill(database: Database, count: int, console: Console) -> None:
    reports = database["reports"]
    copies = {"_id": {"$regex": f"[{_FIRST_COPY // 100_000}-9]\\d{{5}}$"}}
    await reports.delete_many(copies)  # of a making that was interrupted
    originals = [dict(r) async for r in reports.find({})]
    missing = count - len(originals)
    multiplier = Multiplier(originals, await spots_of(database), until=now() - timedelta(minutes=5))
    await reports.drop_indexes()
    with Progress(*_COLUMNS, console=console) as bar:
        task = bar.add_task("Making cases", total=missing)
        batch: list[Document] = []
        bulk = reports.with_options(write_concern=None)
        for document in multiplier.make(missing):
            batch.append(document)
            if len(batch) == _BATCH:
                await bulk.insert_many(batch, ordered=False)
                bar.advance(task, len(batch))
                batch = []
        if batch:
            await bulk.insert_many(batch, ordered=False)
            bar.advance(task, len(batch))
