"""What waits for an event can be stopped at any moment."""

from __future__ import annotations

import asyncio

from core.cache import Allowance, Cache
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
    await asyncio.wait([task], timeout=60)
    assert task.cancelled()


async def test_listening_to_redis_stops_whenever_it_is_told_to(redis_url):
    cache = Cache.connect(redis_url)

    async def listen() -> None:
        async for _ in cache.listen("a", "b"):
            pass

    for turns in range(80):  # of the event loop, until it is told: connecting, sending, waiting for the answer
        task = asyncio.create_task(listen())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=60)
        assert task.cancelled(), f"told after {turns} turns"
    await cache.close()


async def test_publishing_and_counting_end_whenever_they_are_told_to(redis_url):
    cache = Cache.connect(redis_url)

    async def for_ever() -> None:
        while True:
            await cache.publish("a", "b")
            await cache.take("somebody", [Allowance("a", 100, 60)])

    for turns in range(80):
        task = asyncio.create_task(for_ever())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=60)
        assert task.cancelled(), f"told after {turns} turns"
    await cache.close()
