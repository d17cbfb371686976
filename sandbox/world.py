"""Everything the sandbox holds, in one object that every handler is given."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx

from sandbox.access_tokens import AccessTokens
from sandbox.errors import Refusal
from sandbox.faults import Faults
from sandbox.people import People
from sandbox.pushes import Pushes
from sandbox.records import Records
from sandbox.settings import Settings
from sandbox.verdicts import Verdicts

FETCHES_AT_ONCE = 8


class World:
    """The state of one mini-program's account. All of it is in memory, bounded, and gone when the program ends.

    ``client`` fetches pictures and delivers pushes. The clock can be moved forward (``/control/clock``), so that what
    takes minutes or hours can be tried at once; pushes are signed with the true time.
    """

    def __init__(self, settings: Settings, client: httpx.AsyncClient) -> None:
        self.settings = settings
        self.client = client
        self.ahead_s = 0.0
        self.people = People(settings.appid, self.now)
        self.tokens = AccessTokens(self.now)
        self.records = Records(self.now)
        self.faults = Faults()
        self.verdicts = Verdicts()
        self.pushes = Pushes(settings, self.records, client)
        self.fetching = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._minute = 0
        self._calls_this_minute: Counter[str] = Counter()

    def now(self) -> float:
        """Unix seconds by the sandbox's clock."""
        return time.time() + self.ahead_s

    def count_against_quota(self, path: str, limit: int, errcode: int) -> None:
        """Refuse with that errcode the calls of a path beyond the limit in one minute, where quotas are held."""
        if not self.settings.minute_quotas:
            return
        minute = int(self.now() // 60)
        if minute != self._minute:
            self._minute = minute
            self._calls_this_minute.clear()
        self._calls_this_minute[path] += 1
        if self._calls_this_minute[path] > limit:
            raise Refusal(errcode)

    async def reset(self) -> None:
        """Back to the beginning, but for the settings and the access token: a reset must be no token outage."""
        await self.pushes.cancel()
        self.people.clear()
        self.records.clear()
        self.faults.clear()
        self.verdicts.clear()
        self._calls_this_minute.clear()
        self.tokens.turn_back(self.ahead_s)
        self.ahead_s = 0.0
