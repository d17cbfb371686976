"""The worker: pays the debts that documents owe, and keeps the timetable.

Debts are found in MongoDB; a word over Redis only makes the worker look at once. Any number of workers may run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog

from core.config import Settings
from core.queue.debts import WAKE_CHANNEL, DebtCollector
from core.queue.jobs import JobService
from core.room import settled_together
from core.services import Services
from server.heap import until_over
from server.relief import Relief, catch_up, urgent
from server.start import open_once_there
from server.timetable import run_timetable

log = structlog.get_logger(__name__)

_AUTOGROUP = Path("/proc/self/autogroup")
_NICEST = 19
_STOP_SECONDS = 4.0
"""What a worker that is told to stop has to give back what it holds; then it is ended."""


class Worker:
    """Settles debts in every collection, woken by Redis and the clock; seals the audit log, counts, records changes."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services = services
        self._sweep = settings.worker.sweep_seconds
        self._wake: dict[str, list[asyncio.Event]] = {}
        self._hear: dict[str, list[asyncio.Event]] = {}
        self._collectors: list[tuple[DebtCollector, asyncio.Event]] = []
        for settled in settled_together(services):
            collector = DebtCollector(
                services.database[settled.collection],
                settled.payers,
                lease=timedelta(seconds=settings.worker.lease_seconds),
                concurrency=settled.places,
                claimed_together=settled.claimed_together,
                parties=settled.parties,
                others=partial(self._wake_up, settled.collection),
            )
            woken = asyncio.Event()
            self._wake.setdefault(settled.collection, []).append(woken)
            self._collectors.append((collector, woken))

    async def run(self, *, by_clock: bool = True) -> None:
        """Work until cancelled; without what goes ``by_clock`` where a test moves that."""
        async with asyncio.TaskGroup() as group:
            for task in (task for room in self._services.rooms for task in room.tasks):
                if by_clock or not task.by_clock:
                    group.create_task(task.run(self._services, self))
            for collector, woken in self._collectors:
                group.create_task(collector.run(woken, self._sweep))
            group.create_task(self._listen())

    def woken_by(self, channel: str) -> asyncio.Event:
        """Set whenever something is said on ``channel``; to be asked for at once when a task begins."""
        woken = asyncio.Event()
        self._hear.setdefault(channel, []).append(woken)
        return woken

    async def _listen(self) -> None:
        await asyncio.sleep(0)  # by then the tasks have begun
        async for channel, said in self._services.cache.listen(WAKE_CHANNEL, *self._hear):
            for woken in self._hear.get(channel, ()):
                woken.set()
            if channel == WAKE_CHANNEL:
                self._wake_up(said)

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
            parts = [catch_up(services.database, urgent(services), settings)]
        else:
            parts = [
                Worker(services).run(),
                run_timetable(services, settings),
                stop_when_grown(settings.worker.memory_mb, services.jobs),
            ]
        if relief is not None:
            patience = timedelta(seconds=settings.worker.patience_seconds)
            parts.append(relief.watch(services.database, urgent(services), patience))
        tasks = [asyncio.create_task(part) for part in parts]
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done - {stopped}:
            task.result()  # a task that ended by itself has failed: say why, and let the supervisor start anew
