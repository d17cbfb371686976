"""What the worker does with a snapshot: looks at it, weighs what the camera said, and puts it before a reviewer or not.

A camera that looks at a heap of rubbish sends it all day. The first snapshot of a camera and class stands for the
others: they are counted on it while it waits for a reviewer, while the case that it became is open, and in any case
until its window is over. Which one stands is one document for each camera and class, changed by one conditional
update, so that of any number of workers one puts a snapshot into the queue.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from pymongo.errors import DuplicateKeyError

from core.clock import now
from core.config_sections import Snapshots
from core.database import Database
from core.errors import Invalid, NotFound, TooLarge, UnsupportedMedia
from core.queue.debts import Amendment, Document, Payment, Postponed
from core.storage.files import FileStore
from inference.model_files import ModelUnavailable
from inference.model_health import WAITING
from inference.service import InferenceService
from reports.queries import ReportQueries
from reports.service import ReportService
from reports.snapshots.cameras import CameraService
from reports.snapshots.metrics import SNAPSHOTS
from reports.snapshots.models import FilterReason
from reports.snapshots.rules import named_by_camera, sieve, weigh
from reports.states import OPEN

log = structlog.get_logger(__name__)

# So many of those counted are remembered that one whose worker died over it is not counted twice.
_REMEMBERED = 64


class Screening:
    """Pays the debt ``sift`` of snapshots."""

    def __init__(
        self,
        database: Database,
        *,
        files: FileStore,
        inference: InferenceService,
        cameras: CameraService,
        reports: ReportService,
        queries: ReportQueries,
        settings: Snapshots,
    ) -> None:
        self._snapshots = database["snapshots"]
        self._windows = database["snapshot_windows"]
        self._files = files
        self._inference = inference
        self._cameras = cameras
        self._reports = reports
        self._queries = queries
        self._settings = settings

    async def pay_sift(self, snapshot: Document, _debt: Document) -> Payment:
        """Look at a snapshot and decide. While the weights are missing the debt waits, however long."""
        if snapshot["state"] != "received":
            return Payment()
        try:
            judgement = await self._inference.photo(await self._files.read(snapshot["_id"], snapshot["file"]))
        except ModelUnavailable as error:
            raise Postponed(WAITING) from error
        except (NotFound, Invalid, TooLarge, UnsupportedMedia) as error:
            # It was whole when it came: somebody has been at the files.
            log.error("snapshot.unreadable", snapshot=snapshot["_id"], why=error.code)
            return self._filtered("unreadable", {}, None)
        source = await self._cameras.source(snapshot["source"])
        weighed = weigh(judgement.scores, named_by_camera(snapshot["boxes"], source["labels"]))
        seen: Document = {
            "judged": {
                "label": judgement.label,
                "confidence": judgement.confidence,
                "scores": judgement.scores,
                "model": judgement.model,
            },
            "label": weighed.label,
            "score": weighed.score,
        }
        reason = sieve(weighed, classes=source["classes"], min_score=source["min_score"])
        if reason is not None:
            return self._filtered(reason, seen, None)
        standing = await self._take_window(snapshot, weighed.label, timedelta(minutes=source["window_minutes"]))
        if standing is not None:
            reason, stands = standing
            await self._count(stands, snapshot)
            return self._filtered(reason, seen, stands)
        SNAPSHOTS.labels("waiting").inc()
        review_by = now() + timedelta(hours=self._settings.review_hours)
        return Payment(Amendment(set={**seen, "state": "waiting", "review_by": review_by}), {"state": "received"})

    def _filtered(self, reason: FilterReason, seen: Document, repeat_of: str | None) -> Payment:
        SNAPSHOTS.labels(reason).inc()
        until = now() + timedelta(hours=self._settings.keep_filtered_hours)
        change = {**seen, "state": "filtered", "reason": reason, "repeat_of": repeat_of, "file_until": until}
        return Payment(Amendment(set=change), {"state": "received"})

    async def _take_window(self, snapshot: Document, label: str, window: timedelta) -> tuple[FilterReason, str] | None:
        """None when ``snapshot`` now stands for its camera and class; else why it does not, and which one does."""
        key, mine = (
            f"{snapshot['camera']}:{label}",
            {"snapshot": snapshot["_id"], "until": snapshot["taken_at"] + window},
        )
        while True:
            held = await self._windows.find_one({"_id": key})
            if held is None:
                try:
                    await self._windows.insert_one({"_id": key, **mine})
                except DuplicateKeyError:
                    continue
                return None
            if held["snapshot"] == snapshot["_id"]:
                return None  # taken by a worker that died over it
            reason = await self._covered(held, snapshot["taken_at"])
            if reason is not None:
                return reason, held["snapshot"]
            taken = await self._windows.update_one({"_id": key, "snapshot": held["snapshot"]}, {"$set": mine})
            if taken.matched_count:
                return None

    async def _covered(self, held: Document, taken_at: datetime) -> FilterReason | None:
        """Why one taken at ``taken_at`` is no news beside the one that stands; None where it is."""
        standing = await self._snapshots.find_one({"_id": held["snapshot"]}, {"state": 1, "report": 1})
        if standing is None or standing["state"] == "filtered":
            return None
        if standing["state"] in ("received", "waiting"):
            return "repeat"
        if standing["state"] == "confirmed" and await self._is_open(standing["report"]):
            return "open_case"
        return "repeat" if taken_at < held["until"] else None

    async def _is_open(self, number: str | None) -> bool:
        """Whether the case, or the one that it went into, is open; one that is about to be made is."""
        report = await self._reports.find(number) if number is not None else None
        return report is None or (await self._queries.end_of(report))["state"] in OPEN

    async def _count(self, standing: str, snapshot: Document) -> None:
        """Count ``snapshot`` on the one that stands for it, once."""
        await self._snapshots.update_one(
            {"_id": standing, "counted": {"$ne": snapshot["_id"]}},
            {
                "$inc": {"repeats": 1},
                "$max": {"last_seen_at": snapshot["taken_at"]},
                "$push": {"counted": {"$each": [snapshot["_id"]], "$slice": -_REMEMBERED}},
            },
        )
