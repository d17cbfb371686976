"""The review queue (待审核抓拍): what reviewers see, and what they decide, once.

Confirming and rejecting are each one update on the snapshot while it waits: of two reviewers one wins. What follows, a
case or a label for training, is a debt in that update.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from pymongo import ReturnDocument

from accounts.models import StaffSession
from core.audit import owe_audit
from core.clock import now
from core.config_sections import Snapshots
from core.database import Database
from core.encryption import Signer
from core.errors import Conflict, Forbidden, Invalid, NotFound
from core.paging import highest_first, newest_first
from core.queue.debts import Amendment, Document, owe
from core.storage.files import FileStore
from inference.predictions import PHOTO_CLASSES
from inference.suggestion import PHOTO_CATEGORY
from reports.catalogue.categories import Catalogue
from reports.snapshots.cases import SnapshotCases
from reports.snapshots.metrics import SNAPSHOTS
from reports.snapshots.models import SnapshotState

Order = Literal["time", "score"]
Verdict = Literal["confirmed", "rejected"]

# The one who confirms opens the case; should that process die over it, a worker does, this much later.
_CASE_AFTER = timedelta(seconds=10)
_LIFE_SECONDS = 3600
_UNLISTED = {"owed": 0, "counted": 0, "judged.scores": 0}


@dataclass(frozen=True)
class Picture:
    """A snapshot's picture as it came."""

    kind: str
    data: bytes


class SnapshotReview:
    """Reading the queue, and deciding."""

    def __init__(
        self,
        database: Database,
        *,
        files: FileStore,
        signer: Signer,
        public_url: str,
        catalogue: Catalogue,
        cases: SnapshotCases,
        settings: Snapshots,
    ) -> None:
        self._snapshots = database["snapshots"]
        self._files = files
        self._signer = signer
        self._public_url = public_url.rstrip("/")
        self._catalogue = catalogue
        self._cases = cases
        self._settings = settings

    async def list(
        self, by: StaffSession, *, state: SnapshotState, order: Order, camera: str | None, page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        """One page of the snapshots within reach, the newest or the surest first, and the mark of the next one.

        Raises :class:`Invalid` for an order by score of others than those that wait.
        """
        if order == "score" and state != "waiting":
            raise Invalid("只有待审核的抓拍可以按置信度排序。", code="ORDER_OF_WAITING_ONLY")
        query: Document = {"state": state, **by.reach.places()}
        if camera is not None:
            query["camera"] = camera
        if order == "score":
            return await highest_first(self._snapshots, query, page, size, by="score", fields=_UNLISTED)
        return await newest_first(self._snapshots, query, page, size, by="taken_at", fields=_UNLISTED)

    async def get(self, by: StaffSession, snapshot_id: str) -> Document:
        """A snapshot within reach. Raises :class:`NotFound`."""
        found = await self._snapshots.find_one({"_id": snapshot_id, **by.reach.places()}, _UNLISTED)
        if found is None:
            raise NotFound("没有这条抓拍，可能已过期删除。", code="NO_SUCH_SNAPSHOT")
        return dict(found)

    async def confirm(
        self, by: StaffSession, snapshot_id: str, *, category: str | None, description: str | None
    ) -> Document:
        """Make a case of a snapshot that waits; the snapshot then, with the case's number.

        Confirmed again by the same person it is answered the same, and a case that was cut off is finished. Raises
        :class:`Conflict` (``ALREADY_REVIEWED``) when somebody else, or something else, was first.
        """
        snapshot = await self.get(by, snapshot_id)
        if snapshot["state"] == "waiting":
            if category is not None:
                await self._catalogue.offered(category)
            decision = {"category": category or PHOTO_CATEGORY[snapshot["label"]], "description": description}
            owed = owe("open_case", delay=_CASE_AFTER)
            snapshot = await self._decide(by, snapshot, "confirmed", decision, owed)
        _check_own(by, snapshot, "confirmed")
        return await self._cases.open(snapshot)

    async def reject(self, by: StaffSession, snapshot_id: str, *, label: str, reason: str | None) -> Document:
        """Say that a snapshot that waits shows no problem, or another one (``label``); the snapshot then.

        Raises :class:`Invalid` for an unknown class, :class:`Conflict` (``ALREADY_REVIEWED``).
        """
        if label not in PHOTO_CLASSES:
            problem = f"应为以下之一：{'、'.join(PHOTO_CLASSES)}"
            raise Invalid(f"没有这个类别，{problem}。", details={"fields": [{"field": "label", "problem": problem}]})
        snapshot = await self.get(by, snapshot_id)
        if snapshot["state"] == "waiting":
            snapshot = await self._decide(by, snapshot, "rejected", {"label": label, "reason": reason}, owe("label"))
        _check_own(by, snapshot, "rejected")
        return snapshot

    async def _decide(
        self, by: StaffSession, snapshot: Document, verdict: Verdict, decision: dict[str, Any], *owed: Document
    ) -> Document:
        """Decide, if it still waits; the snapshot after that, whoever has decided."""
        moment = now()
        entry = owe_audit(
            f"snapshot.{verdict}",
            subject=by.named(),
            object_={"kind": "snapshot", "id": snapshot["_id"], "name": snapshot["camera_name"]},
            details={"label": snapshot["label"], **decision},
        )
        change = Amendment(
            set={
                "state": verdict,
                "reviewed": {"by": by.named(), "at": moment, **decision},
                "file_until": moment + timedelta(days=self._settings.keep_decided_days),
            },
            owe=[*owed, entry],
        )
        after = await self._snapshots.find_one_and_update(
            {"_id": snapshot["_id"], "state": "waiting"}, change.pipeline(), return_document=ReturnDocument.AFTER
        )
        if after is None:
            return await self.get(by, snapshot["_id"])
        SNAPSHOTS.labels(verdict).inc()
        return dict(after)

    def link(self, snapshot: Document) -> str | None:
        """An address of the picture that is good for about an hour; None when the picture has been deleted."""
        if snapshot["file"] is None:
            return None
        step = _LIFE_SECONDS // 4
        expires = (int(now().timestamp()) // step + 5) * step
        signature = self._signer.sign(f"snapshot/{snapshot['_id']}/{expires}")
        return f"{self._public_url}/snapshots/{snapshot['_id']}/picture?expires={expires}&signature={signature}"

    async def picture(self, snapshot_id: str, expires: int, signature: str) -> Picture:
        """The picture behind a link. Raises :class:`Forbidden` for a forged or expired one, :class:`NotFound`."""
        signed = self._signer.check(f"snapshot/{snapshot_id}/{expires}", signature)
        if not signed or expires < now().timestamp():
            raise Forbidden("图片链接已失效，请刷新页面。", code="PHOTO_LINK")
        found = await self._snapshots.find_one({"_id": snapshot_id}, {"kind": 1, "file": 1})
        if found is None or found["file"] is None:
            raise NotFound("图片已过期删除。", code="PHOTO_NOT_FOUND")
        return Picture(found["kind"], await self._files.read(snapshot_id, found["file"]))


def _check_own(by: StaffSession, snapshot: Document, verdict: Verdict) -> None:
    reviewed = snapshot["reviewed"]
    if snapshot["state"] == verdict and reviewed["by"]["id"] == by.staff_id:
        return
    said = {"confirmed": "确认", "rejected": "驳回"}.get(snapshot["state"])
    message = f"这条抓拍已由{reviewed['by']['name']}{said}。" if said else "这条抓拍现在不能审核，请刷新后再看。"
    raise Conflict(message, code="ALREADY_REVIEWED", details={"state": snapshot["state"], "report": snapshot["report"]})
