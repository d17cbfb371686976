"""``python -m bench.clock``: how many time limits one core answers for in a second, beside bare datetime addition.

A list of cases, a timetable or a recount after a new holiday asks for thousands at once; the aim is 100,000 a second.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from operator import add

from rich.console import Console
from rich.table import Table

from worktime.limits import Limit, Pause, Unit, WorkCalendar, due_at, elapsed_share

CASES = 20_000
ROUNDS = 3
AIM = 100_000
UNITS: tuple[Unit, ...] = ("urgent_hour", "natural_day", "work_hour", "work_day")

_NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
_LATER = timedelta(days=2)


@dataclass(frozen=True)
class Rate:
    """Answers a second of processor time, the best of some rounds; nothing else of the machine is in it."""

    title: str
    rate: float


def _rate(title: str, answer: Callable[[datetime], object], starts: Sequence[datetime]) -> Rate:
    best = 0.0
    for _ in range(ROUNDS):
        begin = time.process_time()
        for start in starts:
            answer(start)
        best = max(best, len(starts) / (time.process_time() - begin))
    return Rate(title, best)


def measure() -> tuple[Rate, list[Rate]]:
    """(bare addition, ours) for starts spread over a year with its holidays."""
    chance = random.Random(1)
    starts = [_NEW_YEAR + timedelta(seconds=chance.randrange(365 * 86_400)) for _ in range(CASES)]
    holidays = frozenset(date(2026, month, day) for month in (1, 5, 10) for day in range(1, 6))
    calendar = WorkCalendar(holidays=holidays)
    pauses: list[Pause] = [(_NEW_YEAR + timedelta(days=90), _NEW_YEAR + timedelta(days=120))]
    ours = [rate for unit in UNITS for rate in _of(Limit(value=3, unit=unit), calendar, pauses, starts)]
    return _rate("bare addition", partial(add, timedelta(hours=3)), starts), ours


def _of(limit: Limit, calendar: WorkCalendar, pauses: Sequence[Pause], starts: Sequence[datetime]) -> list[Rate]:
    def due(start: datetime) -> datetime:
        return due_at(start, limit, calendar)

    def due_after_a_pause(start: datetime) -> datetime:
        return due_at(start, limit, calendar, pauses)

    def share(start: datetime) -> float:
        return elapsed_share(start, limit, calendar, start + _LATER)

    return [
        _rate(f"due_at, {limit.unit}", due, starts),
        _rate(f"due_at, {limit.unit}, a pause", due_after_a_pause, starts),
        _rate(f"elapsed_share, {limit.unit}", share, starts),
    ]


def table(bare: Rate, ours: Sequence[Rate]) -> Table:
    """The rates as people read them."""
    shown = Table(box=None, pad_edge=False)
    for name in ("", "cases/s", "CPU µs"):
        shown.add_column(name, justify="left" if not name else "right")
    for name in ("limit", "ours is"):
        shown.add_column(name, justify="right", style="cyan")
    for each in ours:
        slow = each.rate < AIM
        shown.add_row(
            each.title,
            f"[{'red' if slow else 'bold'}]{each.rate:,.0f}",
            f"{1e6 / each.rate:.1f}",
            f"{bare.rate:,.0f}",
            f"{each.rate / bare.rate:.1%}",
        )
    return shown


def main() -> int:
    """Measure and print."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    with console.status("The clock …"):
        bare, ours = measure()
    console.print("\nThe clock of time limits, on one core; the aim is 100,000 cases a second.")
    console.print(table(bare, ours))
    console.print("Limit: the addition of a timedelta, which knows no calendar, in the same loop.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
