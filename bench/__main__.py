"""``python -m bench``: what one machine serves, next to the most that it could.

Beside each of our endpoints stands the limit, measured in the same run under the same load (:mod:`bench.limit`), since
figures of another machine or another hour say little. Processor time for each request is the figure that suffers
least from whatever else the machine is doing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
from rich.console import Console
from rich.table import Table

from bench.district import District, due, populate, settle, settle_in
from bench.load import Load, Measured
from bench.measurements import MEASUREMENTS, Measurement
from bench.stage import Group, Memory, Stage, cpu_seconds, memory, open_stage
from core.services import Services
from server.rooms import load_settings
from server.services import open_services

WARM_UP_SECONDS = 2.0
PAY_SECONDS = 120.0
MEMORY_MB = 150


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    seconds: float
    connections: int
    processes: int
    only: list[str] | None
    json: Path | None


@dataclass(frozen=True)
class Served:
    """What a group of processes did under one load; processor time in milliseconds for each request."""

    measured: Measured
    cpu: float
    mongod_cpu: float


@dataclass(frozen=True)
class Result:
    """One measurement of ours and of the limit. ``lag``: the longest that ours kept a due callback waiting, seconds."""

    measurement: Measurement
    ours: Served
    limit: Served
    lag: float

    @property
    def share(self) -> float:
        """Our rate as a share of the limit's."""
        return self.ours.measured.rate / self.limit.measured.rate if self.limit.measured.rate else 0.0


@dataclass(frozen=True)
class Afterwards:
    """What the loads left behind: debts, the seconds until the worker had paid them, what was then left; memory."""

    debts: int
    seconds: float
    left: int
    memory: dict[str, Memory]

    @property
    def rate(self) -> float:
        """Debts paid a second."""
        return (self.debts - self.left) / self.seconds if self.seconds else 0.0


async def serve(stage: Stage, group: Group, district: District, measurement: Measurement, options: Options) -> Served:
    """Load ``group`` with the measurement's requests."""
    load = await Load.connect(group.port, group.pids, options.connections)
    feed = measurement.feed(district)
    await load.run(feed, WARM_UP_SECONDS)
    cpu, mongod = cpu_seconds(group.pids), cpu_seconds([stage.mongod.pid])
    measured = await load.run(feed, options.seconds)
    load.close()
    each = 1e3 / max(len(measured.latencies), 1)
    return Served(measured, (cpu_seconds(group.pids) - cpu) * each, (cpu_seconds([stage.mongod.pid]) - mongod) * each)


