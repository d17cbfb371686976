"""Bringing a map in: all features of a file, or none of them.

The new set is built in a collection of its own, where MongoDB's own 2dsphere index judges each outline, and then takes
the place of ``areas`` by one rename, which MongoDB does atomically. Killed before the rename, the old set stays;
killed after it, the new one is there; what a killed import leaves is swept away by the next.

One import at a time holds a lease. One that lost its lease (a machine that slept) finds its collection swept away, so
its rename fails instead of undoing the other's work.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure

from core.clock import now
from core.database import Database
from core.ids import new_id
from places.coordinates import CRS
from places.fit import TOLERANCE, Fit
from places.geojson import Feature, FeatureReader, Unreadable, collection_fault, read_feature
from places.models import Level, level_of
from places.service import AREAS, INDEXES

LEASES: Final = "area_imports"
LEASE_TIME: Final = timedelta(seconds=60)

_STAGING = "areas_import_"
_BATCH = 500
_NAMESPACE_NOT_FOUND = 26
_FIT_BATCH = 50
_STOOD_STILL = "本次导入停顿太久，已有另一次导入开始；本次未导入任何区域"

Progress = Callable[[int, int], None]

# What MongoDB's 2dsphere index says of outlines, as far as it is known.
_OUTLINE_FAULTS: Final = {
    r"Edges (\d+) and (\d+) cross": "第 {} 条边与第 {} 条边相交",
    r"Duplicate vertices: (\d+) and (\d+)": "第 {} 个点与第 {} 个点重复",
    r"Duplicate edge: loop (\d+), edge (\d+) and loop (\d+), edge (\d+)": "第 {} 环第 {} 条边与第 {} 环第 {} 条边重合",
    r"Loop (\d+) crosses loop (\d+)": "第 {} 个环与第 {} 个环相交",
    r"must be holes": "内环没有完全在外环之内",
}


@dataclass(frozen=True)
class Problem:
    """Why an import is refused. ``feature`` counts from 1 in the order of the file; 0 is the file as a whole."""

    feature: int
    code: str | None
    reason: str

    def __str__(self) -> str:
        where = f"第 {self.feature} 个要素" if self.feature else "文件"
        return f"{where}{f'（{self.code}）' if self.code else ''}：{self.reason}"


class ImportRefused(Exception):
    """Nothing was imported. ``problems`` lists every reason, in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"共 {len(problems)} 个问题，未导入任何区域")
        self.problems = sorted(problems, key=lambda problem: problem.feature)


class ImportBusy(Exception):
    """Another import is under way, or was killed less than :data:`LEASE_TIME` ago."""


async def import_areas(
    database: Database,
    source: Path,
    *,
    level: Level | None = None,
    crs: CRS = CRS.WGS84,
    replace: bool = False,
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
) -> int:
    """Import the areas of the GeoJSON FeatureCollection ``source``; returns how many.

    Each feature has the properties ``code`` and ``name``, and ``level`` where it is not given here for all. ``crs`` is
    what the coordinates are in. With ``replace`` the file is the whole of the levels that it holds, and what they had
    before is gone; without it the areas are added, and a code that is there already is refused. ``tolerance`` is the
    share of an area that may lie outside its parent. ``progress`` is called with the bytes read and their total.

    Whether the areas fit each other (:mod:`places.fit`) is looked at once each of them is in order.

    Raises :class:`ImportRefused`, :class:`ImportBusy`, and :class:`OSError` for a file that cannot be opened.
    """
    with await asyncio.to_thread(source.open, "rb") as raw:
        holder = new_id()
        staging = f"{_STAGING}{holder}"
        await _claim(database, holder)
        try:
            await _sweep(database, keep=staging)
            await database[staging].create_indexes(INDEXES[AREAS])
            count = await _Import(database, staging, holder, replace).load(raw, level, crs, tolerance, progress)
            await _renew(database, holder)
            await _switch(database, staging)
        finally:
            # After the rename there is no such collection, and dropping none is no error.
            await database[staging].drop()
            await database[LEASES].delete_one({"_id": AREAS, "holder": holder})
    return count


