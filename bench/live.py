"""``python -m bench.live``: changes a second to many screens on one process, next to a bare Tornado broadcast.

Cases are changed in the database; the worker records what changed, the application tells every client. Every client
reaches every case, which is the most that can be asked: each gets each change. The limit is a process that does nothing
but send the same bytes, at the same moments, to as many clients with Tornado's ``write_message``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
from rich.console import Console
from rich.table import Table
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from bench.district import DISPATCHER, PASSWORD, place, settle, settle_in
from bench.load import Load
from bench.stage import Memory, Stage, cpu_seconds, memory, open_stage
from core.changes.log import ChangeLog
from core.clock import now
from core.ids import new_id
from core.services import Services
from reports.models import NewReport, Reporter
from reports.service import ReportService
from server.launcher.process import choose_port, spawn
from server.launcher.run import ROOT
from server.rooms import load_settings
from server.services import open_services

CASES = 400
SAMPLED = 20


@dataclass
class Screens:
    """Many clients; some of them note when each message came."""

    arrived: list[tuple[float, bytes]] = field(default_factory=list)
    recorded: list[tuple[float, bytes]] = field(default_factory=list)
    messages: int = 0
    received: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def open(self, port: int, path: str, token: str, count: int) -> None:
        """Connect ``count`` clients, some at a time."""
        for start in range(0, count, 50):
            await asyncio.gather(
                *(self._one(port, path, token, n, count) for n in range(start, min(count, start + 50)))
            )

    async def _one(self, port: int, path: str, token: str, n: int, count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        status = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in status.split(b"\r\n", 1)[0]:
            raise SystemExit(f"no connection: {status!r} {await reader.read(300)!r}")
        notes = n % _step(count) == 0
        self.tasks.append(asyncio.create_task(self._read(reader, writer, notes=notes, records=n == 0)))

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, notes: bool, records: bool
    ) -> None:
        while True:
            first, length = await reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await reader.readexactly(2), "big")
            elif length == 127:
                length = int.from_bytes(await reader.readexactly(8), "big")
            payload = await reader.readexactly(length)
            if first & 15 == 9:  # a ping is answered, masked as clients have to
                mask = os.urandom(4)
                body = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
                writer.write(bytes([0x8A, 0x80 | len(body)]) + mask + body)
                continue
            self.messages += 1
            self.received += length
            if notes:
                self.arrived.append((time.perf_counter(), payload))
            if records:
                self.recorded.append((time.perf_counter(), payload))

    async def close(self) -> None:
        """Hang up."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@dataclass(frozen=True)
class Figures:
    """Latencies in milliseconds, messages, bytes, processor seconds, seconds, memory."""

    latencies: list[float]
    messages: int
    received: int
    cpu: float
    seconds: float
    memory: Memory

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        return statistics.quantiles(self.latencies, n=1000)[round(share * 1000) - 1] if len(self.latencies) > 1 else 0.0


async def make_cases(services: Services) -> list[str]:
    """One case the product's own way, and copies of it."""
    rng = random.Random(1)
    longitude, latitude = place(rng)
    report = NewReport(
        description="路口，垃圾，三天，没人清理，味道很大，影响出行，请尽快处理",
        category="other",
        answers={"danger": "no"},
        photo_ids=(),
        longitude=longitude,
        latitude=latitude,
        given={"coordinates": [longitude, latitude], "crs": "wgs84"},
        address="云溪街道解放路 12 号门前",
        contact_phone=None,
        anonymous=False,
    )
    original = await services[ReportService].submit(report, Reporter(new_id(), "bench"))
    copies = [
        {**original, "_id": f"{original['_id'][:14]}{n:06d}", "owed": []} for n in range(100_000, 100_000 + CASES)
    ]
    await services.database["reports"].insert_many(copies)
    await services.database["reports"].delete_one({"_id": original["_id"]})
    return [c["_id"] for c in copies]


