"""What reviewers decided becomes labels to train on: a debt (``label``) of the decision.

A rejected snapshot's picture becomes a photo of its own, so that it outlives the snapshot's and is read for training
where all photos are; a confirmed one's is the photo of its case.
"""

from __future__ import annotations

from core.database import Database
from core.errors import NotFound
from core.queue.debts import Document, Payment
from core.storage.files import FileStore
from inference.labels import LabelService
from inference.suggestion import PHOTO_CATEGORY
from photos.service import PhotoService


class SnapshotLabels:
    """Pays the debt ``label`` of snapshots."""

    def __init__(self, database: Database, *, files: FileStore, photos: PhotoService, labels: LabelService) -> None:
        self._snapshots = database["snapshots"]
        self._files = files
        self._photos = photos
        self._labels = labels

    async def pay_label(self, snapshot: Document, _debt: Document) -> Payment:
        """Write down what the picture shows, as a person said. Done twice it makes one label.

        Who confirmed a snapshot under a category that its class does not stand for has said no class: what its photo
        shows, the case will tell.
        """
        reviewed, judged = snapshot["reviewed"], snapshot["judged"]
        rejected = snapshot["state"] == "rejected"
        if not rejected and reviewed["category"] != PHOTO_CATEGORY[snapshot["label"]]:
            return Payment()
        photo_id = await self._kept(snapshot) if rejected else snapshot["photo_id"]
        subject = {"snapshot": snapshot["_id"], **({"photo_id": photo_id} if photo_id else {})}
        await self._labels.record(
            "photo",
            subject,
            reviewed["label"] if rejected else snapshot["label"],
            source="snapshot_rejected" if rejected else "snapshot_confirmed",
            by=reviewed["by"],
            at=reviewed["at"],
            judged={"label": judged["label"], "confidence": judged["confidence"]},
            model=judged["model"],
        )
        return Payment()

    async def _kept(self, snapshot: Document) -> str | None:
        """The id of the photo that keeps the picture of a rejected snapshot; None when the picture has gone."""
        photo_id: str | None = snapshot["photo_id"]
        if photo_id is None:
            if snapshot["file"] is None:
                return None
            try:
                data = await self._files.read(snapshot["_id"], snapshot["file"])
            except NotFound:
                return None
            photo = await self._photos.take(data, {"kind": "camera", "id": snapshot["camera"]}, verdict="pass")
            await self._snapshots.update_one(
                {"_id": snapshot["_id"], "photo_id": None}, {"$set": {"photo_id": photo["_id"]}}
            )
            # Another worker may have been first: its photo is the one, and this one is deleted as one of no use.
            found = await self._snapshots.find_one({"_id": snapshot["_id"]}, {"photo_id": 1})
            photo_id = str(found["photo_id"]) if found else None
        if photo_id is not None:
            await self._photos.attach([photo_id], {"kind": "snapshot", "id": snapshot["_id"]})
        return photo_id