class _Import:
    """One import: the staging collection it fills, and what it learns while reading."""

    def __init__(self, database: Database, staging: str, holder: str, replace: bool) -> None:
        self._database = database
        self._areas = database[AREAS]
        self._staging = database[staging]
        self._holder = holder
        self._replace = replace
        self._numbers: dict[str, int] = {}
        self._problems: list[Problem] = []

    async def load(
        self, raw: BinaryIO, level: Level | None, crs: CRS, tolerance: float, progress: Progress | None
    ) -> int:
        """Fill staging with the file's areas and those that stay. Raises :class:`ImportRefused`."""
        total = os.fstat(raw.fileno()).st_size
        reader = FeatureReader(io.TextIOWrapper(raw, encoding="utf-8"))
        features = (read_feature(number, feature, level, crs) for number, feature in enumerate(reader, 1))
        try:
            # Parsing is work for a thread: the importer also runs inside the server, which must go on answering.
            while batch := await asyncio.to_thread(_take, features):
                await self._add(batch)
                if progress:
                    progress(raw.tell(), total)
        except Unreadable as error:
            raise ImportRefused([*self._problems, Problem(0, None, str(error))]) from error
        if fault := collection_fault(reader.members.get("crs"), crs):
            self._problems.append(Problem(0, None, fault))
        if not reader.count:
            self._problems.append(Problem(0, None, "文件中没有任何要素"))
        replaced = {level_of(code) for code in self._numbers} if self._replace else set()
        await self._check_codes()
        await self._check_parents(replaced)
        if self._problems:
            raise ImportRefused(self._problems)
        await self._keep(replaced)
        await self._check_fit(Fit(self._numbers, crs, tolerance))
        return len(self._numbers)

    async def _add(self, features: list[Feature]) -> None:
        """Stage what is well formed, and note what is not, by our own checks and by MongoDB's."""
        await _renew(self._database, self._holder)
        good: list[Feature] = []
        for feature in features:
            reasons = list(feature.reasons)
            if feature.code is not None:
                first = self._numbers.setdefault(feature.code, feature.number)
                if first != feature.number:
                    reasons.append(f"代码 {feature.code} 与第 {first} 个要素重复")
            self._problems += [Problem(feature.number, feature.code, reason) for reason in reasons]
            if not reasons:
                good.append(feature)
        await self._stage(good)

    async def _stage(self, features: list[Feature]) -> None:
        """Insert the features' areas, and note those whose outline MongoDB refuses to index."""
        while features:
            documents = [feature.area.model_dump(by_alias=True) for feature in features if feature.area]
            try:
                await self._staging.insert_many(documents, ordered=False)
                return
            except BulkWriteError as error:
                faults = error.details["writeErrors"]
                if not any(fault["errmsg"] for fault in faults):
                    raise
            silent: list[Feature] = []
            for fault in faults:
                feature = features[fault["index"]]
                if fault["errmsg"]:
                    self._problems.append(Problem(feature.number, feature.code, _geometry_fault(fault["errmsg"])))
                else:
                    silent.append(feature)
            # Beyond a megabyte of messages MongoDB leaves them empty: ask again for those.
            features = silent

    async def _check_codes(self) -> None:
        """Without ``replace``, no code may be there already."""
        if self._replace:
            return
        for code in await self._present(list(self._numbers)):
            reason = "该代码已存在；如要整级替换，请加 --replace"
            self._problems.append(Problem(self._numbers[code], code, reason))

    async def _check_parents(self, replaced: set[Level]) -> None:
        """Every area, of the file and of those that stay, must have its parent in the new set."""
        wanted = {code[:-3] for code in self._numbers if level_of(code) != Level.DISTRICT} - self._numbers.keys()
        # A parent of a replaced level that the file does not hold will be gone.
        outside = [code for code in wanted if level_of(code) not in replaced]
        present = set(await self._present(outside))
        for code, number in self._numbers.items():
            parent = code[:-3]
            if parent in wanted and parent not in present:
                self._problems.append(Problem(number, code, f"上级区域 {parent} 不存在，请先导入上级区域"))
        staying = {"level": {"$in": [level for level in Level if level not in replaced]}}
        async for area in self._areas.find(staying, {"parent": 1}):
            parent = area["parent"]
            if parent and level_of(parent) in replaced and parent not in self._numbers:
                reason = f"新文件中没有 {parent}，但其下级区域 {area['_id']} 仍在使用"
                self._problems.append(Problem(0, parent, reason))

    async def _present(self, codes: list[str]) -> list[str]:
        """Which of ``codes`` are in the present set."""
        found: list[str] = []
        for start in range(0, len(codes), _BATCH):
            some = {"_id": {"$in": codes[start : start + _BATCH]}}
            found += [area["_id"] async for area in self._areas.find(some, {"_id": 1})]
        return found

    async def _keep(self, replaced: set[Level]) -> None:
        """Copy what stays, in batches: a single command over a large map would outlast the connection's time limit."""
        batch: list[dict[str, Any]] = []
        async for area in self._areas.find({"level": {"$nin": list(replaced)}}):
            batch.append(area)
            if len(batch) == _BATCH:
                await _renew(self._database, self._holder)
                await self._staging.insert_many(batch)
                batch = []
        if batch:
            await self._staging.insert_many(batch)

    async def _check_fit(self, fit: Fit) -> None:
        """Look through the new set, which staging holds, for what does not fit. Raises :class:`ImportRefused`."""
        batch: list[dict[str, Any]] = []
        async for area in self._staging.find().sort("_id", 1):
            batch.append(area)
            if len(batch) == _FIT_BATCH:
                await _renew(self._database, self._holder)
                await asyncio.to_thread(_add_all, fit, batch)
                batch = []
        await asyncio.to_thread(_add_all, fit, batch)
        if fit.misfits:
            misfits = [misfit for misfit in (fit.shift(), *fit.misfits) if misfit]
            raise ImportRefused([Problem(self._numbers.get(code or "", 0), code, why) for code, why in misfits])