async def change(
    services: Services, versions: dict[str, int], rate: float, seconds: float
) -> dict[tuple[str, int], float]:
    """Change cases evenly, each from its version; when each (case, version) was asked for."""
    asked: dict[tuple[str, int], float] = {}
    numbers = list(versions)
    reports = services.database["reports"]
    begin = time.perf_counter()
    running: set[asyncio.Future[Any]] = set()
    for n in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begin + n / rate - time.perf_counter()))
        number = numbers[n % len(numbers)]
        versions[number] += 1
        asked[number, versions[number]] = time.perf_counter()
        by = {"kind": "staff", "id": "bench", "name": "派遣员"}
        entry = {"id": new_id(), "at": now(), "action": "note", "from": "submitted", "to": "submitted", "by": by}
        update = {"$push": {"timeline": entry}, "$inc": {"version": 1}, "$set": {"updated_at": now()}}
        task = asyncio.ensure_future(reports.update_one({"_id": number}, update))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return asked


async def measure(
    screens: Screens, pid: int, work: Callable[[], Any], latencies: Callable[[Any], list[float]]
) -> Figures:
    """Do ``work`` while ``screens`` look on."""
    screens.arrived.clear()
    screens.recorded.clear()
    screens.messages = screens.received = 0
    cpu, begin = cpu_seconds([pid]), time.perf_counter()
    done = await work()
    await asyncio.sleep(2.0)
    seconds = time.perf_counter() - begin
    return Figures(latencies(done), screens.messages, screens.received, cpu_seconds([pid]) - cpu, seconds, memory(pid))


class _Broadcast(WebSocketHandler):
    """Whatever one client says goes to all."""

    clients: set[_Broadcast] = set()

    def open(self, *_: str, **__: str) -> None:
        self.clients.add(self)

    def on_close(self) -> None:
        self.clients.discard(self)

    def on_message(self, message: str | bytes) -> None:
        for client in self.clients:
            if client is not self:
                client.write_message(message)


async def limit(port: int) -> None:
    """The bare broadcast."""
    server = HTTPServer(Application([("/live", _Broadcast)], websocket_max_message_size=1 << 24))
    server.add_sockets(bind_sockets(port, "127.0.0.1"))
    await asyncio.Event().wait()


async def replay(port: int, recorded: list[tuple[float, bytes]]) -> list[float]:
    """Say what was recorded at the same pace; when each message was said."""
    from tornado.websocket import websocket_connect

    speaker = await websocket_connect(f"ws://127.0.0.1:{port}/live")
    said = []
    begin = time.perf_counter()
    for at, payload in recorded:
        await asyncio.sleep(max(0.0, begin + at - recorded[0][0] - time.perf_counter()))
        said.append(time.perf_counter())
        await speaker.write_message(payload)
    speaker.close()
    return said


async def measure_ours(
    stage: Stage, services: Services, options: argparse.Namespace
) -> tuple[Figures, list[tuple[float, bytes]], tuple[float, float]]:
    """The product; what one client was sent; milliseconds of the worker and of mongod for each change."""
    await settle_in(services)
    versions = dict.fromkeys(await make_cases(services), 1)
    await settle(services, 60)
    (await Load.connect(stage.application.port, stage.application.pids, 1)).close()  # it is up
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        url = f"http://127.0.0.1:{stage.application.port}/admin/api/v1/session"
        opened = await http.post(url, json={"username": DISPATCHER, "password": PASSWORD})
    screens = Screens()
    token = opened.raise_for_status().json()["token"]
    await screens.open(stage.application.port, "/admin/api/v1/live", token, options.clients)
    changes_log = ChangeLog(services.database)
    while not await changes_log.newest():  # noqa: ASYNC110 - a feed that is new first looks at everything
        await asyncio.sleep(0.2)
    warm = await changes_log.newest() + len(await change(services, versions, options.rate, 2.0))
    while await changes_log.newest() < warm:  # noqa: ASYNC110 - the worker stands back for whoever else is busy
        await asyncio.sleep(0.2)
    await asyncio.sleep(1.0)
    pids = (stage.worker.pid, stage.mongod.pid)
    before = [cpu_seconds([pid]) for pid in pids]

    def latencies(asked: dict[tuple[str, int], float]) -> list[float]:
        found = []
        for at, payload in screens.arrived:
            for case in orjson.loads(payload).get("cases", ()):
                if (case["number"], case["version"]) in asked:
                    found.append((at - asked[case["number"], case["version"]]) * 1e3)
        return found

    ours = await measure(
        screens,
        stage.application.pids[0],
        lambda: change(services, versions, options.rate, options.seconds),
        latencies,
    )
    changes = options.rate * options.seconds
    worker, mongod = ((cpu_seconds([pid]) - b) / changes * 1e3 for pid, b in zip(pids, before, strict=True))
    await screens.close()
    return ours, [(at, p) for at, p in screens.recorded if b'"changes"' in p], (worker, mongod)


