"""The services for snapshots, which are built and handed on together."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.api_keys import ApiKeyService
from core.cache import Cache
from core.config import Snapshots
from core.database import Database
from core.files import FileStore
from places.service import PlaceService
from reports.snapshots.cameras import CameraService
from reports.snapshots.intake import SnapshotIntake


@dataclass(frozen=True)
class SnapshotServices:
    """Cameras and their sources, and taking in what they send."""

    cameras: CameraService
    intake: SnapshotIntake


def snapshot_services(
    database: Database,
    *,
    keys: ApiKeyService,
    places: PlaceService,
    cache: Cache,
    files: FileStore,
    settings: Snapshots,
    division: str,
) -> SnapshotServices:
    """All of them, over ``files``, in which the pictures are kept."""
    cameras = CameraService(database, keys=keys, places=places, division=division)
    return SnapshotServices(
        cameras=cameras,
        intake=SnapshotIntake(database, cameras=cameras, files=files, cache=cache, settings=settings),
    )
