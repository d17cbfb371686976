"""The product's clock in the hands of the tests: moved, and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from core.clock import clock, now


def move_to(moment: datetime) -> None:
    """It is ``moment`` now, and time goes on from there."""
    clock.offset += moment - now()


def wait(**delta: float) -> None:
    """Let time pass, such as until a dead worker's lease has run out."""
    clock.offset += timedelta(**delta)


@contextmanager
def unmoved_clock() -> Iterator[None]:
    """Put the clock back at the end."""
    before = clock.offset
    try:
        yield
    finally:
        clock.offset = before


@contextmanager
def later(**delta: float) -> Iterator[None]:
    """Move the clock on by a ``timedelta``, and back at the end."""
    with unmoved_clock():
        wait(**delta)
        yield
