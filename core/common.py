"""The room of what belongs to no domain: jobs, repeated requests, the record of changes."""

from __future__ import annotations

from datetime import timedelta

import structlog

from core import idempotency
from core.audit import Sealer
from core.changes import log as changes
from core.changes.feed import Feed
from core.changes.log import ChangeLog
from core.clock import now
from core.database import merge_indexes
from core.idempotency import Idempotency
from core.queue import jobs
from core.queue.debts import Document, Payer, Payment, Postponed
from core.room import Debts, PathParameter, PersonalData, Room, Task, Turn, Wakes
from core.services import Services

log = structlog.get_logger(__name__)


def _expire(services: Services) -> Payer:
    async def pay(job: Document, debt: Document) -> Payment:
        """Delete what a job left; not by a clock that may be wrong."""
        if not await services.timekeeper.compare():
            raise Postponed("the clocks differ", timedelta(minutes=1))
        return await services.jobs.pay_expire(job, debt)

    return pay


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


async def _forget(services: Services, citizen_id: str) -> None:
    await services[Idempotency].forget(citizen_id)


ROOM = Room(
    name="common",
    indexes=merge_indexes([idempotency.INDEXES, jobs.INDEXES, changes.INDEXES]),
    sharded=frozenset({"idempotency", "change_heads"}),
    stores=lambda settings: {"files": settings.files.store},
    debts=(
        Debts(
            collection="jobs",
            pay={"run": lambda services: services.jobs.pay_run, "expire": _expire},
            places=lambda settings: settings.worker.jobs,
            can_wait=frozenset({"run", "expire"}),
        ),
    ),
    turns=(Turn("23 * * * *", trim_changes),),
    tasks=(Task(_seal), Task(_record_changes)),
    http=("handlers.common", "admin.common.routes"),
    path_parameters={
        "docs_file": PathParameter(r"swagger-ui\.css|swagger-ui-bundle\.js|start\.js", "A file of the page."),
        "job_id": PathParameter(r"[0-9a-hjkmnp-tv-z]{26}", "The id that the request for the job returned."),
    },
    personal=PersonalData(held={"idempotency": ("person",)}, forget=_forget),
)