def _take(features: Iterator[Feature]) -> list[Feature]:
    return list(islice(features, _BATCH))


def _add_all(fit: Fit, areas: list[dict[str, Any]]) -> None:
    for area in areas:
        fit.add(area)


def _geometry_fault(message: str) -> str:
    """MongoDB's reason, without the copies of the document and the rings that it puts into it."""
    reason = " ".join(re.sub(r"(first loop: )?\[ \[.*?\] \]", "", message.rpartition("}")[2]).split())
    for english, chinese in _OUTLINE_FAULTS.items():
        if found := re.search(english, reason):
            # MongoDB counts from 0.
            return f"边界线不正确：{chinese.format(*(int(number) + 1 for number in found.groups()))}"
    return f"边界线不正确，数据库给出的原因是：{reason}"


async def _claim(database: Database, holder: str) -> None:
    moment = now()
    try:
        await database[LEASES].update_one(
            {"_id": AREAS, "until": {"$lt": moment}},
            {"$set": {"holder": holder, "until": moment + LEASE_TIME}},
            upsert=True,
        )
    except DuplicateKeyError as error:
        seconds = int(LEASE_TIME.total_seconds())
        raise ImportBusy(f"另一次导入正在进行，或在最近 {seconds} 秒内异常中断，请稍后再试") from error


async def _renew(database: Database, holder: str) -> None:
    held = await database[LEASES].update_one({"_id": AREAS, "holder": holder}, {"$set": {"until": now() + LEASE_TIME}})
    if not held.matched_count:
        raise ImportBusy(_STOOD_STILL)


async def _switch(database: Database, staging: str) -> None:
    try:
        await database[staging].rename(AREAS, dropTarget=True)
    except OperationFailure as error:
        if error.code != _NAMESPACE_NOT_FOUND:
            raise
        raise ImportBusy(_STOOD_STILL) from error


async def _sweep(database: Database, keep: str) -> None:
    """Drop what killed imports left. Their leases have ended, or this one would not hold it."""
    for name in await database.list_collection_names(filter={"name": {"$regex": f"^{_STAGING}"}}):
        if name != keep:
            await database[name].drop()
