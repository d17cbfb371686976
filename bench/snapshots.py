"""``python -m bench.snapshots``: cameras' snapshots, so many a second for so long, taken in and looked at.

They fall due evenly, whether or not the last ones are answered, and what one has to wait counts. Sustained means that
all are acknowledged and that what waits to be looked at does not grow: the bench tells both, and how long the worker
goes on after the last. Beside it stand the limits of the parts: a bare handler that does nothing but keep the same
picture and the same document, and the classifier alone.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Table

from accounts.models import StaffSession
from bench.district import picture, place, settle_in
from bench.load import Load, Measured, request
from bench.stage import Stage, cpu_seconds, memory, open_stage
from core.clock import now
from core.ids import new_id
from core.services import Services
from inference.photos import PhotoClassifier
from places.coordinates import CRS
from places.models import Position
from reports.snapshots.camera_sheets import NewCamera
from reports.snapshots.services import SnapshotServices
from server.rooms import load_settings
from server.services import open_services

CAMERAS = 200
PICTURES = 12
WARM_UP_SECONDS = 3.0
SIFTED_WITHIN = 60.0
_BOUNDARY = "bench-boundary"


@dataclass(frozen=True)
class Figures:
    """What came of it. ``cpu``: seconds of processor time by part. ``backlogs``: once a second, while it lasted."""

    measured: Measured
    cpu: dict[str, float]
    backlogs: list[int]
    sifted: int
    seconds_after: float
    outcomes: dict[str, int]


async def set_up(services: Services) -> tuple[str, list[str]]:
    """A source with cameras: its API key, and their codes."""
    division = services.settings.reports.division
    by = StaffSession("bench", "bench", (), frozenset({"cameras.manage"}), (division,), None)
    source = {"key": "bench", "name": "bench", "per_minute": 100_000, "classes": [], "labels": {}}
    cameras = services[SnapshotServices].cameras
    _, key = await cameras.create_source(by, {**source, "min_score": 0.6, "window_minutes": 60})
    rng = random.Random(5)
    codes = [f"c{n}" for n in range(CAMERAS)]
    for code in codes:
        longitude, latitude = place(rng)
        position = Position(longitude=longitude, latitude=latitude, crs=CRS.WGS84)
        await cameras.create_camera(by, "bench", NewCamera(code, f"路口 {code}", position))
    return key, codes


def feed(key: str, codes: list[str], pictures: list[bytes]) -> Iterator[bytes]:
    """Snapshots without end, each its own: cameras and pictures in turn."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    mark = new_id()
    for n in itertools.count():
        about = {"camera": codes[n % len(codes)], "taken_at": now().isoformat(), "snapshot_id": f"{mark}-{n}"}
        body = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="about"\r\n\r\n'.encode()
            + orjson.dumps(about)
            + f'\r\n--{_BOUNDARY}\r\nContent-Disposition: form-data; name="picture"; filename="s.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n".encode()
            + pictures[n % len(pictures)]
            + f"\r\n--{_BOUNDARY}--\r\n".encode()
        )
        yield request("POST", "/ingest/v1/snapshots", headers, body)


async def sift_all(services: Services) -> float:
    """Wait until nothing waits to be looked at; for how many seconds that took."""
    begin = time.perf_counter()
    while await services[SnapshotServices].intake.backlog(1) and time.perf_counter() < begin + SIFTED_WITHIN:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    return time.perf_counter() - begin


async def measure(
    stage: Stage, services: Services, snapshots: Iterator[bytes], options: argparse.Namespace, console: Console
) -> Figures:
    """The product under ``options.rate`` for ``options.seconds``."""
    load = await Load.connect(stage.application.port, stage.application.pids, options.connections)
    await load.run(snapshots, WARM_UP_SECONDS, rate=options.rate)
    await sift_all(services)
    parts = {
        "application": stage.application.pids,
        "worker": [stage.worker.pid],
        "mongod": [stage.mongod.pid],
        "client": [os.getpid()],
    }
    before = {name: cpu_seconds(pids) for name, pids in parts.items()}
    began = now()
    backlogs: list[int] = []
    running = asyncio.create_task(load.run(snapshots, options.seconds, rate=options.rate))
    with Progress(*Progress.get_default_columns(), TextColumn("{task.fields[waits]} wait"), console=console) as shown:
        task = shown.add_task(f"{options.rate:g} a second", total=options.seconds, waits=0)
        while not running.done():
            await asyncio.wait([running], timeout=1.0)
            backlogs.append(await services[SnapshotServices].intake.backlog(100_000))
            shown.update(task, advance=1.0, waits=backlogs[-1])
    load.close()
    after = await sift_all(services)
    cpu = {name: cpu_seconds(pids) - before[name] for name, pids in parts.items()}
    taken = services.database["snapshots"].aggregate(
        [
            {"$match": {"received_at": {"$gte": began}}},
            {"$group": {"_id": {"$ifNull": ["$reason", "$state"]}, "n": {"$sum": 1}}},
        ]
    )
    outcomes = {row["_id"]: row["n"] async for row in taken}
    sifted = sum(n for outcome, n in outcomes.items() if outcome != "received")
    return Figures(running.result(), cpu, backlogs, sifted, after, outcomes)


