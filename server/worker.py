"""The worker: pays the debts that documents owe, and keeps the timetable.

Debts are found in MongoDB; a word over Redis only makes the worker look at once. Any number of workers may run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import structlog

from accounts.positions import StaffPositions
from accounts.sessions import SessionService
from core.audit import Sealer, audit_payer
from core.changes import CHANNEL
from core.config import Settings
from core.debts import PLACES_EACH, WAKE_CHANNEL, Collector, Document, Parties, Payer, Payment, Postponed
from core.feed import Feed
from core.jobs import JobService
from core.photos import PhotoService
from core.services import Services
from handlers.common import ADMINISTERED
from inference.condition import InferenceCondition
from inference.hiding import PictureHider
from inference.seeing import PhotoSeeing
from notices.service import NoticeService
from reports import feed as reports_feed
from reports.calendar import CalendarService
from reports.day_changes import DayChanges
from reports.duplicates import Duplicates
from reports.jobs import ReportJobs
from reports.learning import ReportLessons
from reports.merging import Merging
from reports.people import ReportPeople
from reports.recount import Recount
from reports.service import ReportService
from reports.side_task_jobs import SideTaskJobs
from reports.snapshots.services import SnapshotServices
from reports.splitting import Splitting
from reports.suggestions import Suggestions
from reports.time_limits import TimeLimits
from reports.topic_keeping import TopicKeeper
from server.heap import until_over
from server.relief import OUTSIDE, Relief, catch_up, urgent
from server.services import policy
from server.start import open_once_there
from server.timetable import run_timetable
from webhooks.deliveries import Delivering, Planner, receivers
from webhooks.sending import CONNECTIONS

log = structlog.get_logger(__name__)

_AUTOGROUP = Path("/proc/self/autogroup")
_NICEST = 19
_STOP_SECONDS = 4.0
"""What a worker that is told to stop has to give back what it holds; then it is ended."""
_CLAIMED_TOGETHER = {"snapshots": 8}


def payers(services: Services) -> dict[str, dict[str, Payer]]:
    """Who pays which debt, by collection and kind."""

    async def forget(citizen: Document, _debt: Document) -> Payment:
        """Every room forgets the deleted citizen; each may be asked again."""
        await services[SessionService].close_all(citizen["_id"])
        await services[ReportPeople].forget(citizen["_id"])
        await services[NoticeService].forget(citizen["_id"])
        await services[PhotoService].forget_owner(citizen["_id"])
        return Payment()

    async def expire(job: Document, debt: Document) -> Payment:
        """Delete what a job left; not by a clock that may be wrong."""
        if not await services.timekeeper.compare():
            raise Postponed("the clocks differ", timedelta(minutes=1))
        return await services.jobs.pay_expire(job, debt)

    audit = {"audit": audit_payer(services.audit)}
    jobs = services[ReportJobs]
    checks = SideTaskJobs(
        services.database,
        reports=services[ReportService],
        positions=services[StaffPositions],
        settings=services.settings.side_tasks,
    )
    splitting = Splitting(services.database, services[ReportService])
    days = DayChanges(services.database, calendar=services[CalendarService], policy=policy(services.settings))
    merging = Merging(services.database, services[ReportService])
    return {
        **dict.fromkeys(ADMINISTERED, audit),
        "reports": {
            "route": jobs.pay_route,
            "check_text": jobs.pay_check_text,
            "attach": jobs.pay_attach,
            "notify": jobs.pay_notify,
            "audit": jobs.pay_audit,
            "resume": jobs.pay_resume,
            "warn": services[TimeLimits].pay_warn,
            "absorb": merging.pay_absorb,
            "find_duplicates": services[Duplicates].pay_find_duplicates,
            "offer_check": checks.pay_offer_check,
            "cancel_checks": checks.pay_cancel_checks,
            "move_checks": checks.pay_move_checks,
            "create_children": splitting.pay_create_children,
            "tell_parent": splitting.pay_tell_parent,
            "suggest": services[Suggestions].pay_suggest,
            "learn": services[ReportLessons].pay_learn,
        },
        "side_tasks": {
            "offer": checks.pay_offer,
            "lapse": checks.pay_lapse,
            "expire": checks.pay_expire,
            "tell_case": checks.pay_tell_case,
            **audit,
        },
        "photos": {
            "check": services[PhotoService].pay_check,
            "await_verdict": services[PhotoService].pay_await_verdict,
            "tell_verdict": jobs.pay_tell_verdict,
            "see": services[PhotoSeeing].pay_see,
            "blur": services[PictureHider].pay_blur,
            "tell_blurred": jobs.pay_tell_blurred,
            **audit,
        },
        "snapshots": {
            "sift": services[SnapshotServices].sifting.pay_sift,
            "open_case": services[SnapshotServices].cases.pay_open_case,
            "label": services[SnapshotServices].labels.pay_label,
            **audit,
        },
        "citizens": {"forget": forget},
        "jobs": {"run": services.jobs.pay_run, "expire": expire},
        "calendar_days": {**audit, "recount": days.pay_recount},
        "webhooks": audit,
        "webhook_deliveries": {"deliver": services[Delivering].pay_deliver},
    }


class Worker:
    """Settles debts in every collection, woken by Redis and the clock; seals the audit log, counts, records changes."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services = services
        self._sweep = settings.worker.sweep_seconds
        self._sealer = Sealer.of(settings, services.database)
        self._recount = Recount(services.database)
        self._gather_seconds = settings.worker.gather_seconds
        self._seal_seconds = settings.audit.seal_seconds
        lease = timedelta(seconds=settings.worker.lease_seconds)
        by_collection = payers(services)
        places = {
            "jobs": settings.worker.jobs,
            "webhook_deliveries": CONNECTIONS,  # those to one subscription are bounded: so many may be slow at once
        }
        self._wake: dict[str, list[asyncio.Event]] = {}
        self._collectors: list[tuple[Collector, asyncio.Event]] = []

        def collect(name: str, kinds: Iterable[str], concurrency: int, parties: Parties | None = None) -> None:
            """Settle debts of these kinds in the collection ``name``, apart from what else is settled there."""
            collector = Collector(
                services.database[name],
                {kind: by_collection[name][kind] for kind in kinds},
                lease=lease,
                concurrency=concurrency,
                claimed_together=_CLAIMED_TOGETHER.get(name, 1),
                parties=parties,
                others=lambda: self._wake_up(name),
            )
            woken = asyncio.Event()
            self._wake.setdefault(name, []).append(woken)
            self._collectors.append((collector, woken))

        for name, by_kind in by_collection.items():
            apart = {*OUTSIDE.get(name, ()), *(("blur",) if name == "photos" else ())}
            parties = receivers(services.database) if name == "webhook_deliveries" else None
            collect(name, by_kind.keys() - apart, places.get(name, settings.worker.concurrency), parties)
            for kind in OUTSIDE.get(name, ()):
                collect(name, (kind,), PLACES_EACH)
        # Looking for faces and plates takes a hundred times as long as what else photos owe.
        collect("photos", ("blur", "tell_blurred"), settings.photos.blur_threads)
        self._feed = Feed(
            services.database, reports_feed.SOURCE, lease_seconds=settings.feed.lease_seconds, announce=self._announce
        )
        self._topics = TopicKeeper(services.database, lease_seconds=settings.feed.lease_seconds)
        self._changed = asyncio.Event()
        self._planner = Planner(services.database, lambda: services.wake("webhook_deliveries"))

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._sealer.run(self._seal_seconds))
            group.create_task(self._recount.follow(self._gather_seconds))
            group.create_task(self._feed.run())
            group.create_task(self._topics.run(self._gather_seconds))
            if self._services.settings.inference.enabled:
                group.create_task(self._services[InferenceCondition].run())
            group.create_task(self._planner.run(self._changed, self._sweep))
            for collector, woken in self._collectors:
                group.create_task(collector.run(woken, self._sweep))

    async def _announce(self, seq: int) -> None:
        await self._services.cache.publish(CHANNEL, str(seq))

    async def _listen(self) -> None:
        async for channel, name in self._services.cache.listen(WAKE_CHANNEL, CHANNEL):
            if channel == CHANNEL:
                self._changed.set()
            else:
                self._wake_up(name)

    def _wake_up(self, name: str) -> None:
        for woken in self._wake.get(name, ()):
            woken.set()


