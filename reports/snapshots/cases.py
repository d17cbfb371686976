"""From a confirmed snapshot to a case, once: whoever does it, who confirmed it or a worker, and however often."""

from __future__ import annotations

from dataclasses import replace

import structlog
from pymongo import ReturnDocument

from core.database import Database
from core.errors import Invalid
from core.queue.debts import Amendment, Document, Payment, owe
from core.storage.files import FileStore
from inference.suggestion import PHOTO_NAMES
from photos.service import PhotoService
from places.models import Located
from reports.models import CameraFinding, NewReport, Placed
from reports.service import ReportService

log = structlog.get_logger(__name__)


class SnapshotCases:
    """Opens cases for confirmed snapshots."""

    def __init__(self, database: Database, *, files: FileStore, photos: PhotoService, reports: ReportService) -> None:
        self._snapshots = database["snapshots"]
        self._files = files
        self._photos = photos
        self._reports = reports

    async def open(self, snapshot: Document) -> Document:
        """Open the case of ``snapshot``, which is confirmed, unless it is; the snapshot with the case's number.

        The number is claimed on the snapshot before the case is inserted under it: two that do this at once make one
        case, and a death between the two leaves a number that the next one to try takes up. A photo that such a race
        leaves over belongs to nothing and is deleted after a day.
        """
        if snapshot["photo_id"] is not None:
            return snapshot
        finding = CameraFinding(snapshot["camera"], snapshot["camera_name"], snapshot["reviewed"]["by"])
        number = snapshot["report"]
        report = await self._reports.find(number) if number is not None else None
        if report is None:
            data = await self._files.read(snapshot["_id"], snapshot["file"])
            photo = await self._photos.take(data, finding.owner, verdict="pass")
            report = await self._submit(snapshot, finding, photo["_id"])
        done = Amendment(
            set={"photo_id": report["photos"][0], "report": report["_id"]}, owe=[owe("label")], settle=["open_case"]
        )
        after = await self._snapshots.find_one_and_update(
            {"_id": snapshot["_id"], "photo_id": None}, done.pipeline(), return_document=ReturnDocument.AFTER
        )
        # Nothing found: somebody else was through with it first, to the same case.
        return dict(after) if after else {**snapshot, "photo_id": report["photos"][0], "report": report["_id"]}

    async def pay_open_case(self, snapshot: Document, _debt: Document) -> Payment:
        """Open the case that the one who confirmed did not get to open."""
        await self.open(snapshot)
        return Payment()

    async def _submit(self, snapshot: Document, finding: CameraFinding, photo_id: str) -> Document:
        async def claim(number: str) -> str:
            after = await self._snapshots.find_one_and_update(
                {"_id": snapshot["_id"]},
                [{"$set": {"report": {"$ifNull": ["$report", number]}}}],
                return_document=ReturnDocument.AFTER,
            )
            return str(after["report"])

        longitude, latitude = snapshot["location"]["coordinates"]
        name, reviewed = PHOTO_NAMES[snapshot["label"]], snapshot["reviewed"]
        report = NewReport(
            description=reviewed["description"] or f"摄像机「{snapshot['camera_name']}」发现{name}",
            category=reviewed["category"],
            photo_ids=(photo_id,),
            longitude=longitude,
            latitude=latitude,
            given=snapshot["given_location"],
            address=snapshot["address"] or snapshot["camera_name"],
            contact_phone=None,
            anonymous=False,
            placed=Placed(
                longitude, latitude, snapshot["given_location"], "exact", Located.model_validate(snapshot["place"])
            ),
            remark=f"识别为{name}（置信度{snapshot['score']:.0%}），由{reviewed['by']['name']}确认",
        )
        try:
            return await self._reports.submit(report, finding, claim=claim)
        except Invalid as error:
            if error.code != "NO_SUCH_CATEGORY":
                raise
            # Retired since it was confirmed: intake chooses another.
            log.warning("snapshot.category_retired", snapshot=snapshot["_id"], category=report.category)
            return await self._reports.submit(replace(report, category=None), finding, claim=claim)
