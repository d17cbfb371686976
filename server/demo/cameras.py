"""The demo district's cameras: a source, where its cameras stand, and what they have sent when somebody first looks.

Snapshots come in by the way of all snapshots, but for the network; the worker looks at them after the start.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field

from accounts.models import StaffSession
from core.clock import now
from core.errors import Conflict
from core.services import Services
from places.coordinates import CRS
from places.models import Level, Position
from places.service import PlaceService
from reports.snapshots.camera_sheets import NewCamera
from reports.snapshots.models import Box, NewSnapshot
from reports.snapshots.services import SnapshotServices
from server.demo.pictures import draw_scene

CAMERAS = Path(__file__).parent / "data" / "cameras.yaml"

_BOX = {"x": 0.3, "y": 0.45, "width": 0.4, "height": 0.35}  # about where the scenes have their problem


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Source(_Written):
    """Who sends. ``labels``: what its cameras call a class of ours."""

    key: str
    name: str
    labels: dict[str, str]


class Camera(_Written):
    """A camera in the middle of the ``grid``-th grid of ``street``."""

    code: str
    name: str
    street: str
    grid: Annotated[int, Field(ge=1)]
    address: str


class Snapshot(_Written):
    """What a camera has sent, as ``cameras.yaml`` explains it. ``id`` is the source's own."""

    id: str
    camera: str
    minutes_ago: int
    scene: str
    seed: int
    mended: bool = False
    sees: str | None = None
    score: float = 0.0


class Cameras(_Written):
    """All of ``cameras.yaml``."""

    source: Source
    cameras: list[Camera]
    snapshots: list[Snapshot]


def read_cameras() -> Cameras:
    """The file as it is written."""
    return Cameras.model_validate(yaml.safe_load(CAMERAS.read_text("utf-8")))


async def put_cameras(services: Services, by: StaffSession) -> None:
    """Register the cameras and take in what they have sent; what an earlier loading did stays.

    ``by``: the administrator. Nobody keeps the source's key: who wants to send in its name has another one made.
    """
    written = read_cameras()
    cameras, intake = services[SnapshotServices].cameras, services[SnapshotServices].intake
    # Drawings are not what the classifier has learnt from, so less is asked of them than of photographs.
    sifting = {"per_minute": 600, "classes": [], "min_score": 0.4, "window_minutes": 60}
    with suppress(Conflict):
        await cameras.create_source(by, {**written.source.model_dump(), **sifting})
    streets = {street.name: street.code for street in await services[PlaceService].areas(Level.STREET)}
    grids = await services[PlaceService].areas(Level.GRID)
    for camera in written.cameras:
        grid = [grid for grid in grids if grid.code.startswith(streets[camera.street])][camera.grid - 1]
        longitude, latitude = grid.centre
        position = Position(longitude=longitude, latitude=latitude, crs=CRS.WGS84)
        with suppress(Conflict):
            await cameras.create_camera(
                by, written.source.key, NewCamera(camera.code, camera.name, position, camera.address)
            )
    source = await cameras.source(written.source.key)
    for sent in written.snapshots:
        boxes = (Box(sent.sees, sent.score, **_BOX),) if sent.sees else ()
        taken_at = now() - timedelta(minutes=sent.minutes_ago)
        picture = await asyncio.to_thread(draw_scene, sent.scene, sent.seed, mended=sent.mended, taken_at=taken_at)
        with suppress(Conflict):  # drawn anew it has another grain, and so is another picture of the same id
            await intake.take(source, NewSnapshot(sent.camera, taken_at, sent.id, boxes), picture)
