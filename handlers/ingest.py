"""What machines send all day (``/ingest/v1``): snapshots of cameras, by the API key of their source."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from tornado.httputil import HTTPFile

from core.pictures import MAX_BYTES
from handlers.base import BaseHandler
from handlers.common import PhotoLink
from handlers.models import Answer, Body, GivenMoment, Moment, PlainText
from handlers.operations import Route, operation
from reports.snapshots.intake import Admission
from reports.snapshots.models import CAMERA_CODE, Box, NewSnapshot

PREFIX = "/ingest/v1"
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class GivenBox(Body):
    """What the camera's own program saw, and where: shares of width and height, from the upper left corner."""

    label: Annotated[PlainText, Field(min_length=1, max_length=60, description="As the camera calls it.")]
    score: Share
    x: Share
    y: Share
    width: Share
    height: Share


class SnapshotAbout(Body):
    """What is said of a picture."""

    camera: Annotated[str, Field(pattern=f"^{CAMERA_CODE}$", description="The camera's code, as it is registered.")]
    taken_at: GivenMoment
    snapshot_id: Annotated[
        str | None,
        Field(pattern=r"^[!-~]{1,100}$", description="The source's own id. Without it, time and picture tell."),
    ] = None
    boxes: Annotated[list[GivenBox], Field(max_length=50)] = []


class SnapshotTaken(Answer):
    """The snapshot is kept; the same one sent again is answered the same."""

    snapshot_id: str
    received_at: Moment


class Snapshots(BaseHandler):
    """``/snapshots``."""

    admission: Admission | None = None

    async def admit(self) -> None:
        """Refuse what there is no room for before its picture is read."""
        length = self.request.headers.get("Content-Length", "")
        self.admission = await self.services.snapshots.intake.admit(self.key, int(length) if length.isdigit() else None)

    def on_finish(self) -> None:
        """Called by Tornado once the answer is out."""
        self._leave()

    def on_connection_close(self) -> None:
        """Called by Tornado when the sender hangs up."""
        self._leave()

    def _leave(self) -> None:
        if self.admission is not None:
            self.admission.leave()

    @operation(
        "Hand in a snapshot",
        audience="partner",
        scopes=("ingest.snapshots",),
        form_file="picture",
        body=SnapshotAbout,
        answer=SnapshotTaken,
        status=202,
        limits=(),
        errors=(403, 409, 429),
        max_body=MAX_BYTES + 64 * 1024,
    )
    async def post(self, file: HTTPFile, body: SnapshotAbout) -> SnapshotTaken:
        """Answered when picture and facts are on the disk; what becomes of it is decided later. 429 with Retry-After
        while too much waits, or the source sends more than it was granted: send the same again after that."""
        assert self.admission is not None  # noqa: S101 - who is not admitted does not get here
        taken = await self.services.snapshots.intake.take(
            self.admission.source,
            NewSnapshot(
                camera=body.camera,
                taken_at=body.taken_at,
                own_id=body.snapshot_id,
                boxes=tuple(Box(**box.model_dump()) for box in body.boxes),
            ),
            file.body,
        )
        self.services.wake("snapshots")
        return SnapshotTaken(snapshot_id=taken["_id"], received_at=taken["received_at"])


class SnapshotPicture(BaseHandler):
    """``/snapshots/{snapshot_id}/picture``."""

    @operation(
        "A snapshot's picture", audience="anyone", query=PhotoLink, limits=(), produces="image/*", errors=(403, 404)
    )
    async def get(self, snapshot_id: str, query: PhotoLink) -> None:
        """As the camera sent it. The address with its signature is given to reviewers, good for about an hour."""
        picture = await self.services.snapshots.review.picture(snapshot_id, query.expires, query.signature)
        self.set_header("Content-Type", f"image/{picture.kind}")
        self.set_header("Content-Security-Policy", "default-src 'none'; sandbox")
        self.write(picture.data)


ROUTES = (
    Route(f"{PREFIX}/snapshots", Snapshots, "Ingest"),
    Route("/snapshots/{snapshot_id}/picture", SnapshotPicture, "Photos"),
)
