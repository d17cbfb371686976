"""Sources (接入方) and cameras (摄像机): who may send snapshots, what of them counts, and where each camera stands.

Both are what staff administer: changed on the version that was seen, with an audit entry that is owed by the change.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any, Final

from pymongo import ASCENDING, UpdateOne
from pymongo.errors import DuplicateKeyError

from accounts.api_keys import ApiKeyService
from accounts.models import StaffSession
from core.audit import owe_audit
from core.clock import now
from core.database import Database
from core.errors import Conflict, Forbidden, Invalid, NotFound
from core.paging import by_key
from core.queue.debts import Amendment, Document
from core.versions import change_version, changes_between
from inference.predictions import NO_PROBLEM, PHOTO_CLASSES
from places.models import Position
from places.service import PlaceService
from reports.location import given_location, place_names
from reports.snapshots.camera_sheets import NewCamera, read_cameras

PROBLEMS: Final = tuple(label for label in PHOTO_CLASSES if label != NO_PROBLEM)
"""What a snapshot can show that becomes a case."""

_SOURCE_AUDITED = ("name", "active", "per_minute", "classes", "min_score", "window_minutes", "labels")
_CAMERA_AUDITED = ("name", "address", "given_location", "active")
# A source that is paused, or a camera that is moved, is noticed this late by the other processes.
_HELD_SECONDS = 2.0
_HELD_AT_MOST = 50_000


class CameraService:
    """The sources and cameras; the one place that writes their collections."""

    def __init__(self, database: Database, *, keys: ApiKeyService, places: PlaceService) -> None:
        self._sources = database["camera_sources"]
        self._cameras = database["cameras"]
        self._keys = keys
        self._places = places
        self._held: dict[tuple[str, str], tuple[float, Document]] = {}

    async def sources(self) -> list[Document]:
        """All sources, by key."""
        return [dict(s) async for s in self._sources.find({}, {"owed": 0}).sort("_id", ASCENDING)]

    async def create_source(self, by: StaffSession, fields: dict[str, Any]) -> tuple[Document, str]:
        """Add a source: (its document, the key that it sends with, which cannot be had again).

        Raises :class:`Conflict` (``KEY_TAKEN``), and :class:`Invalid` for classes that no picture can be of.
        """
        _check_classes(fields)
        if await self._sources.find_one({"_id": fields["key"]}, {"_id": 1}) is not None:
            raise _key_taken()
        kept, key = await self._keys.create(fields["name"], ["ingest.snapshots"], f"staff:{by.staff_id}")
        document: Document = {"_id": fields["key"], **{k: v for k, v in fields.items() if k != "key"}}
        document |= {"active": True, "key_id": kept.key_id, "version": 1, "changed_at": now()}
        changes = changes_between({}, document, _SOURCE_AUDITED)
        document["owed"] = [_entry("camera_source.create", by, "camera_source", document, changes)]
        try:
            await self._sources.insert_one(document)
        except DuplicateKeyError:
            await self._keys.disable(kept.key_id)
            raise _key_taken() from None
        return document, key

    async def change_source(self, by: StaffSession, key: str, version: int, wanted: dict[str, Any]) -> Document:
        """Change a source; the document after it. Raises :class:`NotFound`, :class:`Conflict` (``STALE``)."""
        _check_classes(wanted)
        before = await self._source(key)
        changes = changes_between(before, {**before, **wanted}, _SOURCE_AUDITED)
        entry = _entry("camera_source.change", by, "camera_source", {**before, **wanted}, changes)
        self._held.clear()
        return await change_version(
            self._sources, key, version, Amendment(set=wanted, owe=[entry]), missing=_no_such_source()
        )

    async def new_key(self, by: StaffSession, key: str, version: int) -> tuple[Document, str]:
        """Give the source another key to send with; the old one is refused from now on."""
        before = await self._source(key)
        kept, secret = await self._keys.create(before["name"], ["ingest.snapshots"], f"staff:{by.staff_id}")
        entry = _entry("camera_source.new_key", by, "camera_source", before, {})
        try:
            after = await change_version(
                self._sources,
                key,
                version,
                Amendment(set={"key_id": kept.key_id}, owe=[entry]),
                missing=_no_such_source(),
            )
        except Conflict:
            await self._keys.disable(kept.key_id)
            raise
        # The source takes the new key alone, whether or not this last step is reached.
        await self._keys.disable(before["key_id"])
        self._held.clear()
        return after, secret

    async def source_of(self, key_id: str) -> Document:
        """The source that sends with the API key ``key_id``. Raises :class:`Forbidden` (``SOURCE_PAUSED``)."""
        source = await self._read("key", key_id, self._sources, {"key_id": key_id})
        if source is None or not source["active"]:
            raise Forbidden("这个接入方已停用，请联系城市运行管理中心。", code="SOURCE_PAUSED")
        return source

    async def source(self, key: str) -> Document:
        """The source ``key`` as snapshots are sifted by it. Raises :class:`NotFound`."""
        source = await self._read("source", key, self._sources, {"_id": key})
        if source is None:
            raise _no_such_source()
        return source

    async def camera_of(self, source: Document, code: str) -> Document:
        """The camera that ``source`` calls ``code``.

        Raises :class:`Invalid` (``NO_SUCH_CAMERA``, ``CAMERA_OUT_OF_USE``).
        """
        camera_id = f"{source['_id']}:{code}"
        camera = await self._read("camera", camera_id, self._cameras, {"_id": camera_id})
        if camera is None:
            raise _refused("NO_SUCH_CAMERA", f"没有登记编号为 {code} 的摄像机")
        if not camera["active"]:
            raise _refused("CAMERA_OUT_OF_USE", f"编号为 {code} 的摄像机已停用")
        return camera

    async def cameras(
        self, by: StaffSession, source: str | None, page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        """One page of the cameras within reach, by id, and the mark of the next one."""
        query: Document = by.reach.places()
        if source is not None:
            query["source"] = source
        return await by_key(self._cameras, query, page, size, fields={"owed": 0})

    async def create_camera(self, by: StaffSession, source: str, camera: NewCamera) -> Document:
        """Add a camera to ``source``. Raises :class:`Conflict` (``CAMERA_TAKEN``), :class:`Invalid`."""
        await self._source(source)
        document: Document = {"_id": f"{source}:{camera.code}", "source": source, "code": camera.code}
        document |= {**await self._placed(by, camera), "active": True, "version": 1, "changed_at": now()}
        changes = changes_between({}, document, _CAMERA_AUDITED)
        document["owed"] = [_entry("camera.create", by, "camera", document, changes)]
        try:
            await self._cameras.insert_one(document)
        except DuplicateKeyError:
            raise Conflict("这个接入方已有这个编号的摄像机。", code="CAMERA_TAKEN") from None
        self._held.pop(("camera", document["_id"]), None)
        return document

    async def change_camera(
        self,
        by: StaffSession,
        camera_id: str,
        version: int,
        *,
        name: str | None = None,
        position: Position | None = None,
        address: str | None = None,
        active: bool | None = None,
    ) -> Document:
        """Change a camera; what is None stays. Snapshots keep the place that it had when they came."""
        before = await self._cameras.find_one({"_id": camera_id, **by.reach.places()})
        if before is None:
            raise NotFound("没有这个摄像机，请刷新后再试。", code="NO_SUCH_CAMERA")
        given = {"name": name, "address": address, "active": active}
        wanted: Document = {k: v for k, v in given.items() if v is not None}
        if position is not None:
            moved = await self._placed(by, NewCamera(before["code"], before["name"], position))
            wanted |= {k: moved[k] for k in ("location", "given_location", "place", "areas")}
        changes = changes_between(before, {**before, **wanted}, _CAMERA_AUDITED)
        entry = _entry("camera.change", by, "camera", {**before, **wanted}, changes)
        after = await change_version(
            self._cameras,
            camera_id,
            version,
            Amendment(set=wanted, owe=[entry]),
            missing=NotFound("没有这个摄像机，请刷新后再试。", code="NO_SUCH_CAMERA"),
        )
        self._held.pop(("camera", camera_id), None)
        return after

    async def import_cameras(self, by: StaffSession, source: str, data: bytes) -> Document:
        """Load cameras of ``source`` from a CSV file or a workbook, all or none: {created, changed, unread_sheets}.

        Raises :class:`Invalid` with every row that is wrong, and what :func:`read_cameras` does for what is no such
        file. Cut off half way, the same file finishes it.
        """
        document = await self._source(source)
        sheet = await read_cameras(data)
        problems = [{"field": f"第 {p.line} 行", "problem": p.said} for p in sheet.problems]
        writes = []
        for line, camera in sheet.cameras:
            try:
                placed = await self._placed(by, camera)
            except Invalid as error:
                problems.append({"field": f"第 {line} 行", "problem": error.message})
                continue
            camera_id = f"{source}:{camera.code}"
            fixed = {"source": source, "code": camera.code, "active": True, "owed": []}
            change = {"$set": {**placed, "changed_at": now()}, "$setOnInsert": fixed, "$inc": {"version": 1}}
            writes.append(UpdateOne({"_id": camera_id}, change, upsert=True))
        theirs = self._cameras.find(
            {"_id": {"$in": [f"{source}:{c.code}" for _, c in sheet.cameras]}}, {"areas": 1, "code": 1}
        )
        problems += [
            {"field": "code", "problem": f"摄像机 {camera['code']} 登记在您的管辖范围之外"}
            async for camera in theirs
            if not by.reach.has_area(camera["areas"][-1])
        ]
        if problems:
            raise Invalid(
                f"文件有 {len(problems)} 处需要改正，未导入任何摄像机。",
                code="BAD_CAMERA_FILE",
                details={"fields": problems[:100]},
            )
        told = {"sha256": hashlib.sha256(data).hexdigest(), "rows": len(writes)}
        entry = _entry("camera.import", by, "camera_source", document, {}, told)
        await self._sources.update_one({"_id": source}, {"$push": {"owed": entry}})
        done = await self._cameras.bulk_write(writes, ordered=False)
        self._held.clear()
        return {"created": done.upserted_count, "changed": done.matched_count, "unread_sheets": sheet.unread}

    async def _source(self, key: str) -> Document:
        source = await self._sources.find_one({"_id": key})
        if source is None:
            raise _no_such_source()
        return dict(source)

    async def _placed(self, by: StaffSession, camera: NewCamera) -> Document:
        longitude, latitude = camera.position.wgs84()
        located = await self._places.locate(longitude, latitude)
        if not by.reach.contains(located.areas):
            raise Invalid(f"摄像机 {camera.code} 的位置超出您的管辖范围。", code="AREA_OUT_OF_REACH")
        return {
            "name": camera.name,
            "address": camera.address,
            "location": {"type": "Point", "coordinates": [longitude, latitude]},
            "given_location": given_location(camera.position),
            "areas": located.areas,
            "place": place_names(located),
        }

    async def _read(self, what: str, key: str, collection: Any, query: Document) -> Document | None:
        """What ``query`` finds, believed for :data:`_HELD_SECONDS`: each snapshot asks for the same few."""
        held = self._held.get((what, key))
        if held is not None and held[0] > time.monotonic():
            return held[1]
        found = await collection.find_one(query, {"owed": 0})
        if found is None:
            return None
        if len(self._held) >= _HELD_AT_MOST:
            self._held.clear()
        self._held[what, key] = (time.monotonic() + _HELD_SECONDS, found)
        return dict(found)


def _check_classes(fields: dict[str, Any]) -> None:
    named: Sequence[str] = [*fields.get("classes", ()), *fields.get("labels", {}).values()]
    if strange := sorted(set(named) - set(PROBLEMS)):
        problem = f"没有这些类别：{'、'.join(strange)}"
        raise Invalid(
            f"{problem}，应为：{'、'.join(PROBLEMS)}。", details={"fields": [{"field": "classes", "problem": problem}]}
        )


def _entry(
    action: str,
    by: StaffSession,
    kind: str,
    document: Document,
    changes: dict[str, Any],
    details: dict[str, Any] | None = None,
) -> Document:
    object_ = {"kind": kind, "id": document["_id"], "name": document["name"]}
    return owe_audit(action, subject=by.named(), object_=object_, changes=changes, details=details)


def _refused(code: str, problem: str) -> Invalid:
    return Invalid(f"{problem}，请核对。", code=code, details={"fields": [{"field": "camera", "problem": problem}]})


def _key_taken() -> Conflict:
    return Conflict("这个接入方代码已使用过，请换一个。", code="KEY_TAKEN")


def _no_such_source() -> NotFound:
    return NotFound("没有这个接入方，请刷新后再试。", code="NO_SUCH_SOURCE")
