"""Keeps a process to the model in force: asks the record every few seconds, and has the service exchange its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from pymongo.errors import PyMongoError

from core.config import Settings
from core.database import Database
from core.errors import AppError
from inference.model_files import ModelUnavailable
from inference.model_store import ModelStore
from inference.monitoring import JudgementCounts
from inference.promotions import Promotions, runs_beside
from inference.service import InferenceService

log = structlog.get_logger(__name__)

_AGAIN = 20
"""A model that was refused is tried again every so many looks: its folder may have been put in order meanwhile."""


class ModelReloader:
    """Follows the record of promotions and what is asked to run in shadow, and writes down what was judged."""

    def __init__(
        self,
        service: InferenceService,
        *,
        promotions: Promotions,
        store: ModelStore,
        counts: JudgementCounts,
        every_seconds: float,
    ) -> None:
        self._service = service
        self._promotions = promotions
        self._store = store
        self._counts = counts
        self._every = every_seconds
        self._looks = 0
        self._wanted: str | None = None
        self._judging: str | None = None
        self._shadow: str | None = None
        self._refused = self._shadow_refused = False
        service.observe = counts.judged
        service.observe_shadow = counts.shadowed

    async def run(self) -> None:
        """Look again and again until cancelled; what cannot be asked now is asked later."""
        while True:
            try:
                await self.look()
                await self._counts.flush()
            except PyMongoError as error:
                log.warning("inference.database", error=type(error).__name__)
            except Exception:
                log.exception("inference.following_failed")  # and goes on: the model in use stays
            await asyncio.sleep(self._every)

    async def look(self) -> None:
        """Ask once, and exchange what is to be exchanged."""
        self._looks += 1
        wanted = await self._promotions.present()
        again = self._looks % _AGAIN == 0
        if wanted != self._wanted or (self._refused and again):
            self._wanted = wanted
            self._refused = not await self._service.switch(self._store.folder(wanted))
            if not self._refused:
                self._judging = wanted
        candidate = runs_beside(await self._promotions.shadow(), self._judging)
        if candidate != self._shadow or (self._shadow_refused and again):
            self._shadow = candidate
            self._shadow_refused = not await self._set_shadow(candidate)

    async def _set_shadow(self, candidate: str | None) -> bool:
        if candidate is None:
            self._service.set_shadow(None)
            return True
        try:
            self._service.set_shadow(await asyncio.to_thread(self._store.verified, candidate))
        except (ModelUnavailable, AppError) as error:
            log.error("inference.shadow_refused", candidate=candidate, error=str(error))
            self._service.set_shadow(None)
            return False
        return True


@asynccontextmanager
async def following(settings: Settings, database: Database, service: InferenceService) -> AsyncIterator[None]:
    """Inside, ``service`` judges with the model in force, and changes when that does. Not where judging is off."""
    if not settings.inference.enabled:
        yield
        return
    counts = JudgementCounts(database)
    follower = ModelReloader(
        service,
        promotions=Promotions(database),
        store=ModelStore.of(settings),
        counts=counts,
        every_seconds=settings.inference.follow_seconds,
    )
    await follower.look()
    running = asyncio.create_task(follower.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        try:
            await counts.flush()
        except PyMongoError as error:
            log.warning("inference.counts_lost", error=type(error).__name__)