def stand_back() -> None:
    """Let the other processes of this machine go first: people wait for the application, nobody for the worker.

    Niceness alone does not do it: on Linux a nice process keeps the processor for milliseconds when another wakes up,
    and an idle one (``SCHED_IDLE``) gives way at once. Threads that are started later are as this one.
    """
    if not hasattr(os, "SCHED_IDLE"):
        os.nice(_NICEST)
        return
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if os.getsid(0) == os.getpid() and _AUTOGROUP.exists():
        # Linux shares the processor among sessions first, and the rest counts only within one: this one is ours alone.
        with contextlib.suppress(OSError):  # a kernel that has it switched off refuses; then there is nothing to do
            _AUTOGROUP.write_text(str(_NICEST), "ascii")


def told_to_stop() -> asyncio.Event:
    """Set once this process gets SIGTERM or SIGINT. After that it ends in :data:`_STOP_SECONDS` whatever it is at: a
    thread cannot be ended, and a process waits for its threads. Nothing is lost by it that a crash would not lose, and
    that is nothing."""
    stop = asyncio.Event()

    def told() -> None:
        stop.set()
        signal.setitimer(signal.ITIMER_REAL, _STOP_SECONDS)  # the kernel ends who does not listen to SIGALRM

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)
    return stop


async def stop_when_grown(megabytes: float, jobs: JobService) -> None:
    """Have this process end in order once it holds more than that: whoever keeps it running starts it anew."""
    await until_over(megabytes)
    jobs.hold_to_account()
    signal.raise_signal(signal.SIGTERM)


async def work(settings: Settings, *, catching_up: bool = False) -> None:
    """Run the worker until told to stop. What it was at falls due again when its lease runs out.

    With ``catching_up`` it is the help of another worker: it does not stand back, and ends when that has caught up.
    """
    relief = Relief() if settings.worker.stands_back and not catching_up else None
    if relief is not None:
        stand_back()
    stop = told_to_stop()
    async with AsyncExitStack() as stack:
        opened = await open_once_there(settings, stack, stop)
        if opened is None:
            return
        services = opened
        if catching_up:
            parts = [catch_up(services.database, payers(services), settings)]
        else:
            parts = [
                Worker(services).run(),
                run_timetable(services, settings),
                services[TimeLimits].run(settings.worker.warn_seconds),
                stop_when_grown(settings.worker.memory_mb, services.jobs),
            ]
        if relief is not None:
            patience = timedelta(seconds=settings.worker.patience_seconds)
            parts.append(relief.watch(services.database, urgent(payers(services)), patience))
        tasks = [asyncio.create_task(part) for part in parts]
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done - {stopped}:
            task.result()  # a task that ended by itself has failed: say why, and let the supervisor start anew
