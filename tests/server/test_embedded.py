"""The embedded MongoDB and Valkey: real processes on real ports, killed and moved about."""

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient, WriteConcern
from redis.asyncio import Redis

from server.launcher.embedded import start_mongod, start_valkey
from server.launcher.process import StartError, choose_port, reserve_shared_port, spawn
from tests.server.processes import is_alive, until
from tests.timing import within

pytestmark = pytest.mark.long

CACHE_GB = 0.25


@asynccontextmanager
async def mongod(folder: Path, port: int | None = None):
    server = await start_mongod(folder / "data", folder / "logs", port, CACHE_GB)
    try:
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(server.url, serverSelectionTimeoutMS=1000)
        async with client:
            yield server, client.test.get_collection("things", write_concern=WriteConcern("majority", j=True))
    finally:
        await server.stop()


async def test_mongod_takes_durable_writes_transactions_and_change_streams(tmp_path: Path) -> None:
    async with mongod(tmp_path) as (_, things):
        client = things.database.client
        async with await things.watch() as changes:
            async with client.start_session() as session, await session.start_transaction():
                await things.insert_one({"_id": 1}, session=session)
                assert await things.find_one({"_id": 1}) is None, "a transaction is seen from outside"
            change = await anext(changes)
        assert (change["operationType"], change["documentKey"]) == ("insert", {"_id": 1})


@pytest.mark.long
async def test_mongod_comes_back_on_another_port_with_its_data(tmp_path: Path) -> None:
    async with mongod(tmp_path) as (first, things):
        await things.insert_one({"_id": 1})
    # What has the port now closes on whoever speaks another protocol. (On one that stays silent mongod waits for 30 s.)
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", first.port):
        async with mongod(tmp_path, first.port) as (second, things):
            assert second.port != first.port
            assert await things.find_one({"_id": 1})
            await things.insert_one({"_id": 2})
    async with mongod(tmp_path, second.port) as (third, things):
        assert third.port == second.port
        assert await things.count_documents({}) == 2


async def test_mongod_killed_outright_has_every_acknowledged_write_at_the_next_start(tmp_path: Path) -> None:
    async with mongod(tmp_path) as (server, things):
        await things.insert_many([{"_id": n} for n in range(100)])
        server.process.kill()
        assert await server.process.wait() == -signal.SIGKILL
    async with mongod(tmp_path) as (_, things):
        assert await things.count_documents({}) == 100


async def test_a_second_mongod_on_the_same_data_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with mongod(tmp_path):
        with pytest.raises(StartError, match="another process works on the same data folder"):
            await start_mongod(tmp_path / "data", tmp_path / "logs", None, CACHE_GB)


async def test_a_mongod_that_ends_at_once_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cacheSizeGB must be greater"):
        await start_mongod(tmp_path / "data", tmp_path / "logs", None, cache_gb=-1)


async def test_stopping_mongod_is_a_clean_shutdown_within_seconds(tmp_path: Path) -> None:
    server = await start_mongod(tmp_path / "data", tmp_path / "logs", None, CACHE_GB)
    with within(500, time.monotonic):  # 10 s on a usual machine: a primary of one has nobody to wait for
        await server.stop()
    assert server.process.returncode == 0
    await server.stop()  # a second time changes nothing


async def test_valkey_keeps_what_it_was_given_through_a_kill_and_a_change_of_port(tmp_path: Path) -> None:
    first = await start_valkey(tmp_path / "data", tmp_path / "logs")
    try:
        async with Redis.from_url(first.url) as client:
            await client.set("key", "value")
            await client.config_set("appendfsync", "always")
            await client.set("other", "value")
    finally:
        first.process.kill()
        await first.process.wait()
    with socket.create_server(("127.0.0.1", first.port)):
        second = await start_valkey(tmp_path / "data", tmp_path / "logs", first.port)
        try:
            assert second.port != first.port
            async with Redis.from_url(second.url, decode_responses=True) as client:
                assert await client.mget("key", "other") == ["value", "value"]
        finally:
            await second.stop()
    assert second.process.returncode == 0


async def test_the_servers_listen_on_the_loopback_address_only(tmp_path: Path) -> None:
    async with mongod(tmp_path) as (database, _):
        cache = await start_valkey(tmp_path / "valkey", tmp_path / "logs")
        try:
            assert listening_addresses({database.port, cache.port}) == {"127.0.0.1"}
        finally:
            await cache.stop()


def listening_addresses(ports: set[int]) -> set[str]:
    """The local addresses of the listening sockets on ``ports``; of IPv6 as the kernel writes them."""
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, port = local.partition(":")
            if state == "0A" and int(port, 16) in ports:
                addresses.add(socket.inet_ntoa(bytes.fromhex(address)[::-1]) if table == "tcp" else address)
    return addresses


PARENT = """
import asyncio, sys
from pathlib import Path
from server.launcher.embedded import start_mongod, start_valkey

async def main(folder):
    mongod = await start_mongod(folder / "mongod", folder / "logs", None, 0.25)
    valkey = await start_valkey(folder / "valkey", folder / "logs")
    print(mongod.process.pid, valkey.process.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main(Path(sys.argv[1])))
"""


async def test_the_servers_die_with_a_parent_that_is_killed_outright(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, tmp_path, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert parent.stdout
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(pids) == 2
    try:
        assert all(is_alive(pid) for pid in pids)
        parent.kill()
        await parent.wait()
        await until(lambda: not any(is_alive(pid) for pid in pids))
    finally:
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGKILL)


async def test_a_child_that_ignores_the_request_to_end_is_killed_with_its_own_children(tmp_path: Path) -> None:
    child = await spawn(
        "stubborn", ["sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait; sleep 60"], log=tmp_path / "log"
    )
    await until(lambda: (tmp_path / "log").read_text().endswith("\n"))
    grandchild = int((tmp_path / "log").read_text())
    assert await child.stop(grace=0.2) == -signal.SIGKILL
    await until(lambda: not is_alive(grandchild))


async def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"ghost cannot be started.*/no/such/program"):
        await spawn("ghost", ["/no/such/program"], log=tmp_path / "log")


def test_a_port_in_use_gives_way_to_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert choose_port(port) != port
    assert choose_port(port) == port


def test_a_reserved_port_is_for_those_who_share_it() -> None:
    holder, port = reserve_shared_port(0)
    with holder:
        with socket.socket() as first, socket.socket() as second:
            for member in (first, second):
                member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                member.bind(("127.0.0.1", port))
                member.listen()
        assert choose_port(port) != port, "the port is free to anybody while nobody listens"
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port))
    assert choose_port(port) == port
