"""What waits for an event can be stopped at any moment."""

from __future__ import annotations

import asyncio

from core.waiting import until_set


async def test_it_comes_back_with_the_event_and_without():
    event = asyncio.Event()
    await until_set(event, 0.001)
    event.set()
    await until_set(event, 1000)


async def test_a_cancellation_that_comes_with_the_event_stops_it_all_the_same():
    event = asyncio.Event()

    async def for_ever() -> None:
        while True:
            await until_set(event, 1000)
            event.clear()

    task = asyncio.create_task(for_ever())
    await asyncio.sleep(0)
    event.set()
    await asyncio.sleep(0)  # the waiter is about to be told
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
