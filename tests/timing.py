"""What tests take: how long they wait, and bounds on effort that hold on any machine, in units of measured work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 400.0
"""Seconds in which what a test waits for has to come: against hanging, not a bound that the product promises."""


async def until(holds: Callable[[], Awaitable[Any]]) -> Any:
    """What ``holds`` gives, once that is true; asked again and again. For what the worker or WeChat does meanwhile."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if found := await holds():
                return found
            await asyncio.sleep(0.02)


def _unit() -> None:
    """About 20 ms of a 2020s' server: a plain loop, which a busy or slow machine slows as it slows everything."""
    total = 0
    for number in range(400_000):
        total += number & 3


@contextmanager
def within(units: float, clock: Callable[[], float] = time.process_time) -> Iterator[None]:
    """What is done inside takes no more processor time of this process than ``units`` of :func:`_unit`.

    ``clock`` is :func:`time.monotonic` where another process does the work. The unit is measured before and after, and
    the dearer one counts: the bound is against work that grows without end, not against a neighbour's noise.
    """
    began = clock()
    _unit()
    between = clock()
    yield
    ended = clock()
    _unit()
    unit = max(between - began, clock() - ended)
    assert ended - between <= units * unit, f"{(ended - between) / unit:.0f} units of work, where {units} are allowed"
