"""The one clock. Inside, times are timezone-aware UTC; at the edge they are shown in Asia/Shanghai.

Tests replace :func:`now` by moving :class:`Clock`; nothing else in the product reads the wall clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

SHANGHAI = ZoneInfo("Asia/Shanghai")


class Clock:
    """Tells the time in UTC, cut to milliseconds because MongoDB keeps no more.

    ``offset`` moves it; only tests and the demo loader do.
    """

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def now(self) -> datetime:
        """The present moment, aware, UTC, whole milliseconds."""
        t = datetime.now(UTC) + self.offset
        return t.replace(microsecond=t.microsecond // 1000 * 1000)


clock = Clock()


def now() -> datetime:
    """The present moment of the process's clock, aware, UTC, whole milliseconds."""
    return clock.now()


def shanghai(moment: datetime) -> datetime:
    """``moment`` as read off a clock in Asia/Shanghai."""
    return moment.astimezone(SHANGHAI)
