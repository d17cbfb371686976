"""Photos of staff: the evidence of what was found and done."""

from __future__ import annotations

from tornado.httputil import HTTPFile

from handlers.base import BaseHandler
from handlers.models import Answer
from handlers.operations import operation
from handlers.report_views import PhotoView, photo_view
from photos.pictures import MAX_BYTES
from photos.service import PhotoService


class StaffPhotoTaken(Answer):
    """A photo that was accepted. Use its id within a day, or it is deleted."""

    photo_id: str
    photo: PhotoView


class StaffPhotos(BaseHandler):
    """``/photos``."""

    @operation(
        "Upload a photo as evidence",
        audience="staff",
        reach="own",
        answer=StaffPhotoTaken,
        status=201,
        permission="photo.upload",
        limits=("write",),
        form_file="photo",
        max_body=MAX_BYTES + 4096,
    )
    async def post(self, file: HTTPFile) -> StaffPhotoTaken:
        """The same checks as for citizens' photos."""
        taken = await self.services[PhotoService].take(file.body, {"kind": "staff", "id": self.staff.staff_id})
        return StaffPhotoTaken(
            photo_id=taken["_id"],
            photo=photo_view(self.services[PhotoService], taken["_id"], taken["check"]["verdict"], original=True),
        )