async def loop_lag(stage: Stage) -> float:
    """The longest that a due callback waited in any application process in the last five seconds, from /metrics."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        figures = await http.get(f"http://127.0.0.1:{stage.application.port}/metrics")
    found = re.search(r"^gongzhi_event_loop_lag_seconds\S* (\S+)$", figures.raise_for_status().text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def look_back(stage: Stage, services: Services) -> Afterwards:
    """What the processes hold now, and how fast the worker catches up."""
    held = {f"application {n}": memory(p.pid) for n, p in enumerate(stage.application.processes, 1)}
    held["worker"] = memory(stage.worker.pid)
    debts, begin = await due(services), time.perf_counter()
    left = await settle(services, PAY_SECONDS)
    return Afterwards(debts, time.perf_counter() - begin, left, held)


def table(results: Sequence[Result]) -> Table:
    """The results as people read them."""
    shown = Table(box=None, pad_edge=False)
    for name in ("", "req/s", "p50 ms", "p95", "p99", "errors", "CPU ms", "mongod", "lag ms"):
        shown.add_column(name, justify="left" if not name else "right")
    for name in ("limit", "ours is"):
        shown.add_column(name, justify="right", style="cyan")
    for r in results:
        ours, limit = r.ours.measured, r.limit.measured
        errors = sum(ours.errors.values())
        shown.add_row(
            r.measurement.title,
            f"[bold]{ours.rate:,.0f}",
            *(f"{ours.percentile(share):.1f}" for share in (0.5, 0.95, 0.99)),
            f"[red]{errors}" if errors else "0",
            f"{r.ours.cpu:.2f}",
            f"{r.ours.mongod_cpu:.2f}",
            f"{r.lag * 1e3:.0f}",
            f"{limit.rate:,.0f}",
            f"{r.share:.0%}",
        )
    return shown


def tell(console: Console, results: Sequence[Result], after: Afterwards, options: Options) -> None:
    """Print it all."""
    console.print(
        f"\n{options.connections} connections, each waiting for its answer; {options.seconds:g} s each; "
        f"{options.processes} application processes, {os.cpu_count()} cores shared by servers, databases and the load; "
        f"load average {os.getloadavg()[0]:.1f}. "
        f"The worker {'stands back' if load_settings().worker.stands_back else 'takes its share'}."
    )
    console.print(table(results))
    console.print(
        "CPU ms, mongod: processor time for each request of the application processes, and of mongod (with what the "
        "worker asks of it). Limit: requests a second of a bare handler that does only the same insert, find or file "
        "writes."
    )
    for r in results:
        for error, n in r.ours.measured.errors.items():
            console.print(f"[red]{r.measurement.name}: {n} x {error}", markup=True)
        for error, n in r.limit.measured.errors.items():
            console.print(f"[red]{r.measurement.name}, limit: {n} x {error}")
    for name, m in after.memory.items():
        console.print(f"{name}: {m.resident:.0f} MB resident, {m.proportional:.0f} MB its share")
    ended = f"{after.left} are left" if after.left else "all are paid"
    console.print(f"{after.debts} debts left by the last load; after {after.seconds:.1f} s {ended}: {after.rate:.0f}/s")


def verdict(results: Sequence[Result], after: Afterwards) -> list[str]:
    """What is wrong with the figures: errors, and memory over the bound. Speed is told, not judged."""
    wrong = [f"{r.measurement.name}: not every answer was a success" for r in results if r.ours.measured.errors]
    wrong += [
        f"{name}: more than {MEMORY_MB} MB"
        for name, m in after.memory.items()
        if name != "worker" and m.resident > MEMORY_MB
    ]
    return wrong


def as_json(results: Sequence[Result], after: Afterwards, options: Options) -> bytes:
    """The figures for programs."""

    def served(s: Served) -> dict[str, float | int]:
        times = {f"p{share * 100:.0f}_ms": s.measured.percentile(share) for share in (0.5, 0.95, 0.99)}
        cpu = {"cpu_ms": s.cpu, "mongod_cpu_ms": s.mongod_cpu}
        return {"rate": s.measured.rate, **times, "errors": sum(s.measured.errors.values()), **cpu}

    figures = {
        "options": options,
        "measurements": {
            r.measurement.name: {
                "ours": served(r.ours),
                "limit": served(r.limit),
                "share_of_limit": r.share,
                "loop_lag_ms": r.lag * 1e3,
            }
            for r in results
        },
        "memory_mb": after.memory,
        "debts": {"left": after.debts, "seconds": after.seconds, "per_second": after.rate, "unpaid": after.left},
    }
    return orjson.dumps(figures, option=orjson.OPT_INDENT_2, default=str)


async def bench(options: Options) -> int:
    """Measure; exit status 1 when something is wrong with what was measured."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    chosen = [m for m in MEASUREMENTS if not options.only or m.name in options.only]
    results = []
    with console.status("Starting the servers") as status:
        async with open_stage(options.processes) as stage, open_services(load_settings()) as services:
            await settle_in(services)
            # Each application process is up once it has a connection of ours.
            (await Load.connect(stage.application.port, stage.application.pids, options.processes)).close()
            status.update("Making the district")
            district = await populate(services, stage.sandbox, options.connections)
            for measurement in chosen:
                # What an earlier load left, such as hundreds of photos to blur, is no part of what this one costs.
                status.update(f"{measurement.title}: the worker catches up …")
                if left := await settle(services, PAY_SECONDS):
                    console.print(f"{measurement.title}: begun with {left} debts of earlier loads")
                status.update(f"{measurement.title} …")
                ours = await serve(stage, stage.application, district, measurement, options)
                lag = await loop_lag(stage)
                status.update(f"{measurement.title}: the limit …")
                limit = await serve(stage, stage.limit, district, measurement, options)
                results.append(Result(measurement, ours, limit, lag))
            status.update("The worker catches up …")
            after = await look_back(stage, services)
    tell(console, results, after, options)
    if options.json:
        options.json.write_bytes(as_json(results, after, options))
    wrong = verdict(results, after)
    for line in wrong:
        console.print(f"[red]{line}")
    return 1 if wrong else 0


def main() -> int:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the product and what it could be.")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each load lasts (10)")
    parser.add_argument("--connections", type=int, default=8, help="connections at once (8)")
    parser.add_argument("--processes", type=int, default=2, help="application processes (2)")
    parser.add_argument(
        "--only", action="append", choices=[m.name for m in MEASUREMENTS], help="one measurement; may be repeated"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    given = vars(parser.parse_args())
    return asyncio.run(bench(Options(**given)))


if __name__ == "__main__":
    sys.exit(main())
