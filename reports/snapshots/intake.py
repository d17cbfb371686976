"""Taking snapshots in: admitted while there is room for them, kept on the disk, then acknowledged.

Nothing here looks at what a picture shows. It is decoded as far as a decoder may refuse it, so that a damaged one is
refused to its sender, who can send another, and not found later by somebody who cannot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from pymongo.errors import DuplicateKeyError

from accounts.api_keys import ApiKey
from core.cache import Allowance, Cache
from core.clock import now
from core.config_sections import Snapshots
from core.database import Database
from core.errors import Conflict, Invalid, TooManyRequests
from core.queue.debts import Document
from core.storage.files import FileStore
from photos.pictures import MAX_BYTES, inspect_picture
from reports.snapshots.cameras import CameraService
from reports.snapshots.metrics import SNAPSHOTS
from reports.snapshots.models import NewSnapshot, new_snapshot, snapshot_id

# Cameras' clocks are set by people; one that is far ahead would keep its class from being seen again.
_AHEAD = timedelta(minutes=5)
_COUNTED_SECONDS = 1.0
_FIGURE = 100_000
_SHOWN = {"sha256": 1, "received_at": 1}


@dataclass
class Admission:
    """A request that is let in: whose it is, and the room that it takes until :meth:`leave`."""

    source: Document
    leave: Callable[[], None]


class SnapshotIntake:
    """Takes snapshots in. It alone inserts into ``snapshots``."""

    def __init__(
        self, database: Database, *, cameras: CameraService, files: FileStore, cache: Cache, settings: Snapshots
    ) -> None:
        self._snapshots = database["snapshots"]
        self._cameras = cameras
        self.files = files
        self._cache = cache
        self._settings = settings
        # Two cores: more pictures decoded at once would only keep each other, and everybody else, waiting.
        self._decoding = asyncio.Semaphore(2)
        self._receiving = 0
        self._counted_at = -_COUNTED_SECONDS
        self._backlog = 0

    async def admit(self, key: ApiKey, length: int | None) -> Admission:
        """Let a request of ``length`` bytes (None: not said) in, before its body is read.

        Raises :class:`TooManyRequests`: ``BACKLOG`` while too much waits to be looked at, ``BUSY`` while this process
        is receiving as much as it may hold, ``SOURCE_RATE`` when the source sends more than it was granted; and
        :class:`Forbidden` for a source that is paused.
        """
        source = await self._cameras.source_of(key.key_id)
        if await self._waiting() >= self._settings.backlog:
            raise _later("待识别的抓拍太多", "BACKLOG", self._settings.retry_seconds)
        room = min(length if length is not None else MAX_BYTES, MAX_BYTES)
        if self._receiving + room > self._settings.receiving_mb << 20:
            raise _later("正在接收的抓拍太多", "BUSY", 1)
        self._receiving += room  # at once: others are let in while the cache is asked
        left = False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                self._receiving -= room

        try:
            allowance = Allowance("snapshots", source["per_minute"], 60)
            if wait := await self._cache.take(f"source:{source['_id']}", [allowance]):
                raise _later("发送太频繁", "SOURCE_RATE", -(-wait // 1000))
        except BaseException:
            leave()
            raise
        return Admission(source, leave)

    async def take(self, source: Document, snapshot: NewSnapshot, data: bytes) -> Document:
        """Keep a snapshot; when this returns it survives a loss of power, and it is kept once however often it comes.

        Raises :class:`Invalid` for an unknown camera or a time that cannot be, :class:`Conflict` (``SNAPSHOT_REUSED``)
        when its id came before with another picture, and what :func:`photos.pictures.inspect_picture` raises.
        """
        camera = await self._cameras.camera_of(source, snapshot.camera)
        _check_time(snapshot, timedelta(hours=self._settings.oldest_hours))
        async with self._decoding:
            picture = await asyncio.to_thread(inspect_picture, data)
        document_id = snapshot_id(camera["_id"], snapshot, picture.sha256)
        if (kept := await self._snapshots.find_one({"_id": document_id}, _SHOWN)) is not None:
            return _same(kept, picture.sha256)
        # The file comes first: a document never promises one that is not there. Its name follows from what it holds, so
        # the same snapshot sent again after a crash finds the place of its own, and another never takes it.
        file = f"{picture.sha256[:24]}.img"
        await self.files.keep(document_id, file, data)
        facts = {"kind": picture.kind, "width": picture.width, "height": picture.height, "sha256": picture.sha256}
        document = new_snapshot(document_id, snapshot, camera, file=file, picture={**facts, "bytes": len(data)})
        try:
            await self._snapshots.insert_one(document)
        except DuplicateKeyError:
            kept = await self._snapshots.find_one({"_id": document_id}, _SHOWN)
            assert kept is not None  # noqa: S101 - one that has just come does not expire
            if kept["sha256"] != picture.sha256:
                await self.files.delete(document_id, file)
            return _same(kept, picture.sha256)
        self._backlog += 1
        SNAPSHOTS.labels("received").inc()
        return document

    async def backlog(self, limit: int) -> int:
        """How many snapshots nobody has looked at yet; counting ends at ``limit``."""
        return int(await self._snapshots.count_documents({"state": "received"}, hint="backlog", limit=limit))

    async def standing(self) -> dict[str, int]:
        """How many wait to be looked at (received), and for a reviewer (waiting); counting ends at 100,000."""
        queue = self._snapshots.count_documents({"state": "waiting"}, hint="review_by", limit=_FIGURE)
        return {"received": await self.backlog(_FIGURE), "waiting": int(await queue)}

    async def _waiting(self) -> int:
        """The backlog as counted within the last second, and what this process has added since."""
        moment = time.monotonic()
        if moment >= self._counted_at + _COUNTED_SECONDS:
            self._counted_at = moment  # first: those who come meanwhile go by the old figure
            self._backlog = await self.backlog(self._settings.backlog)
        return self._backlog


def _check_time(snapshot: NewSnapshot, oldest: timedelta) -> None:
    moment = now()
    if snapshot.taken_at > moment + _AHEAD:
        problem = "拍摄时间晚于现在，请校准摄像机的时钟"
    elif snapshot.taken_at < moment - oldest:
        problem = f"拍摄时间已超过 {oldest.total_seconds() / 3600:.0f} 小时，不再受理"
    else:
        return
    raise Invalid(f"{problem}。", code="BAD_TIME", details={"fields": [{"field": "taken_at", "problem": problem}]})


def _same(kept: Document, sha256: str) -> Document:
    if kept["sha256"] != sha256:
        raise Conflict(
            "这个抓拍编号已提交过，且图片不同，请换一个编号。",
            code="SNAPSHOT_REUSED",
            details={"snapshot_id": kept["_id"]},
        )
    return dict(kept)


def _later(why: str, code: str, seconds: int) -> TooManyRequests:
    return TooManyRequests(f"{why}，请 {seconds} 秒后再试。", retry_after=seconds, code=code)
