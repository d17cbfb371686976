"""Waiting for an event or a moment, whichever comes first."""

from __future__ import annotations

import asyncio
import contextlib


async def until_set(event: asyncio.Event, seconds: float) -> None:
    """Come back when ``event`` is set, or after ``seconds``.

    Not ``asyncio.wait_for``: Python 3.11's swallows a cancellation that comes together with the event, and what was
    told to stop goes on for ever.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