async def measure_limit(recorded: list[tuple[float, bytes]], clients: int) -> Figures:
    """The bare broadcast of what was ``recorded``."""
    port = choose_port()
    command = [sys.executable, "-m", "bench.live", "--limit", str(port)]
    process = await spawn("limit", command, log=ROOT / "var" / "log" / "bench" / "live-limit.log", cwd=ROOT)
    try:
        (await Load.connect(port, [process.pid], 1)).close()  # it is up
        screens = Screens()
        await screens.open(port, "/live", "-", clients)

        def latencies(said: list[float]) -> list[float]:
            when = {p: t for (_, p), t in zip(recorded, said, strict=True)}
            return [(at - when[p]) * 1e3 for at, p in screens.arrived if p in when]

        figures = await measure(screens, process.pid, lambda: replay(port, recorded), latencies)
        await screens.close()
        return figures
    finally:
        await process.stop()


async def bench(options: argparse.Namespace) -> int:
    """Measure both and tell."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    os.environ |= {"GONGZHI_LIVE__PER_PERSON": "100000", "GONGZHI_LIVE__CONNECTIONS": "100000"}
    with console.status("Starting the servers") as status:
        async with open_stage(1) as stage, open_services(load_settings()) as services:
            status.update(f"Changes to {options.clients} clients …")
            ours, recorded, (worker, mongod) = await measure_ours(stage, services, options)
            status.update("The limit …")
            limit = await measure_limit(recorded, options.clients)
    table = Table(box=None, pad_edge=False)
    for name in ("", "p50 ms", "p95", "messages/s", "MB/s", "CPU s", "CPU %", "MB resident"):
        table.add_column(name, justify="left" if not name else "right")
    for name, f in (("ours, from the write in MongoDB", ours), ("limit, from the sender", limit)):
        table.add_row(
            name,
            f"{f.percentile(0.5):.0f}",
            f"{f.percentile(0.95):.0f}",
            f"{f.messages / f.seconds:,.0f}",
            f"{f.received / f.seconds / 1e6:.1f}",
            f"{f.cpu:.1f}",
            f"{f.cpu / f.seconds:.0%}",
            f"{f.memory.resident:.0f}",
        )
    console.print(
        f"\n{options.rate:g} changes a second for {options.seconds:g} s to {options.clients} clients on one process; "
        f"load average {os.getloadavg()[0]:.1f}"
    )
    console.print(table)
    console.print(f"A change costs the worker {worker:.2f} ms, and mongod, with its being made, {mongod:.2f} ms.")
    seen, sampled = len(ours.latencies), len(range(0, options.clients, _step(options.clients)))
    console.print(f"{sampled} sampled clients got {seen} lines of {options.rate * options.seconds:.0f} changes each.")
    if options.json:
        figures = {"ours": _figures(ours), "limit": _figures(limit), "worker_ms": worker, "mongod_ms": mongod}
        options.json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
    return 0 if seen else 1


def _figures(f: Figures) -> dict[str, float]:
    return {
        "p50_ms": f.percentile(0.5),
        "p95_ms": f.percentile(0.95),
        "messages_per_second": f.messages / f.seconds,
        "bytes_per_second": f.received / f.seconds,
        "cpu_seconds": f.cpu,
        "seconds": f.seconds,
        "resident_mb": f.memory.resident,
    }


def _step(clients: int) -> int:
    """Every how-manieth client notes when messages come: spread over the order in which they are served."""
    return max(1, clients // SAMPLED)


def main() -> int:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.live", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--rate", type=float, default=200.0, help="changes a second (200)")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    return asyncio.run(limit(options.limit) if options.limit else bench(options)) or 0


if __name__ == "__main__":
    sys.exit(main())
