"""Snapshots of cameras (智能抓拍): what of them the rest of the house must know."""

from __future__ import annotations

from contextlib import AsyncExitStack

import structlog

from accounts.api_keys import ApiKeyService
from core.config import s3_options, store_url
from core.encryption import Signer
from core.room import Debts, PathParameter, Room, Turn, administered, pay_audit
from core.services import Services
from core.storage.files import FileStore
from inference.labels import LabelService
from inference.service import InferenceService
from photos.service import PhotoService
from places.service import PlaceService
from reports.catalogue.categories import Catalogue
from reports.queries import ReportQueries
from reports.service import ReportService
from reports.snapshots.metrics import SNAPSHOTS_STANDING
from reports.snapshots.models import INDEXES
from reports.snapshots.services import SnapshotServices, snapshot_services

log = structlog.get_logger(__name__)


async def _open(services: Services, _stack: AsyncExitStack) -> None:
    settings = services.settings
    services.add(
        snapshot_services(
            services.database,
            settings.snapshots,
            labels=services[LabelService],
            keys=services[ApiKeyService],
            cache=services.cache,
            inference=services[InferenceService],
            photos=services[PhotoService],
            places=services[PlaceService],
            reports=services[ReportService],
            queries=services[ReportQueries],
            catalogue=services[Catalogue],
            signer=services[Signer],
            public_url=services.public_url,
            files=FileStore.from_url(
                store_url(settings.snapshots.store), content_type="image/jpeg", **s3_options(settings)
            ),
        )
    )


async def clear_snapshots(services: Services) -> None:
    """Let go of snapshots that nobody reviewed in time, and of pictures whose time is over."""
    clearing = services[SnapshotServices].clearing
    expired, deleted = await clearing.expire(), await clearing.delete_files()
    if expired or deleted:
        log.info("snapshots.cleared", expired=expired, deleted=deleted)


async def _observe(services: Services) -> None:
    for state, count in (await services[SnapshotServices].intake.standing()).items():
        SNAPSHOTS_STANDING.labels(state).set(count)


ROOM = Room(
    name="snapshots",
    indexes=INDEXES,
    sharded=frozenset({"snapshots", "snapshot_windows"}),
    open=_open,
    stores=lambda settings: {"snapshots": settings.snapshots.store},
    debts=(
        *administered("camera_sources", "cameras"),
        Debts(
            collection="snapshots",
            pay={
                "sift": lambda services: services[SnapshotServices].sifting.pay_sift,
                "open_case": lambda services: services[SnapshotServices].cases.pay_open_case,
                "label": lambda services: services[SnapshotServices].labels.pay_label,
                "audit": pay_audit,
            },
            claimed_together=8,
            can_wait=frozenset({"sift", "open_case", "label", "audit"}),
        ),
    ),
    turns=(Turn("* * * * *", clear_snapshots, seconds=300),),
    http=("admin.reports.snapshot_routes", "handlers.ingest"),
    path_parameters={
        "source_key": PathParameter(r"[a-z0-9_]{2,40}", "The key of a source of snapshots."),
        "camera_id": PathParameter(
            r"[a-z0-9_]{2,40}:[A-Za-z0-9][A-Za-z0-9_.-]{0,63}",
            "Source and code of a camera: west:44010601.",
        ),
        "snapshot_id": PathParameter(r"[0-9a-hjkmnp-tv-z]{26}", "The id of a snapshot."),
    },
    observe=_observe,
)
