"""A start that waits for MongoDB: it may come up later than we do, or be away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog
from pymongo.errors import ConnectionFailure, WTimeoutError

from core.config import Settings
from core.services import Services
from core.waiting import until_set
from server.services import open_services

log = structlog.get_logger(__name__)

_AWAY = (ConnectionFailure, WTimeoutError)
"""No server, no primary, or no majority: what passes by itself. Anything else ends the process, and says why."""
_PAUSE_SECONDS = 1.0
_TOLD_EVERY = 10


async def open_once_there(
    settings: Settings, stack: AsyncExitStack, stop: asyncio.Event, waiting: Callable[[], None] = lambda: None
) -> Services | None:
    """The services, opened in ``stack``, once MongoDB is there; None when told to stop before.

    ``waiting`` is called each time that it was not.
    """
    tries = 0
    while not stop.is_set():
        opening = asyncio.ensure_future(stack.enter_async_context(open_services(settings)))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not opening.done():
            opening.cancel()
        (opened,) = await asyncio.gather(opening, return_exceptions=True)
        if isinstance(opened, _AWAY):
            if tries % _TOLD_EVERY == 0:
                log.warning("start.waiting_for_mongodb", error=type(opened).__name__, tries=tries + 1)
            tries += 1
            waiting()
            await until_set(stop, _PAUSE_SECONDS)
        elif not isinstance(opened, BaseException):
            return opened
        elif not isinstance(opened, asyncio.CancelledError):
            raise opened
    return None
