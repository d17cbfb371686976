"""Help at ordinary priority for a worker that stands back and gets no processor time: cases do not wait for long.

A process without privileges cannot leave ``SCHED_IDLE`` again (sched(7): only as far as ``RLIMIT_NICE`` allows). But a
thread that has never been idle can start a program that is not idle either, and one such thread is kept.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from pymongo.errors import PyMongoError

from core.clock import now
from core.config import Settings
from core.database import Database
from core.queue.debts import DebtCollector, Payer
from core.room import settled_together
from core.services import Services
from server.launcher.process import dying_with_parent

log = structlog.get_logger(__name__)

PROGRAM = (sys.executable, "-m", "server", "worker", "--catch-up")

_LOOKS = 6  # in the time that a debt may wait
_STAYS = 60.0  # seconds with nothing overdue, after which help is no more needed
_GRACE = 2.0  # seconds to end in, of those that the worker itself has


@dataclass(frozen=True)
class Urgent:
    """A kind of debt that a case or a person waits for: not pictures, jobs and what goes to partners."""

    collection: str
    kind: str
    payer: Payer
    outside: bool
    places: int


def urgent(services: Services) -> list[Urgent]:
    """What nothing in any room may leave lying for long."""
    return [
        Urgent(settled.collection, kind, payer, settled.outside, settled.places)
        for settled in settled_together(services)
        for kind, payer in settled.payers.items()
        if kind not in settled.can_wait
    ]


async def is_behind(database: Database, debts: Sequence[Urgent], by: timedelta) -> bool:
    """Whether any of ``debts``, but for what is paid outside, has been due for so long, and nobody has taken it up."""
    moment = now() - by
    kinds: dict[str, list[str]] = {}
    for debt in debts:
        if not debt.outside:
            kinds.setdefault(debt.collection, []).append(debt.kind)
    for name, ours in kinds.items():
        overdue = {"$elemMatch": {"due_at": {"$lte": moment}, "kind": {"$in": sorted(ours)}}}
        if await database[name].find_one({"owed": overdue}, {"_id": 1}) is not None:
            return True
    return False


class Relief:
    """Starts help when debts have waited for too long. To be made before the worker stands back."""

    def __init__(self, program: tuple[str, ...] = PROGRAM) -> None:
        self._program = program
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(os.getpid).result()  # the thread is there from now on
        self._help: subprocess.Popen[Any] | None = None

    async def watch(self, database: Database, debts: Sequence[Urgent], patience: timedelta) -> None:
        """Start help whenever one of ``debts`` has been due for ``patience``, until cancelled; then end it."""
        try:
            while True:
                await asyncio.sleep(patience.total_seconds() / _LOOKS)
                try:
                    if not self.is_there and await is_behind(database, debts, patience):
                        log.warning("worker.behind", seconds=patience.total_seconds())
                        await self.start()
                except PyMongoError as error:
                    log.warning("worker.database", error=type(error).__name__)
                except (OSError, subprocess.SubprocessError) as error:  # likeliest on the machine that it is there for
                    log.warning("worker.no_help", error=repr(error))
        finally:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
            self._thread.shutdown()

    @property
    def is_there(self) -> bool:
        """Whether the help that was started last is still at it."""
        return self._help is not None and self._help.poll() is None

    async def start(self) -> int:
        """Start help, which dies with this process; its process id."""
        loop = asyncio.get_running_loop()
        self._help = await loop.run_in_executor(self._thread, self._spawn)
        return self._help.pid

    def _spawn(self) -> subprocess.Popen[Any]:
        # In the session of a worker that leads one it would stand back with it.
        alone = os.getsid(0) == os.getpid()
        return subprocess.Popen(  # noqa: S603 - ours
            self._program,
            stdin=subprocess.DEVNULL,
            start_new_session=alone,
            preexec_fn=dying_with_parent(),  # noqa: PLW1509 - it makes system calls and takes no lock
        )

    def _end(self) -> None:
        if self._help is not None and self._help.poll() is None:
            self._help.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._help.wait(_GRACE)
            self._help.kill()
            self._help.wait()


async def catch_up(database: Database, debts: Sequence[Urgent], settings: Settings, *, stays: float = _STAYS) -> None:
    """Pay ``debts`` until none of them has been overdue for ``stays`` seconds."""
    worker = settings.worker
    lease, soon = timedelta(seconds=worker.lease_seconds), timedelta(seconds=worker.patience_seconds / _LOOKS)
    loop = asyncio.get_running_loop()

    def collector(debt: Urgent) -> DebtCollector:
        return DebtCollector(database[debt.collection], {debt.kind: debt.payer}, lease=lease, concurrency=debt.places)

    async with asyncio.TaskGroup() as group:
        # A collector for each kind: whoever is slow outside holds up nothing else.
        tasks = [group.create_task(collector(debt).run(asyncio.Event(), worker.sweep_seconds)) for debt in debts]
        behind_at = loop.time()
        while loop.time() < behind_at + stays:
            await asyncio.sleep(min(soon.total_seconds(), stays / _LOOKS))
            with suppress(PyMongoError):  # whoever cannot be asked is no reason to go
                if not await is_behind(database, debts, soon):
                    continue
            behind_at = loop.time()
        for task in tasks:
            task.cancel()
    log.info("worker.caught_up")
