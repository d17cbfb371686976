"""What happens by the clock, on the SAQ queue: once over all workers, however many run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from saq import CronJob
from saq import Worker as SaqWorker
from saq.queue.redis import RedisQueue

from core.changes import ChangeLog
from core.clock import now
from core.config import Settings
from core.metrics import QUEUED_JOBS
from handlers.services import Services

log = structlog.get_logger(__name__)

_BLURRED_AT_ONCE = 100  # a minute at most: new photos wait for the same worker


async def clear_unused_photos(context: dict[str, Any]) -> int:
    """Delete photos that nothing has used within a day."""
    services: Services = context["services"]
    cleared = await services.photos.clear_unused()
    if cleared:
        log.info("photos.cleared", count=cleared)
    return cleared


async def blur_stored_photos(context: dict[str, Any]) -> int:
    """Have photos blurred that were stored before that was done."""
    services: Services = context["services"]
    owed = await services.photos.owe_blurring(_BLURRED_AT_ONCE)
    if owed:
        log.info("photos.blurring_owed", count=owed)
    return owed


async def mark_late_reports(context: dict[str, Any]) -> int:
    """Mark the cases whose time limit has passed."""
    services: Services = context["services"]
    return await services.reports.mark_late()


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
    reminded = await services.reports.remind_dormant()
    if reminded:
        log.info("reports.reminded", count=reminded)
    return reminded


async def clear_snapshots(context: dict[str, Any]) -> int:
    """Let go of snapshots that nobody reviewed in time, and of pictures whose time is over."""
    services: Services = context["services"]
    expired, deleted = await services.snapshots.clearing.expire(), await services.snapshots.clearing.delete_files()
    if expired or deleted:
        log.info("snapshots.cleared", expired=expired, deleted=deleted)
    return deleted


async def measure_drift(context: dict[str, Any]) -> None:
    """Put how the models did on the last whole day into the figures."""
    services: Services = context["services"]
    await services.drift.measure()


async def count_jobs(context: dict[str, Any]) -> None:
    """Put the length of the queue into the figures."""
    QUEUED_JOBS.set(await context["queue"].count("queued"))


async def run_timetable(services: Services, settings: Settings) -> None:
    """Run the timetable until cancelled."""
    assert settings.redis.url is not None  # noqa: S101 - open_services has seen to it
    # SAQ asks again at once when a call fails: with growing pauses in the client, a Redis that is away costs no core.
    patient = Retry(ExponentialBackoff(cap=2.0, base=0.1), 5)
    queue = RedisQueue(Redis.from_url(settings.redis.url, retry=patient), name="timetable")

    async def hand_over(context: dict[str, Any]) -> None:
        context.update(services=services, queue=queue)

    worker: SaqWorker[Any] = SaqWorker(
        queue,
        functions=[],
        cron_jobs=[
            CronJob(clear_unused_photos, cron="7 * * * *"),
            CronJob(blur_stored_photos, cron="* * * * *"),
            CronJob(mark_late_reports, cron="* * * * *"),
            CronJob(trim_changes, cron="23 * * * *"),
            CronJob(remind_dormant_reports, cron="*/10 * * * *"),
            CronJob(clear_snapshots, cron="* * * * *", timeout=300),
            CronJob(measure_drift, cron="*/10 * * * *"),
            CronJob(count_jobs, cron="* * * * *"),
        ],
        concurrency=2,
        startup=hand_over,
    )
    # Signals are the program's own business: this is one of its tasks.
    worker.SIGNALS = []
    try:
        await worker.start()
    finally:
        await queue.disconnect()