async def measure_limit(stage: Stage, snapshots: Iterator[bytes], options: argparse.Namespace) -> Measured:
    """The bare handler, as fast as it will go."""
    load = await Load.connect(stage.limit.port, stage.limit.pids, options.connections)
    await load.run(snapshots, 1.0)
    measured = await load.run(snapshots, min(options.seconds, 10.0))
    load.close()
    return measured


def classifier_alone(pictures: list[bytes], seconds: float = 5.0) -> float:
    """Pictures a second from their bytes, on two threads, with nothing else running."""
    classifier = PhotoClassifier()
    classifier.classify(pictures[0])
    end = time.perf_counter() + seconds

    def work(start: int) -> int:
        done = 0
        while time.perf_counter() < end:
            classifier.classify(pictures[(start + done) % len(pictures)])
            done += 1
        return done

    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(work, (0, 5))) / seconds


def tell(
    console: Console, ours: Figures, limit: Measured, alone: float, held: dict[str, float], options: argparse.Namespace
) -> None:
    """Print it all."""
    m, count = ours.measured, max(len(ours.measured.latencies), 1)
    cores = sum(ours.cpu.values()) / m.seconds
    table = Table(box=None, pad_edge=False)
    for name in ("", "a second", "p50 ms", "p95", "p99", "refused"):
        table.add_column(name, justify="left" if not name else "right")
    for name, each in (("ours: taken in", m), ("limit: bare handler, as fast as it will go", limit)):
        table.add_row(
            name,
            f"{each.rate:.1f}",
            *(f"{each.percentile(share):.0f}" for share in (0.5, 0.95, 0.99)),
            str(sum(each.errors.values())),
        )
    table.add_row("limit: the classifier alone, two threads", f"{alone:.1f}")
    console.print(
        f"\n{options.rate:g} snapshots a second for {options.seconds:g} s over {options.connections} connections, "
        f"{options.kilobytes:.0f} KB each; {options.processes} application processes, a worker, mongod and this client "
        f"on {os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}"
    )
    console.print(table)
    spent = ", ".join(f"{name} {seconds / count * 1e3:.1f}" for name, seconds in ours.cpu.items())
    console.print(f"Processor time of a snapshot, until it was looked at, in ms: {spent}; in all {cores:.2f} cores")
    waits = ours.backlogs or [0]
    console.print(
        f"Waiting to be looked at: at most {max(waits)}, at the end {waits[-1]}; all were {ours.seconds_after:.1f} s "
        f"after the last one came. Looked at: {ours.sifted} of {count} acknowledged: "
        + ", ".join(f"{outcome} {n}" for outcome, n in sorted(ours.outcomes.items()))
    )
    console.print("Resident: " + ", ".join(f"{name} {mb:.0f} MB" for name, mb in held.items()))
    for error, n in m.errors.items():
        console.print(f"{n} x {error}", style="red", markup=False)


async def bench(options: argparse.Namespace) -> int:
    """Measure; exit status 1 when something that was acknowledged was not looked at, or the backlog grew."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    pictures = [picture(seed) for seed in range(PICTURES)]
    options.kilobytes = sum(map(len, pictures)) / len(pictures) / 1e3
    alone = classifier_alone(pictures)
    async with open_stage(options.processes) as stage, open_services(load_settings()) as services:
        await settle_in(services)
        key, codes = await set_up(services)
        ours = await measure(stage, services, feed(key, codes, pictures), options, console)
        mb = {"worker": memory(stage.worker.pid).resident}
        mb |= {f"application {n}": memory(p).resident for n, p in enumerate(stage.application.pids, 1)}
        limit = await measure_limit(stage, feed(key, codes, pictures), options)
    tell(console, ours, limit, alone, mb, options)
    if options.json:
        m = ours.measured
        figures = {
            "rate": m.rate,
            "offered": options.rate,
            "seconds": m.seconds,
            "p50_ms": m.percentile(0.5),
            "p99_ms": m.percentile(0.99),
            "errors": dict(m.errors),
            "backlogs": ours.backlogs,
            "sifted": ours.sifted,
            "seconds_after": ours.seconds_after,
            "cpu_seconds": ours.cpu,
            "limit_rate": limit.rate,
            "classifier_rate": alone,
        }
        options.json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
    lost = len(ours.measured.latencies) - ours.sifted
    if lost > 0:
        console.print(f"{lost} were acknowledged and not looked at", style="red")
    grew = ours.backlogs[-1] > 4 * options.rate if ours.backlogs else False
    if grew:
        console.print("what waits grew: the rate is not sustained", style="red")
    return 1 if lost > 0 or grew or ours.measured.errors else 0


def main() -> int:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.snapshots", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, default=50.0, help="snapshots a second (50)")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--processes", type=int, default=2, help="of the application (2)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return asyncio.run(bench(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
