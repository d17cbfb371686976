"""Administering cameras and the sources that send their snapshots."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from tornado.httputil import HTTPFile

from admin.accounts.staff import Version
from core.queue.debts import Document
from core.versions import version_of
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Moment, PlainText, Query
from handlers.operations import operation
from inference.predictions import PHOTO_CLASSES
from places.models import Position
from reports.snapshots.camera_sheets import BOUNDS, NewCamera
from reports.snapshots.models import CAMERA_CODE, SOURCE_KEY
from reports.snapshots.services import SnapshotServices

SourceKey = Annotated[str, Field(pattern=f"^{SOURCE_KEY}$")]
SourceName = Annotated[PlainText, Field(min_length=1, max_length=40)]
PerMinute = Annotated[int, Field(ge=1, le=100_000, description="Snapshots a minute that it may send.")]
PhotoClass = Annotated[str, Field(max_length=40, description=f"One of: {', '.join(PHOTO_CLASSES)}.")]
Classes = Annotated[list[PhotoClass], Field(max_length=20, description="Which count; empty: all.")]
MinScore = Annotated[float, Field(ge=0.05, le=1, description="What scores less is filtered; see docs/snapshots.md.")]
WindowMinutes = Annotated[
    int, Field(ge=1, le=10_080, description="The same camera and class within it are one problem.")
]
Labels = Annotated[
    dict[Annotated[PlainText, Field(min_length=1, max_length=60)], PhotoClass],
    Field(max_length=100, description="What the cameras call a class of ours, by their names."),
]
CameraName = Annotated[PlainText, Field(min_length=1, max_length=60)]
Address = Annotated[PlainText, Field(max_length=200)]


class SourceAccount(Answer):
    """A source of snapshots, with the version to change it by."""

    key: str
    name: str
    active: bool
    per_minute: int
    classes: list[str]
    min_score: float
    window_minutes: int
    labels: dict[str, str]
    version: int
    changed_at: Moment


class SourceWithKey(Answer):
    """A source and the API key that it sends with, which is shown this once."""

    source: SourceAccount
    api_key: str


class SourceList(Answer):
    """All sources."""

    sources: list[SourceAccount]


class NewSource(Body):
    """A source to be added."""

    key: SourceKey
    name: SourceName
    per_minute: PerMinute = 600
    classes: Classes = []
    min_score: MinScore = 0.6
    window_minutes: WindowMinutes = 60
    labels: Labels = {}


class SourceChange(Body):
    """What is to be changed; what is left out stays."""

    version: Version
    name: SourceName | None = None
    active: Annotated[bool | None, Field(description="A paused source is refused.")] = None
    per_minute: PerMinute | None = None
    classes: Classes | None = None
    min_score: MinScore | None = None
    window_minutes: WindowMinutes | None = None
    labels: Labels | None = None


class SourceSeen(Body):
    """Which version was seen."""

    version: Version


class CameraAccount(Answer):
    """A camera, with the version to change it by."""

    camera_id: str
    source: str
    code: str
    name: str
    longitude: float = Field(description="As it was given, in `crs`.")
    latitude: float
    crs: Literal["wgs84", "gcj02", "bd09"]
    address: str
    areas: list[str] = Field(description="District, street, community, grid; they follow from the position.")
    active: bool
    version: int
    changed_at: Moment


class CameraQuery(Query):
    """Which cameras within reach. By id."""

    source: SourceKey | None = None
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=200)] = 50


class CameraPage(Answer):
    """One page of cameras."""

    cameras: list[CameraAccount]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class NewCameraBody(Body):
    """A camera to be added."""

    source: SourceKey
    code: Annotated[str, Field(pattern=f"^{CAMERA_CODE}$", description="What its source calls it.")]
    name: CameraName
    location: Position
    address: Address = ""


class CameraChange(Body):
    """What is to be changed; what is left out stays."""

    version: Version
    name: CameraName | None = None
    location: Position | None = None
    address: Address | None = None
    active: Annotated[bool | None, Field(description="Snapshots of one out of use are refused.")] = None


class CamerasImported(Answer):
    """What an import did."""

    created: int
    changed: int
    unread_sheets: list[str] = Field(description="Other sheets of the workbook that hold something. None was read.")


def _source(document: Document) -> SourceAccount:
    names = SourceAccount.model_fields.keys() - {"key", "version"}
    return SourceAccount(key=document["_id"], version=version_of(document), **{name: document[name] for name in names})


def _camera(document: Document) -> CameraAccount:
    names = ("source", "code", "name", "address", "areas", "active", "changed_at")
    longitude, latitude = document["given_location"]["coordinates"]
    return CameraAccount(
        camera_id=document["_id"],
        longitude=longitude,
        latitude=latitude,
        crs=document["given_location"]["crs"],
        version=version_of(document),
        **{name: document[name] for name in names},
    )


class CameraSources(BaseHandler):
    """``/camera-sources``."""

    @operation(
        "List sources of snapshots", audience="staff", reach="shared", answer=SourceList, permission="cameras.manage"
    )
    async def get(self) -> SourceList:
        """All of them, by key."""
        return SourceList(sources=[_source(s) for s in await self.services[SnapshotServices].cameras.sources()])

    @operation(
        "Add a source of snapshots",
        audience="staff",
        reach="district",
        body=NewSource,
        answer=SourceWithKey,
        status=201,
        permission="cameras.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, body: NewSource) -> SourceWithKey:
        """The answer holds its API key, which cannot be had again."""
        source, key = await self.services[SnapshotServices].cameras.create_source(self.staff, body.model_dump())
        self.services.wake("camera_sources")
        return SourceWithKey(source=_source(source), api_key=key)


class CameraSource(BaseHandler):
    """``/camera-sources/{source_key}``."""

    @operation(
        "Change a source of snapshots",
        audience="staff",
        reach="district",
        body=SourceChange,
        answer=SourceAccount,
        permission="cameras.manage",
        limits=("write",),
        errors=(409,),
    )
    async def patch(self, source_key: str, body: SourceChange) -> SourceAccount:
        """It counts for what is sifted from then on, within some seconds."""
        wanted = body.model_dump(exclude_none=True, exclude={"version"})
        source = await self.services[SnapshotServices].cameras.change_source(
            self.staff, source_key, body.version, wanted
        )
        self.services.wake("camera_sources")
        return _source(source)


class CameraSourceKey(BaseHandler):
    """``/camera-sources/{source_key}/key``."""

    @operation(
        "Give a source another key",
        audience="staff",
        reach="district",
        body=SourceSeen,
        answer=SourceWithKey,
        permission="cameras.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, source_key: str, body: SourceSeen) -> SourceWithKey:
        """The old one is refused at once."""
        source, key = await self.services[SnapshotServices].cameras.new_key(self.staff, source_key, body.version)
        self.services.wake("camera_sources")
        return SourceWithKey(source=_source(source), api_key=key)


class CameraImport(BaseHandler):
    """``/camera-sources/{source_key}/cameras``."""

    @operation(
        "Import cameras",
        audience="staff",
        reach="limited",
        answer=CamerasImported,
        permission="cameras.manage",
        limits=("write",),
        form_file="file",
        max_body=BOUNDS.file_bytes + 4096,
        errors=(404,),
    )
    async def post(self, source_key: str, file: HTTPFile) -> CamerasImported:
        """A CSV file or a workbook (xlsx) with the columns code, name, longitude, latitude, crs and maybe address: all
        rows or none. A camera that is there already is changed."""
        done = await self.services[SnapshotServices].cameras.import_cameras(self.staff, source_key, file.body)
        self.services.wake("camera_sources")
        return CamerasImported(**done)


class Cameras(BaseHandler):
    """``/cameras``."""

    @operation(
        "List cameras",
        audience="staff",
        reach="limited",
        query=CameraQuery,
        answer=CameraPage,
        permission="cameras.manage",
    )
    async def get(self, query: CameraQuery) -> CameraPage:
        """Within the areas of whoever asks."""
        found, following = await self.services[SnapshotServices].cameras.cameras(
            self.staff, query.source, query.page, query.size
        )
        return CameraPage(cameras=[_camera(c) for c in found], next_page=following)

    @operation(
        "Add a camera",
        audience="staff",
        reach="limited",
        body=NewCameraBody,
        answer=CameraAccount,
        status=201,
        permission="cameras.manage",
        limits=("write",),
        errors=(404, 409),
    )
    async def post(self, body: NewCameraBody) -> CameraAccount:
        """The areas that it stands in follow from its position."""
        camera = NewCamera(body.code, body.name, body.location, body.address)
        document = await self.services[SnapshotServices].cameras.create_camera(self.staff, body.source, camera)
        self.services.wake("cameras")
        return _camera(document)


class Camera(BaseHandler):
    """``/cameras/{camera_id}``."""

    @operation(
        "Change a camera",
        audience="staff",
        reach="limited",
        body=CameraChange,
        answer=CameraAccount,
        permission="cameras.manage",
        limits=("write",),
        errors=(409,),
    )
    async def patch(self, camera_id: str, body: CameraChange) -> CameraAccount:
        """Snapshots that have come keep the place that it had."""
        document = await self.services[SnapshotServices].cameras.change_camera(
            self.staff,
            camera_id,
            body.version,
            name=body.name,
            position=body.location,
            address=body.address,
            active=body.active,
        )
        self.services.wake("cameras")
        return _camera(document)
