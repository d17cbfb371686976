"""The one clock. Inside, times are timezone-aware UTC; at the edge they are shown in Asia/Shanghai.

It is the database's: :class:`core.timekeeper.Timekeeper` sets it, so that machines whose clocks differ agree on what is
due. Between two settings it goes by the time since the machine was started, which nobody can put forward or back.
Tests replace :func:`now` by moving :class:`Clock`; nothing else in the product reads the wall clock.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

SHANGHAI = ZoneInfo("Asia/Shanghai")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_NS = 1_000_000  # nanoseconds in a millisecond


def steady_ns() -> int:
    """Nanoseconds since some moment, which go on evenly, also while the machine sleeps where the system counts that."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.monotonic_ns()


class Clock:
    """Tells the time in UTC, cut to milliseconds because MongoDB keeps no more.

    ``offset`` moves it; only tests and the demo loader do. Until it is set it shows what the machine's own clock showed
    when the process began.
    """

    def __init__(self) -> None:
        self.offset = timedelta(0)
        self._ahead_ns = self.machine_ns() - steady_ns()

    @staticmethod
    def machine_ns() -> int:
        """What the machine's own clock shows, in nanoseconds since 1970."""
        return time.time_ns()

    def put_forward(self, milliseconds: int) -> None:
        """Set the clock; below zero it goes back."""
        self._ahead_ns += milliseconds * _NS

    def milliseconds(self) -> int:
        """The present moment in milliseconds since 1970, whatever ``offset`` is."""
        return (steady_ns() + self._ahead_ns) // _NS

    def now(self) -> datetime:
        """The present moment, aware, UTC, whole milliseconds."""
        return EPOCH + self.milliseconds() * _MILLISECOND + self.offset // _MILLISECOND * _MILLISECOND

    def now_in_database(self) -> dict[str, Any]:
        """The present moment as an aggregation expression: the server's own at the time of the operation."""
        return {"$add": ["$$NOW", self.offset // _MILLISECOND]}


clock = Clock()


def is_stale(written: float, seconds: float) -> bool:
    """Whether a file of this machine that was written at ``written`` (seconds since 1970) is older than that.

    By its own clock, which it was written by, and by ours: one that has been put forward meanwhile is not enough.
    """
    return written < min(clock.machine_ns() / 1e9, clock.milliseconds() / 1e3) - seconds


def now() -> datetime:
    """The present moment of the process's clock, aware, UTC, whole milliseconds."""
    return clock.now()


def shanghai(moment: datetime) -> datetime:
    """``moment`` as read off a clock in Asia/Shanghai."""
    return moment.astimezone(SHANGHAI)
