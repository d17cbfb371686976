"""``python -m bench.indicators``: the performance indicators of a large district, on a million cases.

The demo district has 48 grids and one clerk for each unit; what costs most is groups. So cases are made for a district
as large as published ones are (4,226 grids, 80 units, 17 streets, 500 people who handle), with the fields that the
statistics read and no others, and counted by the product's own ``rebuild-statistics``. The district is kept in
``var/indicators-1000000``. Each question is put to the service as the endpoint does, one at a time; printed are its
latency and the processor time that it takes, this process's and mongod's.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench.load import Measured
from bench.stage import cpu_seconds
from core.clock import now, shanghai
from core.database import Database, connect
from core.errors import Invalid
from reports.lifecycle.milestones import no_milestones
from reports.statistics.reading import By, Selection, Statistics
from reports.statistics.recount import STATE, STATE_ID, Recount
from reports.statistics.rows import FORMAT
from server.demo.geography import DISTRICT
from server.launcher.embedded import start_mongod
from server.launcher.run import ROOT

AIM_MS = 300
STREETS, GRIDS, UNITS, PEOPLE = 17, 4226, 80, 500
"""As published of districts that work this way: numbers of grids and units of one, cases of another."""
YEARS = 3
PAGE = 100
CACHE_GB = 2.0
_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
_BATCH = 5000
_CATEGORIES = (
    *("exposed_garbage", "overflow_bin", "road_damage", "manhole", "illegal_parking", "street_vendor"),
    *("small_ads", "waterlogging", "greenery_damage", "construction_waste", "street_light", "other"),
)


def cases(count: int, until: datetime, seed: int = 1) -> Iterator[dict[str, Any]]:
    """``count`` cases of the large district, oldest first, as far as the statistics read them."""
    rng = random.Random(seed)
    grids = [_grid(n) for n in range(GRIDS)]
    step = timedelta(days=365 * YEARS) / count
    at = until - step * count
    for serial in range(count):
        at += step
        yield _case(rng, serial, at, grids[int(GRIDS * rng.random() ** 1.5)], until)


def _grid(n: int) -> str:
    """The code of a grid: streets of some communities of some grids each."""
    street, rest = n % STREETS + 1, n // STREETS
    return f"{DISTRICT[0]}{street:03d}{rest // 20 + 1:03d}{rest % 20 + 1:03d}"


def _case(rng: random.Random, serial: int, at: datetime, grid: str, until: datetime) -> dict[str, Any]:
    person = rng.randrange(PEOPLE)
    category = rng.randrange(len(_CATEGORIES))
    filed = at + timedelta(minutes=rng.randrange(1, 60))
    dispatched = filed + timedelta(minutes=rng.randrange(1, 240))
    due = dispatched + timedelta(hours=rng.choice((2, 12, 24, 72)))
    handled = dispatched + (due - dispatched) * rng.uniform(0.1, 1.2)
    closed = handled + timedelta(hours=rng.randrange(1, 30))
    is_closed, is_handled = closed < until, handled < until
    unit = f"unit_{person % UNITS:02d}"
    helper = [{"unit_id": f"unit_{(person + 1) % UNITS:02d}", "name": "", "lead": False, "done": is_handled}]
    return {
        "_id": f"{DISTRICT[0]}{at:%Y%m%d}{serial % 1_000_000:06d}",
        "state": "closed" if is_closed else "handled" if is_handled else "accepted",
        "created_at": at,
        "due_at": due,
        "handled_at": handled if is_handled else None,
        "areas": [grid[:6], grid[:9], grid[:12], grid],
        "unit_id": unit,
        "units": [{"unit_id": unit, "name": "", "lead": True, "done": is_handled}, *helper] if serial % 50 == 0 else [],
        "category": _CATEGORIES[category],
        "rating": {"resolved": "yes", "score": rng.randrange(1, 6), "at": closed} if is_closed and serial % 3 else None,
        "pauses": [],
        "merged_into": None,
        "assignee": {"id": f"person{person:03d}", "name": ""},
        "milestones": {
            **no_milestones(),
            "filed_at": filed,
            "filed_by": "system",
            "dispatched_at": dispatched,
            "dispatched_by": f"dispatcher{serial % 10}" if serial % 5 == 0 else "system",
            "dispatch_due_at": filed + timedelta(hours=2),
            "handled_at": handled if is_handled else None,
            "handled_by": f"person{person:03d}" if is_handled else None,
            "closed_at": closed if is_closed else None,
            "close_due_at": handled + timedelta(days=1) if is_handled else None,
            "reworks": int(rng.random() < 0.05),
            "extensions": int(rng.random() < 0.03),
        },
    }


def _batches(made: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(itertools.islice(made, _BATCH)):
        yield batch


async def make(database: Database, count: int, console: Console) -> None:
    """Put the cases there, and count them; what is there already stays."""
    reports = database["reports"]
    if await reports.estimated_document_count() < count:
        await reports.drop()
        with Progress(*_COLUMNS, console=console) as bar:
            task = bar.add_task("Making cases", total=count)
            for batch in _batches(cases(count, now() - timedelta(minutes=5))):
                await reports.insert_many(batch, ordered=False)
                bar.advance(task, len(batch))
    await count_anew(database, console)


async def count_anew(database: Database, console: Console) -> None:
    """Have the statistics of ``database`` in place, and say what making them took; nothing where they are."""
    state = await database[STATE].find_one({"_id": STATE_ID}) or {}
    if state.get("generation") is None or state.get("format") != FORMAT:
        began = time.perf_counter()
        with Progress(*_COLUMNS, console=console) as bar:
            task = bar.add_task("Counting cases", total=None)
            counted = await Recount(database).rebuild(lambda done, all_: bar.update(task, completed=done, total=all_))
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        console.print(f"rebuild-statistics: {counted:,} cases in {seconds:.0f} s; this process at most {peak:.0f} MiB")


@dataclass(frozen=True)
class Asked:
    """A question: what to group by, and what to narrow it to; ``after`` a group, as on a later page."""

    title: str
    by: By | None
    narrowed: dict[str, Any]
    after: str | None = None


def questions() -> list[Asked]:
    """Each grouping, over the whole district and narrowed, and what no sums answer."""
    street, grid = f"{DISTRICT[0]}003", f"{DISTRICT[0]}003002001"
    whole: list[By | None] = [None, "unit", "street", "category", "grid", "person"]
    asked = [Asked("the district", by, {}) for by in whole]
    asked += [Asked("a street", by, {"areas": ((street,),)}) for by in whole]
    asked += [Asked("a unit", by, {"unit": "unit_07"}) for by in (None, "street", "category", "person")]
    asked += [Asked("a category", by, {"category": "manhole"}) for by in (None, "unit", "street")]
    asked += [
        Asked("a late page", "grid", {}, after=f"{DISTRICT[0]}016001001"),
        Asked("a late page", "person", {}, after="person450"),
        Asked("a street and a unit", "category", {"areas": ((street,),), "unit": "unit_07"}),
        Asked("a street and a category", "unit", {"areas": ((street,),), "category": "manhole"}),
        Asked("a grid", "category", {"areas": ((grid,),)}),
        Asked("a unit, by the facts", "grid", {"unit": "unit_07"}),
        Asked("a unit and a street, by the facts", "grid", {"areas": ((street,),), "unit": "unit_07"}),
        Asked("a category, by the facts", "person", {"category": "manhole"}),
        Asked("a category, by the facts", "grid", {"category": "manhole"}),
        Asked("a person, by the facts", "category", {"person": "person300"}),
    ]
    return asked


def periods() -> dict[str, tuple[date, date]]:
    """Periods with whole months, and such whose ends lie within months."""
    today = shanghai(now()).date()
    tomorrow = today + timedelta(days=1)
    return {
        "30 days": (today - timedelta(days=29), tomorrow),
        "120 days": (today - timedelta(days=119), tomorrow),
        "a year": (today - timedelta(days=364), tomorrow),
    }


async def measure(statistics: Statistics, mongod: int, seconds: float, console: Console) -> list[tuple[str, ...]]:
    """Ask each question over each period, one after the other, for some seconds; rows of a table."""
    rows: list[tuple[str, ...]] = []
    with console.status("") as status:
        for asked, (name, (since, until)) in itertools.product(questions(), periods().items()):
            status.update(f"{asked.title}, by {asked.by}, {name}")
            selection = Selection(since, until, **asked.narrowed)

            async def ask(asked: Asked = asked, selection: Selection = selection) -> int:
                figures = await statistics.figures(selection, asked.by, after=asked.after, size=PAGE)
                return len(figures.groups)

            try:
                groups = await ask()
            except Invalid:
                continue  # too long for the facts, and refused
            measured, before = Measured(), cpu_seconds([mongod, os.getpid()])
            began = time.perf_counter()
            while (sent := time.perf_counter()) < began + seconds or len(measured.latencies) < 5:
                await ask()
                measured.latencies.append(time.perf_counter() - sent)
            cpu = (cpu_seconds([mongod, os.getpid()]) - before) / len(measured.latencies) * 1e3
            p50, p95 = (measured.percentile(share) for share in (0.5, 0.95))
            shown = f"[red]{p95:.0f}" if p95 > AIM_MS else f"{p95:.0f}"
            rows.append((asked.title, str(asked.by or "-"), name, str(groups), f"{p50:.0f}", shown, f"{cpu:.0f}"))
    return rows


async def main(options: argparse.Namespace) -> int:
    """Make the district where it is not there yet, and measure; exit status 1 when an answer takes too long."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    folder = ROOT / "var" / f"indicators-{options.reports}"
    logs = ROOT / "var" / "log" / "bench"
    logs.mkdir(parents=True, exist_ok=True)
    mongod = await start_mongod(folder, logs, cache_gb=CACHE_GB)
    try:
        database = connect(mongod.url, "indicators")
        await make(database, options.reports, console)
        rows = await measure(Statistics(database), mongod.process.pid, options.seconds, console)
        database.client.close()
    finally:
        await mongod.stop()
    table = Table(box=None, pad_edge=False)
    for name in ("within", "by", "period", "groups", "p50 ms", "p95", "CPU ms"):
        table.add_column(name, justify="left" if name in ("within", "by", "period") else "right")
    for row in rows:
        table.add_row(*row)
    console.print(f"\n{options.reports:,} cases, {GRIDS:,} grids, {UNITS} units, {PEOPLE} people; pages of {PAGE}")
    console.print(table)
    return 1 if any(row[5].startswith("[red]") for row in rows) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.indicators", description="Measure the indicators.")
    parser.add_argument("--reports", type=int, default=1_000_000, help="how many cases (1,000,000)")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each question is asked for (2)")
    sys.exit(asyncio.run(main(parser.parse_args())))
