"""What happens by the clock, on the SAQ queue: once over all workers, however many run.

Nothing does where this machine's clock and the database's differ: see :mod:`core.timekeeper`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
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

from core.clock import now
from core.config import Settings
from core.metrics import QUEUED_JOBS
from core.room import Room
from core.services import Services

log = structlog.get_logger(__name__)


_LOOK_SECONDS = 60.0
_FAR_AHEAD = timedelta(hours=2)  # every entry has its turn within one


Entry = Callable[[dict[str, Any]], Awaitable[Any]]


def by_right_clock(do: Callable[[Services], Awaitable[Any]]) -> Entry:
    """``do`` as an entry of the queue, but doing nothing where the clocks differ now: it may delete."""

    @wraps(do)
    async def entry(context: dict[str, Any]) -> Any:
        services: Services = context["services"]
        return await do(services) if await services.timekeeper.compare() else None

    return entry


async def count_jobs(context: dict[str, Any]) -> None:
    """Put the length of the queue into the figures."""
    QUEUED_JOBS.set(await context["queue"].count("queued"))


def entries(rooms: Sequence[Room]) -> list[Any]:
    """The timetable: what the rooms do by the clock."""
    turns = [turn for room in rooms for turn in room.turns]
    jobs: list[Any] = [CronJob(by_right_clock(t.do), cron=t.cron, timeout=t.seconds) for t in turns]
    return [*jobs, CronJob(count_jobs, cron="* * * * *")]


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
            await forget_far_ahead(queue, [entry.function.__qualname__ for entry in entries(services.rooms)])
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
        cron_jobs=entries(services.rooms),
        concurrency=2,
        startup=hand_over,
    )
    # Signals are the program's own business: this is one of its tasks.
    worker.SIGNALS = []
    return worker


async def forget_far_ahead(queue: RedisQueue, names: Sequence[str]) -> None:
    """Take turns off the queue that a worker put there whose clock was ahead: until then there would be no other."""
    try:
        for job in await queue.jobs([f"cron:{name}" for name in names]):
            if job is not None and job.scheduled > (now() + _FAR_AHEAD).timestamp():
                log.warning("timetable.far_ahead", entry=job.function)
                await queue.abort(job, "far ahead")
    except RedisError as error:
        log.warning("timetable.redis", error=type(error).__name__)
