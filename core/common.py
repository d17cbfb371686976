"""The room of what belongs to no domain: jobs, repeated requests, the record of changes, photos."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import structlog

from core import changes, idempotency, jobs, photos
from core.audit import Sealer
from core.changes import ChangeLog
from core.clock import now
from core.config import s3_options, store_url
from core.database import merge_indexes
from core.debts import Document, Payer, Payment, Postponed
from core.encryption import Signer
from core.feed import Feed
from core.idempotency import Idempotency
from core.photo_marks import PhotoMarks
from core.photo_store import PhotoStore
from core.photos import PhotoService
from core.room import Debts, PathParameter, PersonalData, Room, Task, Turn, Wakes, pay_audit
from core.services import Services
from core.wechat import WeChat

log = structlog.get_logger(__name__)


async def _open(services: Services, _stack: AsyncExitStack) -> None:
    settings = services.settings
    services.add(
        PhotoService(
            services.database,
            PhotoStore.from_url(store_url(settings.photos.store), **s3_options(settings)),
            services[WeChat],
            services[Signer],
            settings.photos,
            services.public_url,
            also_owed=("see", "blur") if settings.inference.enabled else ("blur",),
        ),
        PhotoMarks(services.database),
    )


def _expire(services: Services) -> Payer:
    async def pay(job: Document, debt: Document) -> Payment:
        """Delete what a job left; not by a clock that may be wrong."""
        if not await services.timekeeper.compare():
            raise Postponed("the clocks differ", timedelta(minutes=1))
        return await services.jobs.pay_expire(job, debt)

    return pay


async def clear_unused_photos(services: Services) -> None:
    """Delete photos that nothing has used within a day."""
    if cleared := await services[PhotoService].clear_unused():
        log.info("photos.cleared", count=cleared)


async def trim_changes(services: Services) -> None:
    """Let go of changes that are older than they are kept."""
    days = services.settings.feed.keep_days
    if trimmed := await ChangeLog(services.database).trim(now() - timedelta(days=days)):
        log.info("changes.trimmed", count=trimmed)


async def _record_changes(services: Services, _wakes: Wakes) -> None:
    async def announce(seq: int) -> None:
        await services.cache.publish(changes.CHANNEL, str(seq))

    sources = [watched.source for room in services.rooms for watched in room.changes]
    lease = services.settings.feed.lease_seconds
    await Feed(services.database, sources, lease_seconds=lease, announce=announce).run()


async def _seal(services: Services, _wakes: Wakes) -> None:
    await Sealer.of(services.settings, services.database).run(services.settings.audit.seal_seconds)


async def _export(services: Services, citizen_id: str) -> Mapping[str, Any]:
    store = services[PhotoService]
    owned = await store.owned_by(citizen_id)
    return {"photos": [{**photo, "address": store.link(photo["_id"], "large", original=True)} for photo in owned]}


async def _forget(services: Services, citizen_id: str) -> None:
    await services[Idempotency].forget(citizen_id)
    await services[PhotoService].forget_owner(citizen_id)


ROOM = Room(
    name="common",
    indexes=merge_indexes([idempotency.INDEXES, jobs.INDEXES, changes.INDEXES, photos.INDEXES]),
    sharded=frozenset({"idempotency", "photos", "change_heads"}),
    open=_open,
    stores=lambda settings: {"photos": settings.photos.store, "files": settings.files.store},
    debts=(
        Debts(
            collection="jobs",
            pay={"run": lambda services: services.jobs.pay_run, "expire": _expire},
            places=lambda settings: settings.worker.jobs,
            can_wait=frozenset({"run", "expire"}),
        ),
        Debts(
            collection="photos",
            pay={"await_verdict": lambda services: services[PhotoService].pay_await_verdict, "audit": pay_audit},
        ),
        Debts(collection="photos", pay={"check": lambda services: services[PhotoService].pay_check}, outside=True),
    ),
    turns=(Turn("7 * * * *", clear_unused_photos), Turn("23 * * * *", trim_changes)),
    tasks=(Task(_seal), Task(_record_changes)),
    http=("handlers.common", "admin.common.routes"),
    path_parameters={
        "photo_id": PathParameter(r"[0-9a-hjkmnp-tv-z]{26}", "The id that POST /photos returned."),
        "file": PathParameter(
            r"(?:public-)?(?:large|medium|thumb)",
            "Longest side at most 2048, 800 or 200 pixels; public: with faces and number plates blurred.",
        ),
        "docs_file": PathParameter(r"swagger-ui\.css|swagger-ui-bundle\.js|start\.js", "A file of the page."),
        "job_id": PathParameter(r"[0-9a-hjkmnp-tv-z]{26}", "The id that the request for the job returned."),
    },
    personal=PersonalData(held={"photos": ("owner.id",), "idempotency": ("person",)}, export=_export, forget=_forget),
)
