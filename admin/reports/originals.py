"""Photos as they were taken, for staff who need to see a face or a number plate: each look is on record first."""

from __future__ import annotations

from datetime import timedelta

from admin.reports.cases import Look
from core.errors import NotFound
from core.queue.debts import Document
from handlers.base import BaseHandler
from handlers.operations import operation
from handlers.report_views import PhotoView, photo_view
from photos.service import PhotoService
from reports.queries import ReportQueries

ACTION = "photo.view_original"


def check_photo_of_case(report: Document, photo_id: str) -> None:
    """Raises :class:`NotFound` unless the photo is one of the case's."""
    if not any(photo_id in entry["photos"] for entry in report["timeline"]):
        raise NotFound("这个案件没有这张照片，请刷新页面。", code="NO_SUCH_PHOTO")


class OriginalPhoto(BaseHandler):
    """``/reports/{number}/photos/{photo_id}/original``."""

    @operation(
        "Look at a photo as it was taken",
        audience="staff",
        reach="limited",
        body=Look,
        answer=PhotoView,
        permission=ACTION,
        limits=("write",),
        errors=(404,),
    )
    async def post(self, number: str, photo_id: str, body: Look) -> PhotoView:
        """Of a case within reach. Who looked at which photo, when and why goes into the audit log first; the addresses
        are good for some minutes."""
        report = await self.services[ReportQueries].for_staff(number, self.staff)
        check_photo_of_case(report, photo_id)
        await self.services.audit.record(
            ACTION,
            subject=self.staff.named(),
            object_={"kind": "report", "id": number},
            reason=body.reason,
            details={"photo": photo_id},
        )
        verdict = report["photo_verdicts"].get(photo_id, "pending")
        life = timedelta(minutes=self.services.settings.photos.original_minutes)
        return photo_view(self.services[PhotoService], photo_id, verdict, original=True, life=life)
