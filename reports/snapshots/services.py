"""The services for snapshots, which are built and handed on together."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.api_keys import ApiKeyService
from core.cache import Cache
from core.config_sections import Snapshots
from core.database import Database
from core.encryption import Signer
from core.storage.files import FileStore
from inference.labels import LabelService
from inference.service import InferenceService
from photos.service import PhotoService
from places.service import PlaceService
from reports.catalogue.categories import Catalogue
from reports.queries import ReportQueries
from reports.service import ReportService
from reports.snapshots.cameras import CameraService
from reports.snapshots.cases import SnapshotCases
from reports.snapshots.intake import SnapshotIntake
from reports.snapshots.labelling import SnapshotLabels
from reports.snapshots.retention import SnapshotRetention
from reports.snapshots.review import SnapshotReview
from reports.snapshots.screening import Screening


@dataclass(frozen=True)
class SnapshotServices:
    """What becomes of snapshots, in order."""

    cameras: CameraService
    intake: SnapshotIntake
    sifting: Screening
    review: SnapshotReview
    cases: SnapshotCases
    labels: SnapshotLabels
    clearing: SnapshotRetention


def snapshot_services(
    database: Database,
    settings: Snapshots,
    *,
    files: FileStore,
    keys: ApiKeyService,
    cache: Cache,
    inference: InferenceService,
    labels: LabelService,
    photos: PhotoService,
    places: PlaceService,
    reports: ReportService,
    queries: ReportQueries,
    catalogue: Catalogue,
    signer: Signer,
    public_url: str,
) -> SnapshotServices:
    """All of them, over ``files``, in which the pictures are kept."""
    cameras = CameraService(database, keys=keys, places=places)
    cases = SnapshotCases(database, files=files, photos=photos, reports=reports)
    return SnapshotServices(
        cameras=cameras,
        intake=SnapshotIntake(database, cameras=cameras, files=files, cache=cache, settings=settings),
        sifting=Screening(
            database,
            files=files,
            inference=inference,
            cameras=cameras,
            reports=reports,
            queries=queries,
            settings=settings,
        ),
        review=SnapshotReview(
            database,
            files=files,
            signer=signer,
            public_url=public_url,
            catalogue=catalogue,
            cases=cases,
            settings=settings,
        ),
        cases=cases,
        labels=SnapshotLabels(database, files=files, photos=photos, labels=labels),
        clearing=SnapshotRetention(database, files=files, settings=settings),
    )
