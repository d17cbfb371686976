"""Keeps the process's clock by the database's, and notices when the machine's own clock shows something else.

A moment is asked for and taken to lie in the middle between question and answer, give or take half of what that took
(F. Cristian, Probabilistic clock synchronization, 1989). What can be explained by that is no difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog
from pymongo.errors import PyMongoError

from core.clock import EPOCH, clock, steady_ns
from core.database import Database

log = structlog.get_logger(__name__)

MOST_APART = timedelta(minutes=1)
"""Further apart than this, one of the two is wrong, and nobody can tell which: nothing is done by the clock alone."""

_EVERY = 60.0  # seconds
_NS = 1_000_000  # nanoseconds in a millisecond


class Timekeeper:
    """Compares the clocks of this machine and of the database's primary."""

    def __init__(self, database: Database) -> None:
        self._admin = database.client.admin
        self.agrees = True
        """Whether the two were no more than :data:`MOST_APART` apart when they were last compared."""

    async def compare(self) -> bool:
        """Compare them now, and set the process's clock by the database's; whether they agree.

        Raises ``PyMongoError`` when the database does not answer; what was known then stays so.
        """
        asked = steady_ns()
        hello = await self._admin.command("hello")
        answered, machine, ours = steady_ns(), clock.machine_ns() // _NS, clock.milliseconds()
        half = (answered - asked) // 2 // _NS + 1
        theirs = (hello["localTime"].replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1) + half
        if abs(theirs - ours) > half:
            clock.put_forward(theirs - ours)
            log.info("clock.set", milliseconds=theirs - ours)
        agrees: bool = abs(theirs - machine) - half <= MOST_APART / timedelta(milliseconds=1)
        if not agrees:
            log.error(
                "clock.wrong", seconds=(machine - theirs) / 1000, database=datetime.fromtimestamp(theirs / 1000, UTC)
            )
        elif not self.agrees:
            log.info("clock.right_again")
        self.agrees = agrees
        return agrees

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self.compare()
            except PyMongoError as error:
                log.warning("clock.not_compared", error=type(error).__name__)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Inside, the process's clock is the database's. Raises ``PyMongoError`` when that does not answer."""
        await self.compare()
        running = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
