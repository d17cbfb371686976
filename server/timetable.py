"""What happens by the clock, on the SAQ queue: once over all workers, however many run.

Nothing does where this machine's clock and the database's differ: see :mod:`core.timekeeper`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import wraps
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from saq import CronJob
from saq import Worker as SaqWorker
from saq.queue.redis import RedisQueue

from core.changes import ChangeLog
from core.clock import now
from core.config import Settings
from core.metrics import QUEUED_JOBS
from core.photos import PhotoService
from core.services import Services
from inference.drift import Drift
from reports.service import ReportService
from reports.snapshots.services import SnapshotServices
from reports.time_limits import TimeLimits

log = structlog.get_logger(__name__)

_BLURRED_AT_ONCE = 100  # a minute at most: new photos wait for the same worker


async def clear_unused_photos(context: dict[str, Any]) -> int:
    """Delete photos that nothing has used within a day."""
    services: Services = context["services"]
    cleared = await services[PhotoService].clear_unused()
    if cleared:
        log.info("photos.cleared", count=cleared)
    return cleared


async def blur_stored_photos(context: dict[str, Any]) -> int:
    """Have photos blurred that were stored before that was done."""
    services: Services = context["services"]
    owed = await services[PhotoService].owe_blurring(_BLURRED_AT_ONCE)
    if owed:
        log.info("photos.blurring_owed", count=owed)
    return owed


async def mark_late_reports(context: dict[str, Any]) -> int:
    """Mark the cases whose time limit has passed, and take back what a clock that was ahead has marked."""
    services: Services = context["services"]
    taken_back = await services[TimeLimits].take_back()
    if taken_back:
        log.warning("reports.not_late", count=taken_back)
    return await services[ReportService].mark_late()


async def trim_changes(context: dict[str, Any]) -> int:
    """Let go of changes that are older than they are kept."""
    services: Services = context["services"]
    days = services.settings.feed.keep_days
    trimmed = await ChangeLog(services.database).trim(now() - timedelta(days=days))
    if trimmed:
        log.info("changes.trimmed", count=trimmed)
    return trimmed


async def remind_dormant_reports(context: dict[str, Any]) -> int:
    """Remind staff of the cases that nobody has touched for long."""
    services: Services = context["services"]
    reminded = await services[ReportService].remind_dormant()
    if reminded:
        log.info("reports.reminded", count=reminded)
    return reminded


async def clear_snapshots(context: dict[str, Any]) -> int:
    """Let go of snapshots that nobody reviewed in time, and of pictures whose time is over."""
    services: Services = context["services"]
    expired, deleted = (
        await services[SnapshotServices].clearing.expire(),
        await services[SnapshotServices].clearing.delete_files(),
    )
    if expired or deleted:
        log.info("snapshots.cleared", expired=expired, deleted=deleted)
    return deleted


async def measure_drift(context: dict[str, Any]) -> None:
    """Put how the models did on the last whole day into the figures."""
    services: Services = context["services"]
    await services[Drift].measure()


async def count_jobs(context: dict[str, Any]) -> None:
    """Put the length of the queue into the figures."""
    QUEUED_JOBS.set(await context["queue"].count("queued"))


Entry = Callable[[dict[str, Any]], Awaitable[Any]]

_TIMETABLE: dict[Entry, str] = {
    clear_unused_photos: "7 * * * *",
    blur_stored_photos: "* * * * *",
    mark_late_reports: "* * * * *",
    trim_changes: "23 * * * *",
    remind_dormant_reports: "*/10 * * * *",
    clear_snapshots: "* * * * *",
    measure_drift: "*/10 * * * *",
    count_jobs: "* * * * *",
}
_SECONDS: dict[Entry, int] = {clear_snapshots: 300}  # what an entry may take, where that is long
_LOOK_SECONDS = 60.0
_FAR_AHEAD = timedelta(hours=2)  # every entry has its turn within one


def by_right_clock(entry: Entry) -> Entry:
    """``entry``, but doing nothing where the clocks differ now: it may delete."""

    @wraps(entry)
    async def guarded(context: dict[str, Any]) -> Any:
        services: Services = context["services"]
        return await entry(context) if await services.timekeeper.compare() else None

    return guarded


async def run_timetable(services: Services, settings: Settings) -> None:
    """Run the timetable until cancelled, as long as the clocks agree."""
    assert settings.redis.url is not None  # noqa: S101 - open_services has seen to it
    # SAQ asks again at once when a call fails: with growing pauses in the client, a Redis that is away costs no core.
    patient = Retry(ExponentialBackoff(cap=2.0, base=0.1), 5)
    queue = RedisQueue(Redis.from_url(settings.redis.url, retry=patient), name="timetable")
    running: asyncio.Task[None] | None = None
    try:
        while True:
            if running is None and services.timekeeper.agrees:
                running = asyncio.create_task(_saq_worker(services, queue).start())
            elif running is not None and not services.timekeeper.agrees:
                # Not only its entries: SAQ puts each turn on the queue by the machine's clock, for all workers.
                await _stopped(running)
                running = None
            await forget_far_ahead(queue)
            if running is None:
                await asyncio.sleep(_LOOK_SECONDS)
            elif (await asyncio.wait([running], timeout=_LOOK_SECONDS))[0]:
                return running.result()
    finally:
        if running is not None:
            await _stopped(running)
        await queue.disconnect()


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _saq_worker(services: Services, queue: RedisQueue) -> SaqWorker[Any]:
    async def hand_over(context: dict[str, Any]) -> None:
        context.update(services=services, queue=queue)

    worker: SaqWorker[Any] = SaqWorker(
        queue,
        functions=[],
        cron_jobs=[
            CronJob(by_right_clock(entry), cron=cron, timeout=_SECONDS.get(entry)) for entry, cron in _TIMETABLE.items()
        ],
        concurrency=2,
        startup=hand_over,
    )
    # Signals are the program's own business: this is one of its tasks.
    worker.SIGNALS = []
    return worker


async def forget_far_ahead(queue: RedisQueue) -> None:
    """Take turns off the queue that a worker put there whose clock was ahead: until then there would be no other."""
    try:
        for job in await queue.jobs([f"cron:{entry.__qualname__}" for entry in _TIMETABLE]):
            if job is not None and job.scheduled > (now() + _FAR_AHEAD).timestamp():
                log.warning("timetable.far_ahead", entry=job.function)
                await queue.abort(job, "far ahead")
    except RedisError as error:
        log.warning("timetable.redis", error=type(error).__name__)
