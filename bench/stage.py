"""Everything that is measured, as programs of their own: what ``make run`` starts, and the limit."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from server.launcher.embedded import start_mongod, start_valkey
from server.launcher.process import Process, choose_port, reserve_shared_port, spawn
from server.launcher.run import PUSH_PATH, ROOT, Addresses

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Group:
    """Processes that share ``port``."""

    port: int
    processes: Sequence[Process]

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [process.pid for process in self.processes]


@dataclass(frozen=True)
class Stage:
    """What runs, and where. The sandbox is WeChat; ``limit`` is the bare handlers that ours are compared with."""

    application: Group
    limit: Group
    worker: Process
    mongod: Process
    sandbox: str


@dataclass(frozen=True)
class Memory:
    """What a process holds, in MB: resident, and its proportional share of what it has in common with others."""

    resident: float
    proportional: float


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time that ``pids`` have used so far, theirs and the kernel's on their behalf."""
    fields = (Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split() for pid in pids)
    return sum(int(f[11]) + int(f[12]) for f in fields) / _TICKS


def memory(pid: int) -> Memory:
    """What the process holds now."""
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:])
    return Memory(*(int(rows[name].split()[0]) / 1024 for name in ("Rss", "Pss")))


@asynccontextmanager
async def open_stage(
    processes: int,
    *,
    kept: str | None = None,
    prepare: Callable[[str], Awaitable[None]] | None = None,
    cache_gb: float = 1.0,
) -> AsyncIterator[Stage]:
    """Start it all, with ``processes`` application processes and as many of the limit; stopped on leaving.

    The data go into ``var/{kept}``, which stays, or into a folder that is deleted on leaving. ``prepare`` is awaited
    with the sandbox's address once the databases and it are up. ``cache_gb`` is mongod's. The settings of this process
    are those of the children: they are put into its environment.
    """
    async with AsyncExitStack() as held:
        scratch = ROOT / "var"  # not the system's temporary folder, which may be memory: what is synced must hit a disk
        scratch.mkdir(exist_ok=True)
        if kept is None:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=scratch)))
        else:
            folder = scratch / kept
            folder.mkdir(exist_ok=True)
        logs = scratch / "log" / "bench"
        logs.mkdir(parents=True, exist_ok=True)
        for old in logs.iterdir():
            old.unlink()

        async def start(name: str, command: Sequence[str | Path], env: dict[str, str] | None = None) -> Process:
            process = await spawn(name, command, log=logs / f"{name}.log", env=env, cwd=ROOT)
            held.push_async_callback(process.stop)
            return process

        mongod = await start_mongod(folder / "mongod", logs, cache_gb=cache_gb)
        held.push_async_callback(mongod.stop)
        valkey = await start_valkey(folder / "valkey", logs)
        held.push_async_callback(valkey.stop)
        holder, port = reserve_shared_port(0)
        held.enter_context(holder)
        limit_holder, limit_port = reserve_shared_port(0)
        held.enter_context(limit_holder)
        sandbox_port = choose_port()
        addresses = Addresses(
            http=f"http://127.0.0.1:{port}",
            sandbox=f"http://127.0.0.1:{sandbox_port}",
            mongodb=mongod.url,
            redis=valkey.url,
        )
        os.environ.update(
            {
                **addresses.environment(),
                "GONGZHI_PHOTOS__STORE": (folder / "photos").as_uri(),
                "GONGZHI_SNAPSHOTS__STORE": (folder / "snapshots").as_uri(),
                "GONGZHI_LIMITS__ENABLED": "false",  # a few connections stand for thousands of people
                "GONGZHI_LOG__LEVEL": "warning",
            }
        )
        figures = folder / "metrics"
        shutil.rmtree(figures, ignore_errors=True)
        figures.mkdir()
        shared = {"PROMETHEUS_MULTIPROC_DIR": str(figures)}
        sandbox = {"SANDBOX_PORT": str(sandbox_port), "SANDBOX_PUSH_URL": addresses.http + PUSH_PATH}
        await start("sandbox", [sys.executable, "-m", "sandbox"], sandbox)
        if prepare is not None:
            await prepare(addresses.sandbox)
        application = [
            await start(f"app-{n}", [sys.executable, "-m", "server", "app"], shared) for n in range(processes)
        ]
        limit = [
            await start(f"limit-{n}", [sys.executable, "-m", "bench.limit", str(limit_port)]) for n in range(processes)
        ]
        worker = await start("worker", [sys.executable, "-m", "server", "worker"], shared)
        yield Stage(
            Group(port, application),
            Group(limit_port, limit),
            worker,
            mongod.process,
            addresses.sandbox,
        )
