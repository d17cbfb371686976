"""The review queue of cameras' snapshots. See docs/snapshots.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from core.queue.debts import Document
from handlers.base import BaseHandler
from handlers.models import Answer, AtLeast, Body, Moment, PlainText, Query
from handlers.operations import operation
from inference.predictions import NO_PROBLEM, PHOTO_CLASSES
from inference.suggestion import PHOTO_CATEGORY, PHOTO_NAMES
from reports.snapshots.models import FilterReason, SnapshotState
from reports.snapshots.services import SnapshotServices


class SnapshotQuery(Query):
    """Which snapshots within reach."""

    state: SnapshotState = "waiting"
    order: Annotated[
        Literal["time", "score"], Field(description="The newest first, or the surest; by score only what waits.")
    ] = "time"
    camera: Annotated[str | None, Field(max_length=120, description="The id of a camera.")] = None
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class BoxView(Answer):
    """What the camera's own program saw, and where: shares of width and height, from the upper left corner."""

    label: str
    score: float
    x: float
    y: float
    width: float
    height: float


class Judged(Answer):
    """What our classifier says of the picture alone."""

    label: str
    confidence: float
    model: str


class Reviewed(Answer):
    """Who decided, and what."""

    by: str
    at: Moment
    category: str | None = Field(description="Of the case, where it was confirmed.")
    label: str | None = Field(description="What it really shows, where it was rejected.")
    reason: str | None


class SnapshotView(Answer):
    """A snapshot as a reviewer sees it."""

    snapshot_id: str
    state: SnapshotState
    camera_id: str
    camera_name: str
    address: str
    longitude: float = Field(description="Where the camera stood, WGS-84.")
    latitude: float
    areas: list[str]
    taken_at: Moment
    received_at: Moment
    label: str | None = Field(description="What it shows by all that is known; null until it was looked at.")
    label_name: str | None
    score: float | None = Field(description="By which it is sorted; see docs/snapshots.md.")
    judged: Judged | None
    boxes: list[BoxView]
    reason: FilterReason | None = Field(description="Why it was filtered.")
    repeat_of: str | None = Field(description="The snapshot that stands for it.")
    repeats: int = Field(description="How many more of the camera and class are counted on it.")
    last_seen_at: Moment
    category: str | None = Field(description="Of the case that it becomes unless the reviewer names another.")
    picture: str | None = Field(description="Good for about an hour; null when the picture has been deleted.")
    reviewed: Reviewed | None
    report: str | None = Field(description="The number of the case that it has become.")


class SnapshotPage(Answer):
    """One page of snapshots."""

    snapshots: list[SnapshotView]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class Confirmation(Body):
    """What the case is to say; what is left out follows from the class and the camera."""

    category: Annotated[str | None, Field(max_length=40)] = None
    description: Annotated[Annotated[PlainText, AtLeast(5)] | None, Field(max_length=500)] = None


class Rejection(Body):
    """Why it is none, for whoever trains the classifier."""

    label: Annotated[
        str, Field(max_length=40, description=f"What it really shows, one of: {', '.join(PHOTO_CLASSES)}.")
    ] = NO_PROBLEM
    reason: Annotated[PlainText | None, Field(min_length=1, max_length=200)] = None


_SHOWN = (
    *("state", "camera_name", "address", "areas", "taken_at", "received_at", "label", "score", "boxes"),
    *("reason", "repeat_of", "repeats", "last_seen_at", "report"),
)


class SnapshotHandler(BaseHandler):
    """What handlers about snapshots share."""

    def view(self, snapshot: Document) -> SnapshotView:
        """``snapshot`` as it is answered."""
        label, judged, reviewed = snapshot["label"], snapshot["judged"], snapshot["reviewed"]
        longitude, latitude = snapshot["location"]["coordinates"]
        shown: dict[str, Any] = {name: snapshot[name] for name in _SHOWN}
        return SnapshotView(
            snapshot_id=snapshot["_id"],
            camera_id=snapshot["camera"],
            longitude=longitude,
            latitude=latitude,
            label_name=PHOTO_NAMES.get(label),
            judged=Judged(**{name: judged[name] for name in Judged.model_fields}) if judged else None,
            category=PHOTO_CATEGORY.get(label),
            picture=self.services[SnapshotServices].review.link(snapshot),
            reviewed=_reviewed(reviewed) if reviewed else None,
            **shown,
        )


def _reviewed(reviewed: Document) -> Reviewed:
    more = {name: reviewed.get(name) for name in ("category", "label", "reason")}
    return Reviewed(by=reviewed["by"]["name"], at=reviewed["at"], **more)


class Snapshots(SnapshotHandler):
    """``/snapshots``."""

    @operation(
        "List snapshots",
        audience="staff",
        reach="limited",
        query=SnapshotQuery,
        answer=SnapshotPage,
        permission="snapshot.review",
    )
    async def get(self, query: SnapshotQuery) -> SnapshotPage:
        """Within the areas of whoever asks; at first what waits to be reviewed."""
        found, following = await self.services[SnapshotServices].review.list(self.staff, **query.model_dump())
        return SnapshotPage(snapshots=[self.view(s) for s in found], next_page=following)


class Snapshot(SnapshotHandler):
    """``/snapshots/{snapshot_id}``."""

    @operation("Read a snapshot", audience="staff", reach="limited", answer=SnapshotView, permission="snapshot.review")
    async def get(self, snapshot_id: str) -> SnapshotView:
        """With what was seen in it, by whom, and what became of it."""
        return self.view(await self.services[SnapshotServices].review.get(self.staff, snapshot_id))


class SnapshotConfirmation(SnapshotHandler):
    """``/snapshots/{snapshot_id}/confirmation``."""

    @operation(
        "Make a case of a snapshot",
        audience="staff",
        reach="limited",
        body=Confirmation,
        answer=SnapshotView,
        permission="snapshot.review",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, snapshot_id: str, body: Confirmation) -> SnapshotView:
        """The case goes the way of all others, by the rules; `report` is its number. Confirmed again by the same person
        it is answered the same; who comes second is refused (409)."""
        review = self.services[SnapshotServices].review
        snapshot = await review.confirm(self.staff, snapshot_id, category=body.category, description=body.description)
        self.services.wake("snapshots")
        self.services.wake("reports")
        return self.view(snapshot)


class SnapshotRejection(SnapshotHandler):
    """``/snapshots/{snapshot_id}/rejection``."""

    @operation(
        "Say that a snapshot shows no problem, or another",
        audience="staff",
        reach="limited",
        body=Rejection,
        answer=SnapshotView,
        permission="snapshot.review",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, snapshot_id: str, body: Rejection) -> SnapshotView:
        """What it really shows becomes an example to train on. Who comes second is refused (409)."""
        snapshot = await self.services[SnapshotServices].review.reject(
            self.staff, snapshot_id, label=body.label, reason=body.reason
        )
        self.services.wake("snapshots")
        return self.view(snapshot)
