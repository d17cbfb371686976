"""What machines send all day (``/ingest/v1``): snapshots of cameras, by the API key of their source."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from tornado.httputil import HTTPFile

from handlers.base import BaseHandler
from handlers.common import PhotoLink
from handlers.models import Answer, Body, GivenMoment, Moment, PlainText
from handlers.operations import Route, operation
from photos.pictures import MAX_BYTES
from reports.snapshots.intake import Admission
from reports.snapshots.models import CAMERA_CODE, Box, NewSnapshot
from reports.snapshots.services import SnapshotServices

PREFIX = "/ingest/v1"
_SMALLEST = 0.0001
"""The least share of a picture's side: one pixel of ten thousand."""
_ROUNDING = 0.001
"""By so much of the picture senders' boxes are over its edge for having been rounded."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Size = Annotated[float, Field(ge=_SMALLEST, le=1, allow_inf_nan=False)]


class GivenBox(Body):
    """What the camera's own program saw, and where: shares of width and height, from the upper left corner.

    It has a size and lies in the picture. One that does not is a sender that counts from another corner or from the
    middle, or in pixels: cut to fit, it would point at something else.
    """

    label: Annotated[PlainText, Field(min_length=1, max_length=60, description="As the camera calls it.")]
    score: Share
    x: Share
    y: Share
    width: Size
    height: Size

    @model_validator(mode="after")
    def _in_the_picture(self) -> Self:
        for start, size, named in ((self.x, self.width, "x 与 width"), (self.y, self.height, "y 与 height")):
            if start + size > 1 + _ROUNDING or 1 - start < _SMALLEST:
                raise ValueError(f"{named} 之和超出画面：x、y 是左上角，四个值都是占画面宽、高的比例")
        return self

    def box(self) -> Box:
        """As it is kept: what is over by rounding is taken off."""
        width, height = min(self.width, 1 - self.x), min(self.height, 1 - self.y)
        return Box(self.label, self.score, self.x, self.y, width, height)


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
        self.admission = await self.services[SnapshotServices].intake.admit(
            self.key, int(length) if length.isdigit() else None
        )

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
        taken = await self.services[SnapshotServices].intake.take(
            self.admission.source,
            NewSnapshot(
                camera=body.camera,
                taken_at=body.taken_at,
                own_id=body.snapshot_id,
                boxes=tuple(box.box() for box in body.boxes),
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
        picture = await self.services[SnapshotServices].review.picture(snapshot_id, query.expires, query.signature)
        self.set_header("Content-Type", f"image/{picture.kind}")
        self.set_header("Content-Security-Policy", "default-src 'none'; sandbox")
        self.write(picture.data)


ROUTES = (
    Route(f"{PREFIX}/snapshots", Snapshots, "Ingest"),
    Route("/snapshots/{snapshot_id}/picture", SnapshotPicture, "Photos"),
)
